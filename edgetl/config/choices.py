"""What a setting chooses from, where it is one of a few words."""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never


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
    CAMERA = "camera"
    """Source images as the target's camera would take them, then the network's own answers (Yang, Soatto 2020)."""
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
