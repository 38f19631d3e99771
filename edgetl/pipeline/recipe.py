"""What a recipe says of this data and this machine: what is missing is filled in, what cannot go on is said."""

from __future__ import annotations

import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl import config as recipes
from edgetl.config import DetectionConfig, Recipe, Target
from edgetl.data.walk import place
from edgetl.errors import ConfigError
from edgetl.packages import missing
from edgetl.pipeline.stages import Stage

if TYPE_CHECKING:
    from edgetl.inputs.image import PreprocessSpec


def resolve(recipe: Recipe) -> Recipe:
    """Fill in what depends on the data (boxes or labels) and the backbone (mean, standard deviation).

    So the lock file is explicit, and what does not fit is known before the teacher is trained.

    Raises:
        ConfigError: the task asks for what the data does not hold, or the relation of its classes cannot be read.
        DataError: annotations of boxes are not right.
        ModelError: no backbone has a name that the recipe uses.
        MissingDependencyError: a .tflite file is asked for, and what writes it is not installed.
    """
    from edgetl.data.relations import read_relation
    from edgetl.models import backbones

    recipe = _of_its_data(recipe)
    _check_litert(recipe)
    if recipe.pretrain.enabled and isinstance(recipe.task, DetectionConfig):
        raise ConfigError(
            "pretrain.source and pretrain.images are for labels: a linear probe, which says what was learned, finds"
            " no boxes. Remove them; to begin with another set's detector, name its teacher.safetensors in"
            " train.weights."
        )
    read_relation(recipe.labels)
    for name, own in ((recipe.prune.network, "teacher"), (recipe.distill.student, "pruned")):
        if name != own:
            backbones.resolve(name)
    if (first_teacher := recipe.pretrain.teacher) is not None and not Path(first_teacher).is_file():
        backbones.resolve(first_teacher)
    settings = recipe.preprocess
    if settings.mean is None or settings.std is None:
        mean, std, _ = backbones.default_preprocess(recipe.train.backbone)
        settings = settings.model_copy(update={"mean": settings.mean or mean, "std": settings.std or std})
    return recipe.model_copy(update={"preprocess": settings})


def _check_litert(recipe: Recipe) -> None:
    """Say before the teacher is trained what a .tflite file cannot be, or lacks here."""
    if Target.LITERT not in recipe.quantize.target:
        return
    if recipe.export.dynamic_size:
        raise ConfigError(
            "quantize.target: a .tflite file has fixed sizes; set export.dynamic_size = false, or leave litert out."
        )
    if find_spec("ai_edge_litert") is None:
        raise missing("ai_edge_litert", purpose="for quantize.target = litert,")


def _of_its_data(recipe: Recipe) -> Recipe:
    """With the task that the data is for."""
    from edgetl.data.build import boxes_at

    source, kind = recipe.data.source, recipe.task.kind
    boxes, asked = boxes_at(source) is not None, isinstance(recipe.task, DetectionConfig)
    if boxes and recipe.extend.run is not None:
        raise ConfigError(
            f"extend.run is for one class per image, and {source} holds pictures with boxes; train on all of them anew."
        )
    if boxes and not asked and "task" in recipe.model_fields_set:
        raise ConfigError(
            f'{source} holds pictures with boxes, but task.kind = "{kind}" asks for labels; set it to "detection", or'
            " leave [task] out."
        )
    if asked and not boxes and place(source).exists():  # what is not there is said when it is read
        raise ConfigError(
            f'task.kind = "detection" asks for boxes, of which {source} holds none; expected COCO\'s JSON, a YOLO'
            " set's YAML, VOC's XML, or a CSV with the columns path, label, x1, y1, x2, y2."
        )
    if not boxes:
        return recipe
    from edgetl.models.detector import check_side

    check_side(recipe.preprocess.size, "preprocess.size")
    if recipe.distill.size is not None:
        check_side(recipe.distill.size, "distill.size")
    return recipe if asked else recipes.for_boxes(recipe)


def check_folds(recipe: Recipe) -> None:
    """Raises ConfigError where the folds' scores would not be what a run of the recipe reaches on images that it has
    not seen."""
    if recipe.pretrain.enabled:
        raise ConfigError(
            "Cross-validation does not repeat [pretrain] in each fold, whose images it may have seen or was judged by."
            " Remove pretrain.source and pretrain.images; to begin with what another set taught, name the"
            " teacher.safetensors of a run on it in train.weights."
        )
    if recipe.extend.run is not None:
        raise ConfigError(
            "Cross-validation does not repeat [extend] in each fold, whose images the run that goes on has seen. Leave"
            " [extend] out."
        )
    if recipe.adapt.images is not None:
        raise ConfigError(
            "Cross-validation does not repeat [adapt] in each fold, so its scores would be those of a teacher that was"
            " not adapted. Remove adapt.images to learn how well training does without."
        )


def other_source(run_dir: Path, source: str) -> str | None:
    """The data set whose teacher was trained in a run folder, where it is another than `source` and still there."""
    if not (run_dir / Stage.TRAIN / "stage.json").is_file():
        return None
    try:
        lock = tomllib.loads((run_dir / "recipe.lock.toml").read_text(encoding="utf-8"))
        before = str(lock["data"]["source"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if before == source or not (before in recipes.BUILT_IN or Path(before).exists()):
        return None
    built_in = before in recipes.BUILT_IN or source in recipes.BUILT_IN
    return before if built_in or Path(before).resolve() != place(source).resolve() else None


def teacher_spec(recipe: Recipe) -> PreprocessSpec:
    """The teacher's preprocessing, of a recipe that `resolve` gave."""
    from edgetl.inputs.image import PreprocessSpec

    p = recipe.preprocess
    assert p.mean is not None
    assert p.std is not None
    return PreprocessSpec(
        size=p.size,
        resize=p.resize,
        crop_fraction=p.crop_fraction,
        interpolation=p.interpolation,
        decoding=p.decoding,
        mean=p.mean,
        std=p.std,
        window=p.window,
        guess_floats=False,
        sound=recipe.heard,
    )
