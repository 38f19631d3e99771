"""Settings of pruning and of distillation, which make the student."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from edgetl.config.choices import Augment, DistillFeatures, DistillLoss, Importance, Mix, PruneScope
from edgetl.config.values import Count, Epochs, Fraction, OpenFraction, Positive, Section


class MacsTarget(Section):
    """A share of the uncut network's multiply-accumulates."""

    kind: Literal["macs"] = "macs"
    share: OpenFraction = 0.3


class LatencyTarget(Section):
    """Milliseconds of the pruned network as it ships on this machine: in INT8 where `quantize` makes that for its
    CPU."""

    kind: Literal["latency"] = "latency"
    ms: Positive


class SpeedupTarget(Section):
    """So many times as fast as the teacher in float32 in the same runtime; timed as `LatencyTarget`."""

    kind: Literal["speedup"] = "speedup"
    times: Annotated[float, Field(gt=1.0)]


PruneTarget = Annotated[MacsTarget | LatencyTarget | SpeedupTarget, Field(discriminator="kind")]
_OLDER_TARGETS = {
    "target_macs": ("macs", "share"),
    "target_latency_ms": ("latency", "ms"),
    "target_speedup": ("speedup", "times"),
}
"""Settings of older recipes, each with the kind of target that it named and that target's setting."""


class PruneConfig(Section):
    """Structured pruning of the teacher, or of a smaller backbone that it taught: channels are truly removed."""

    enabled: bool = True
    """Off: the student starts as the unpruned teacher, or as `distill.student`."""
    network: str = "teacher"
    """What is cut: `teacher`, or the name of a smaller backbone as in `train.backbone`, which starts from its
    pretrained weights and first learns from the teacher."""
    start_epochs: Epochs = 6
    """Epochs of distillation before the first cut, for a network that must learn first: another backbone, or a teacher
    that is to see at the student's size."""
    target: PruneTarget = MacsTarget()
    """What is kept: `{kind = "macs", share = 0.3}`, a share of the uncut network's multiply-accumulates, both counted
    at the student's input size; `{kind = "latency", ms = 5.0}`, milliseconds on this machine as it ships, in INT8
    where `quantize` makes that for its CPU; or `{kind = "speedup", times = 2.0}`, so many times as fast as the teacher
    in float32 in the same runtime."""
    target_parameters: OpenFraction | None = None
    """Share of the uncut network's parameters to keep at most, in addition to the target; no bound where unset."""
    steps: Count = 5
    """Cuts on the way to the target, each followed by recovery."""
    recovery_epochs: Epochs = 2
    """Epochs of distillation from the teacher after each cut."""
    sparse_epochs: Epochs = 0
    """Epochs of training towards sparse channels before the first cut (group lasso); 0 does without."""
    sparse_strength: Positive = 1e-4
    """Weight of the group lasso in the loss of `sparse_epochs`."""
    sensitivity: bool = False
    """Also cut each group of channels by itself by a quarter, a half and three quarters, and score it: shows what to
    name in `keep`. Takes a pass over the validation split and `importance_images` for each; the run says how long."""
    max_drop: Fraction = 0.04
    """Stop before a cut whose recovery ends so far below the teacher's score on the validation split: distillation
    wins back some of a loss, not all."""
    importance: Importance = Importance.TAYLOR
    """Ranking of channels: `magnitude`, `bn_scale`, `fpgm`, `lamp`, `taylor` or `random`."""
    scope: PruneScope = PruneScope.GLOBAL
    """`global`: channels of all layers compete; `layer`: every layer loses about the same share."""
    round_to: Count | None = None
    """Channel counts are multiples of this; where unset, of 16 for x86 CPUs and GPUs, of 8 for ARM. ONNX Runtime's INT8
    depthwise convolutions on x86 take 16 channels at a time: 24 of them cost more than 32."""
    max_cut: OpenFraction = 0.9
    """No layer loses more than this share of the uncut network's channels."""
    importance_images: Count = 256
    """Training images from which importance, and batch norm's statistics after a cut, are measured."""
    depth: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of the residual blocks that is taken out whole, where the network's own shortcut allows it; 0 takes none.
    With a target of the clock it is the most that may go: blocks compete with channels. Without one that many go, the
    least important first, since neither multiply-accumulates nor parameters tell what a layer's call costs. Asks for
    `importance = "taylor"`."""
    keep: tuple[str, ...] = ()
    """Names of layers that are never cut."""
    lr: Positive = 1e-3
    """Peak learning rate of recovery."""
    sparsity_2_4: bool = False
    """After the last cut, set two of every four weights along the input channels to zero and recover once more. Tensor
    cores (Ampere and later, through TensorRT) skip such zeros; a CPU, or a GPU without them, gains nothing from it."""

    @property
    def timed(self) -> bool:
        """Whether the target is one of the clock."""
        return not isinstance(self.target, MacsTarget)

    @model_validator(mode="after")
    def _blocks_are_ranked(self) -> Self:
        if self.depth and self.importance is not Importance.TAYLOR:
            raise ValueError(
                f'depth = {self.depth:g} asks for importance = "taylor", got "{self.importance}": only an estimate of'
                " the loss compares a block with channels; set depth = 0, or that importance"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _one_target(cls, values: Any) -> Any:
        """Older recipes name the target by a setting of its own."""
        if not isinstance(values, Mapping):
            return values
        named = [name for name in ("target", *_OLDER_TARGETS) if values.get(name) is not None]
        if len(named) > 1:
            raise ValueError(
                f"{' and '.join(named)} are set, but only one target can hold; remove the others"
            )
        rest = {name: value for name, value in values.items() if name not in _OLDER_TARGETS}
        if named and (older := _OLDER_TARGETS.get(named[0])):
            kind, key = older
            rest["target"] = {"kind": kind, key: values[named[0]]}
        return rest


class DistillConfig(Section):
    """The student learns from the teacher's soft targets and the labels, on the same augmented view."""

    student: str = "pruned"
    """`pruned`, or the name of another, smaller backbone as in `train.backbone`."""
    weights: str = "pretrained"
    """Where another backbone's first weights come from, as in `train.weights`."""
    size: Annotated[int, Field(ge=16, le=1024)] | None = None
    """Side of the student's square input in pixels, from pruning on; `preprocess.size`, the teacher's, where unset.
    Both see the same view, each at its own size."""
    epochs: Count = 20
    """Epochs."""
    lr: Positive = 1e-3
    """Peak learning rate (AdamW, warm-up, cosine)."""
    loss: DistillLoss = DistillLoss.HINTON
    """Loss between the student's and the teacher's logits: `hinton`, `dkd` or `dist`; of boxes, `bckd`,
    `crosskd` or `ld`."""
    temperature: Positive = 2.0
    """Softmax temperature of the soft targets (Hinton et al. 2015)."""
    soft_weight: Annotated[float, Field(ge=0.0, le=1.0)] = 0.9
    """Share of the soft targets in the loss; the rest is cross-entropy with the labels."""
    teachers: tuple[str, ...] = ()
    """Further teachers: `teacher.safetensors` of other runs or of folds (`edgetl finetune --folds`), of the same
    classes, any backbone and input size. Their softened probabilities and the run's teacher's are averaged."""
    features: DistillFeatures = DistillFeatures.NONE
    """A loss between features, added to that of the logits: `none`, `fitnets`, `attention` or `relational`."""
    feature_weight: Annotated[float, Field(ge=0.0)] = 1.0
    """Weight of the loss between features."""
    augment: Augment = Augment.BASIC
    """Augmentation policy."""
    mix: Mix = Mix.NONE
    """Blend images in pairs, for student and teacher alike: `mixup`, `cutmix`, or `both` by turns. Not with `dkd`."""
    mix_alpha: Positive = 0.2
    """The share of a pair's second image is drawn from Beta(alpha, alpha)."""
    ema: Fraction = 0.0
    """Decay of the exponential moving average of the weights; 0 turns it off."""
    unlabelled: Annotated[str, Field(min_length=1)] | None = None
    """A folder of further images, at any depth and without classes, on which the student follows only the teacher.
    Those that are in the validation or test split, and near-copies of those, are left out. Recovery in pruning and
    quantization-aware training do not use them. Not with `dkd`, nor with `mix`."""
    unlabelled_share: OpenFraction = 0.5
    """Share of each step's images that are unlabelled, at least one. An epoch is one pass over the labelled images
    still, so at 0.5 it takes twice the steps."""

    @model_validator(mode="after")
    def _teaches_without_labels(self) -> Self:
        if self.unlabelled is not None:
            check_unlabelled(self, "unlabelled", features=self.features is not DistillFeatures.NONE)
        return self


def check_unlabelled(distill: DistillConfig, setting: str, *, features: bool, section: str = "") -> None:
    """Settings that ask for labels do not go with images that have none.

    Args:
        distill: the settings.
        setting: names the images.
        features: a loss between features teaches on them, too.
        section: what the settings' names begin with in the message.

    Raises:
        ValueError: some do not.
    """
    if distill.loss is DistillLoss.DKD:
        raise ValueError(
            f"{section}loss = dkd needs the label of each image, which unlabelled images lack; use hinton or dist, or"
            f" leave {setting} unset"
        )
    if distill.mix is not Mix.NONE:
        raise ValueError(
            f"{section}mix = {distill.mix} blends labels, which unlabelled images lack; set {section}mix = none, or"
            f" leave {setting} unset"
        )
    if distill.soft_weight == 0.0 and not features:
        raise ValueError(
            f"unlabelled images teach through the teacher only, which {section}soft_weight = 0 turns off; raise it,"
            f"{' set features,' if setting == 'unlabelled' else ''} or leave {setting} unset"
        )
