"""The student: the pruned teacher, or a smaller backbone, taught by the teacher's soft targets and the labels."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from edgetl.config import DistillConfig, DistillFeatures, DistillLoss, Episodes, Mix
from edgetl.data.index import DataIndex
from edgetl.distill.cross import CrossHeads
from edgetl.distill.features import Features
from edgetl.distill.objective import Guide
from edgetl.distill.teacher import Ensemble, guide, load_for, load_other_teacher
from edgetl.errors import ConfigError, WeightsError
from edgetl.inputs.image import PreprocessSpec
from edgetl.keys import UNKEYED
from edgetl.models import backbones, checkpoint
from edgetl.models.architecture import describe
from edgetl.models.detector import Detector
from edgetl.models.size import OTHER_SIZE, check_takes, network_size
from edgetl.models.two_four import held
from edgetl.progress import SILENT, Progress
from edgetl.records.train import TrainRecord
from edgetl.train.episodes import Prototypical
from edgetl.train.evaluate import score_splits
from edgetl.train.loader import step_sizes
from edgetl.train.loop import Fitting, fit
from edgetl.train.objective import Objective
from edgetl.train.seeds import derive
from edgetl.train.sets import Unlabelled, open_sets, open_unlabelled
from edgetl.train.tasks.base import TrainingTask
from edgetl.train.tasks.mixing import Mixing
from edgetl.train.trackers import Listener

CHECKPOINT = "student.safetensors"
PRUNED = "pruned"
"""The value of `distill.student` that means the pruned teacher."""


@dataclass(frozen=True, kw_only=True)
class DistillInputs:
    """What the stage reads.

    Attributes:
        guide: the teacher, and how it is followed where `config` does not say.
        pruned: the pruned teacher's checkpoint, for `distill.student = "pruned"`.
        index: the images and their splits.
        spec: the student's preprocessing in evaluation.
        pixels_dir: folder of decoded pixels, shared by the stages.
        seed: of everything random.
        select: the score by which the best epoch is chosen; the task's choice where None.
        unlabelled: the images of `distill.unlabelled`, from `edgetl.data.unlabelled`, or others on which the student
            follows only the teacher.
        episodes: the method that helped the teacher; by `prototypical` the student learns too.
    """

    guide: Guide
    pruned: Path | None
    index: DataIndex
    spec: PreprocessSpec
    pixels_dir: Path = field(metadata=UNKEYED)
    seed: int
    select: str | None = None
    unlabelled: DataIndex | None = None
    episodes: Episodes = Episodes.NONE


def run(
    config: DistillConfig,
    inputs: DistillInputs,
    *,
    out: Path,
    progress: Progress = SILENT,
    listen: Listener | None = None,
) -> TrainRecord:
    """Teach the student and write `out/student.safetensors`.

    The epoch that is best on the validation split is chosen. A run that was stopped goes on after its last
    epoch. A pruned network's 2:4 zeros stay zero. `listen` is called with each epoch's record.

    Raises:
        ConfigError: mixing with a loss that needs one label an image; unlabelled images that were not indexed, or
            steps of one image.
        WeightsError: a checkpoint is missing, broken, or of other classes; pretrained weights cannot be had.
        ModelError: unknown backbone, or one that does not take images of the student's size, or gives no feature maps
            where they are to be followed.
        ImageError: an image cannot be decoded.
        TrainingError: training cannot go on.
        Interrupted: Ctrl-C.
        StorageError: a file cannot be written.
    """
    start, labels, how = time.perf_counter(), inputs.index.labels, inputs.guide.under(config)
    task = inputs.guide.task_for(inputs.index.task)
    _check_settings(config, how)
    further = _unlabelled(config, inputs)
    teacher, _ = load_for(labels, how.teacher, "teacher")
    student, backbone, built = _student(config, inputs, task)
    size, teacher_size = inputs.spec.size, how.teacher_size
    if size != teacher_size:
        check_takes(student, size, backbone, OTHER_SIZE)
    other_teachers = [load_other_teacher(labels, Path(path), inputs.spec) for path in config.teachers]
    view = max(size, teacher_size, *(other_teacher.size for other_teacher in other_teachers))
    sets = open_sets(inputs.index, inputs.spec, inputs.pixels_dir, progress, view_size=view)
    unlabelled: Unlabelled | None = None
    taught = 0
    if further is not None:
        unlabelled = open_unlabelled(
            further,
            inputs.spec,
            inputs.pixels_dir,
            progress,
            share=config.unlabelled_share,
            view_size=view,
        )
        steps = step_sizes(len(sets.train), how.batch_size, unlabelled.share)
        drawn = sum(beside for _, beside in steps)
        taught = min(len(unlabelled.pixels), config.epochs * drawn)
        progress.message(
            f"distill: {len(unlabelled.pixels)} unlabelled images, of which {taught} teach;"
            f" {drawn} are drawn per epoch, in addition to {len(sets.train)} labelled ones"
        )
    state = out / "distill.state"
    fitting = Fitting(
        phase="distill",
        epochs=config.epochs,
        batch_size=how.batch_size,
        lr=config.lr,
        weight_decay=how.weight_decay,
        augment=how.augment,
        mixing=None if config.mix is Mix.NONE else Mixing(config.mix, config.mix_alpha),
        seed=inputs.seed,
        ema=config.ema,
        class_balance=how.class_balance,
        precision=how.precision,
        select=inputs.select or task.selection(sets.train.targets),
    )
    guided = guide(teacher, teacher_size)
    taught_by: nn.Module = guided
    prefix = "network."
    if other_teachers:
        taught_by = Ensemble(
            [taught_by, *(other_teacher.network for other_teacher in other_teachers)], how.temperature, task
        )
        prefix = "members.0.network."
    features = None
    if config.features is not DistillFeatures.NONE:
        features = Features(
            config.features,
            task=task,
            student=student,
            teacher=teacher,
            sizes=(size, teacher_size),
            prefix=prefix,
            weight=config.feature_weight,
            seed=derive(inputs.seed, "projectors"),
        )
    cross = None
    if how.loss is DistillLoss.CROSSKD:
        assert isinstance(student, Detector)
        assert isinstance(guided.network, Detector)
        cross = CrossHeads(student, guided.network, seed=derive(inputs.seed, "projectors"))
    objective: Objective = how.objective(taught_by, task, student_size=size, features=features, cross=cross)
    if inputs.episodes is Episodes.PROTOTYPICAL:
        objective = Prototypical(labels=objective, layer=task.output_layers(student)[0])
    begun = time.perf_counter()
    with held(student):
        epochs = fit(
            student,
            fitting,
            task=task,
            train=sets.train,
            val=sets.val,
            objective=objective,
            unlabelled=unlabelled,
            state=state,
            progress=progress,
            listen=listen,
        )
    around = begun - start
    begun = time.perf_counter()
    val, test = score_splits(task, student, sets)
    architecture = describe(student, backbone, task.width, built)
    checkpoint.save(student, architecture, out / CHECKPOINT, checkpoint.provenance(labels, inputs.spec))
    record = TrainRecord(
        checkpoint=f"{out.name}/{CHECKPOINT}",
        backbone=backbone,
        size=network_size(student, inputs.spec.size),
        epochs=epochs,
        val=val,
        test=test,
        # epochs of an earlier, interrupted run count too
        seconds=around + sum(e.seconds for e in epochs) + time.perf_counter() - begun,
        unlabelled=taught,
    )
    state.unlink(missing_ok=True)
    return record


def check(
    config: DistillConfig,
    guide: Guide,
    *,
    task: TrainingTask,
    backbone: str,
    labels: Sequence[str],
    spec: PreprocessSpec,
    seed: int,
) -> None:
    """Find out before the teacher is trained what would stop its student: settings that do not go together, further
    teachers, the student's backbone.

    Args:
        config: the stage's settings.
        guide: how the teacher, which is not there yet, will be followed.
        task: what the student answers.
        backbone: the teacher's.
        labels: the data's classes.
        spec: the student's preprocessing in evaluation.
        seed: of everything random.

    Raises:
        ConfigError: settings do not go together.
        WeightsError: a further teacher, or the student's pretrained weights, cannot be had.
        ModelError: the student's backbone does not take images of its size.
    """
    _check_settings(config, guide.under(config))
    for path in config.teachers:
        load_other_teacher(labels, Path(path), spec)
    if config.student != PRUNED:
        weights = derive(seed, "weights", config.student)
        model = task.network(config.student, config.weights, seed=weights, size=spec.size)
        check_takes(model, spec.size, config.student, OTHER_SIZE)
    elif spec.size != guide.teacher_size:
        model = task.network(backbone, backbones.NO_WEIGHTS, seed=seed, size=guide.teacher_size)
        check_takes(model, spec.size, backbone, OTHER_SIZE)


def _check_settings(config: DistillConfig, how: Guide) -> None:
    if config.mix is not Mix.NONE and how.loss is DistillLoss.DKD:
        raise ConfigError(
            "distill.mix blends labels, which distill.loss = dkd cannot take; use hinton or dist."
        )
    if config.unlabelled is not None and how.batch_size < 2:
        raise ConfigError(
            "distill.unlabelled needs a labelled and an unlabelled image in each step; train.batch_size is"
            f" {how.batch_size}, set it to 2 or more."
        )


def _unlabelled(config: DistillConfig, inputs: DistillInputs) -> DataIndex | None:
    """The images without labels that teach, where there are some."""
    if config.unlabelled is not None and inputs.unlabelled is None:
        raise ConfigError(
            f"distill.unlabelled is {config.unlabelled}, but its images were not indexed; pass the index that"
            " edgetl.data.unlabelled writes."
        )
    return inputs.unlabelled


def _student(
    config: DistillConfig, inputs: DistillInputs, task: TrainingTask
) -> tuple[nn.Module, str, int | None]:
    """The untaught student, its backbone's name, and the size that it is built for."""
    if config.student != PRUNED:
        seed, size = derive(inputs.seed, "weights", config.student), inputs.spec.size
        return task.network(config.student, config.weights, seed=seed, size=size), config.student, size
    if inputs.pruned is None:
        raise WeightsError(
            'distill.student is "pruned", but there is no pruned network. Run the prune stage first, or name a'
            " backbone in distill.student."
        )
    model, architecture = load_for(inputs.index.labels, inputs.pruned, "pruned network")
    return model, architecture.backbone, architecture.size
