"""The recipe: one section per stage, and what must hold between sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self, get_args

from pydantic import BeforeValidator, Field, model_validator
from pydantic.fields import FieldInfo

from edgetl.config.choices import LOSSES_OF_BOXES, Augment, DistillLoss, Imbalance
from edgetl.config.data import DataConfig, LabelsConfig, PreprocessConfig, SoundConfig
from edgetl.config.shipping import BenchConfig, BundleConfig, ExportConfig, QuantizeConfig
from edgetl.config.student import DistillConfig, PruneConfig, check_unlabelled
from edgetl.config.task import (
    ClassificationConfig,
    DetectionConfig,
    MultiHeadConfig,
    MultiLabelConfig,
    TaskConfig,
)
from edgetl.config.teacher import AdaptConfig, ExtendConfig, PretrainConfig, TrainConfig
from edgetl.config.values import Section
from edgetl.inputs.image import Resize
from edgetl.inputs.spec import InputKind, SoundSpec


def _usual_task(values: object) -> object:
    """A section that names no kind asks for one class per image."""
    return {"kind": "classification", **values} if isinstance(values, Mapping) else values


class Recipe(Section):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "model"
    """Name of the run and of the bundle."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of everything random."""
    data: DataConfig = DataConfig()
    task: Annotated[TaskConfig, Field(discriminator="kind"), BeforeValidator(_usual_task)] = (
        ClassificationConfig()
    )
    labels: LabelsConfig = LabelsConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    sound: SoundConfig = SoundConfig()
    pretrain: PretrainConfig = PretrainConfig()
    extend: ExtendConfig = ExtendConfig()
    train: TrainConfig = TrainConfig()
    adapt: AdaptConfig = AdaptConfig()
    prune: PruneConfig = PruneConfig()
    distill: DistillConfig = DistillConfig()
    export: ExportConfig = ExportConfig()
    quantize: QuantizeConfig = QuantizeConfig()
    bench: BenchConfig = BenchConfig()
    bundle: BundleConfig = BundleConfig()

    @model_validator(mode="before")
    @classmethod
    def _by_the_task(cls, values: Any) -> Any:
        """A section that says nothing is as good as none; a detector has a soft loss of its own."""
        if not isinstance(values, Mapping):
            return values
        task, distill = values.get("task"), values.get("distill", {})
        if isinstance(task, Mapping) and not task:
            values = {name: value for name, value in values.items() if name != "task"}
        boxes = isinstance(task, DetectionConfig) or (
            isinstance(task, Mapping) and task.get("kind") == "detection"
        )
        if boxes and isinstance(distill, Mapping) and "loss" not in distill:
            values = {**values, "distill": {**distill, "loss": DistillLoss.BCKD}}
        data = values.get("data", {})
        if isinstance(data, Mapping) and data.get("input") == InputKind.SOUND:
            values = _with_usual_of_sounds(values)
        return values

    @property
    def heard(self) -> SoundSpec | None:
        """How recordings become pictures, where the data are these."""
        return self.sound.spec if self.data.input is InputKind.SOUND else None

    def _check_sound(self) -> None:
        """Pictures of sounds are whole, upright and read from left to right."""
        if self.data.input is InputKind.IMAGE:
            named = [name for name in ("train", "distill") if getattr(self, name).augment is Augment.SOUND]
            if named or self.sound != SoundConfig():
                what = f"{named[0]}.augment = sound" if named else "[sound]"
                raise ValueError(
                    f'{what} is for recordings, and data.input is image; set data.input = "sound"'
                )
            return
        others = {
            "task.kind = detection": isinstance(self.task, DetectionConfig),
            "pretrain.images": self.pretrain.images is not None,
            "[extend]": self.extend.run is not None,
            "[adapt]": self.adapt.images is not None,
            "distill.unlabelled": self.distill.unlabelled is not None,
            "preprocess.window": self.preprocess.window is not None,
        }
        if asked := [name for name, there in others.items() if there]:
            raise ValueError(f"{asked[0]} is for images, and data.input is sound; leave it out")
        if self.preprocess.resize is not Resize.SQUASH:
            raise ValueError(
                f"preprocess.resize = {self.preprocess.resize} would cut off or shrink a sound's picture; take squash"
            )
        for name in ("train", "distill"):
            augment = getattr(self, name).augment
            if augment not in (Augment.NONE, Augment.SOUND):
                raise ValueError(
                    f"{name}.augment = {augment} is for pictures of things, and a sound's turned or mirrored is another"
                    " sound's; take sound or none"
                )

    def _check_extension(self) -> None:
        """A run that goes on has its network already, and must stay what its own images say."""
        if not isinstance(self.task, ClassificationConfig):
            raise ValueError(
                f"extend.run is for one class per image, and task.kind is {self.task.kind}; leave [extend] out and"
                " train on all images"
            )
        others = [
            name
            for name, asked in (("pretrain", self.pretrain.enabled), ("adapt", self.adapt.images is not None))
            if asked
        ]
        if others:
            raise ValueError(
                f"extend.run begins with a network that has learned already, so [{others[0]}] does not go with it;"
                f" leave [{others[0]}] or [extend] out"
            )

    @model_validator(mode="after")
    def _fits_the_task(self) -> Self:
        task, distill, labels = self.task, self.distill, self.labels
        if self.adapt.images is not None:
            # Recovery and quantization-aware training have no loss between features.
            check_unlabelled(distill, "adapt.images", features=False, section="distill.")
        if self.extend.run is not None:
            self._check_extension()
        self._check_sound()
        if not isinstance(task, ClassificationConfig) and (labels.tree or labels.graph) is not None:
            raise ValueError(
                f"labels.{'graph' if labels.tree is None else 'tree'} relates classes of which an image has one; for"
                f" task.kind = {task.kind} leave it out"
            )
        boxes = isinstance(task, DetectionConfig)
        if boxes is not (self.distill.loss in LOSSES_OF_BOXES):
            losses = [loss for loss in DistillLoss if (loss in LOSSES_OF_BOXES) is boxes]
            raise ValueError(
                f"distill.loss = {self.distill.loss} does not fit task.kind = {task.kind}; take"
                f" {' or '.join(losses)}"
            )
        if isinstance(task, ClassificationConfig | DetectionConfig):
            return self
        heads = task.heads.items() if isinstance(task, MultiHeadConfig) else ()
        several = [f"the head {name}" for name, head in heads if head.kind == "multilabel"]
        if several or isinstance(task, MultiLabelConfig):
            who = several[0] if several else "task.kind = multilabel"
            if self.distill.loss is not DistillLoss.HINTON:
                raise ValueError(
                    f"distill.loss = {self.distill.loss} compares classes of which one is right; for {who} take hinton"
                )
            if self.train.imbalance not in (Imbalance.NONE, Imbalance.SAMPLING):
                raise ValueError(
                    f"train.imbalance = {self.train.imbalance} weighs classes of which one is right; for {who} take"
                    " sampling or none"
                )
        if self.distill.loss is DistillLoss.DKD:
            raise ValueError(
                "distill.loss = dkd asks for the class of every image, which may be missing where task.kind ="
                " multihead; take hinton or dist"
            )
        return self


_USUAL_OF_SOUNDS = {
    "preprocess": {"resize": "squash"},
    "train": {"augment": "sound"},
    "distill": {"augment": "sound"},
}


def _with_usual_of_sounds(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """What suits pictures of sounds, where a recipe says nothing else."""
    found = dict(values)
    for section, usual in _USUAL_OF_SOUNDS.items():
        own = found.get(section, {})
        if isinstance(own, Mapping):
            found[section] = {**usual, **own}
    return found


SECTIONS = tuple(name for name in Recipe.model_fields if name not in ("name", "seed"))


def dotted_names() -> list[str]:
    """Every setting's dotted name, in the order of the flow."""
    names = ["name", "seed"]
    for section in SECTIONS:
        names += [f"{section}.{key}" for key in settings_of(section)]
    return names


def settings_of(section: str) -> dict[str, FieldInfo]:
    """A section's settings by name; of one of several kinds those of all."""
    annotation = Recipe.model_fields[section].annotation
    kinds = get_args(annotation) or (annotation,)
    return {key: field for kind in kinds for key, field in kind.model_fields.items()}
