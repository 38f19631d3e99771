"""Settings of the images, their labels and how they are prepared."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from edgetl.config.choices import RelationLoss
from edgetl.config.values import Count, OpenFraction, Positive, Section
from edgetl.inputs.image import Decoding, Interpolation, Resize
from edgetl.inputs.spec import MAX_RATE, MAX_SECONDS, MIN_RATE, InputKind, Level, SoundSpec, is_window
from edgetl.records.scores import BadImages

BUILT_IN = ("digits", "cifar10")
"""Names of image sets that are no paths, whatever folders there are."""
Triple = tuple[float, float, float]


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


def _not_empty(path: str) -> str:
    """Not by pydantic's own limits, which refuse names that are not UTF-8."""
    if not path:
        raise ValueError("it names nothing, expected a folder, a CSV or a built-in set")
    return path


class DataConfig(Section):
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


_SOFTNESS, _DISCOUNT = 0.1, 0.5


class LabelsConfig(Section):
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


class PreprocessConfig(Section):
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


class SoundConfig(Section):
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
