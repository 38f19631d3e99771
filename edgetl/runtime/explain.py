"""Why: where in a picture a network found what speaks for its answer. Numpy alone.

A class activation map (Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016): where an
answer is a linear layer on features that are averaged over all places, each place has its own part in the answer. The
parts' mean is the class's logit, less its bias. Grad-CAM (Selvaraju et al., ICCV 2017, section 3.1) is the same up to
a positive factor, 1 / (h * w), since the gradient of the logit by the pooled features is the layer's row.

Legend: F features, C classes, (h, w) places of the feature map, (H, W) pixels of the upright picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from edgetl.errors import ConfigError, ModelError
from edgetl.inputs.frame import Frame
from edgetl.runtime.features import MAP, PooledHead
from edgetl.tasks.all import Prediction
from edgetl.tasks.base import LOGITS, Detection, Outputs, TaskSpec
from edgetl.tasks.classification.answers import Candidate
from edgetl.tasks.classification.answers import Prediction as ClassPrediction
from edgetl.tasks.detection.answers import Detections
from edgetl.tasks.multihead.answers import HeadsPrediction
from edgetl.tasks.multilabel.answers import TagsPrediction


@dataclass(frozen=True, kw_only=True, eq=False)
class ActivationMap:
    """What speaks for one class, place by place.

    Attributes:
        label: the class.
        index: its position among the labels of its output.
        head: of several heads the one that was asked.
        values: (h, w) float32 over the network's square input, row by row: each place's part in the class's logit,
            negative where it speaks against it.
        side: of the network's input, in pixels.
        frame: where the input lies in the picture.
    """

    label: str
    index: int
    head: str = ""
    values: NDArray[np.float32]
    side: int
    frame: Frame

    def in_picture(self, size: tuple[int, int] | None = None) -> NDArray[np.float32]:
        """The map over the upright picture, interpolated bilinearly between the places' centres.

        Args:
            size: width and height of the result in pixels; the picture's own where unset.

        Returns:
            (H, W) float32; NaN where the picture is cut off, so that the network did not see it.
        """
        (columns, beside), (rows, above) = (
            self._along(axis, (size or self.frame.size)[axis]) for axis in (0, 1)
        )
        found = np.asarray(rows @ self.values @ columns.T, dtype=np.float32)
        found[above], found[:, beside] = np.nan, np.nan
        return found

    def strength(self, size: tuple[int, int] | None = None) -> NDArray[np.float32]:
        """As `in_picture`, from 0, where nothing speaks for the class or nothing was seen, to 1."""
        positive = np.maximum(np.nan_to_num(self.in_picture(size)), 0.0)
        top = max(float(positive.max()), float(np.finfo(np.float32).tiny))
        return np.asarray(positive / top, dtype=np.float32)

    @property
    def peak(self) -> tuple[float, float]:
        """The centre (x, y) of the place that speaks most for the class, in pixels of the upright picture."""
        height, width = self.values.shape
        row, column = divmod(int(self.values.argmax()), width)
        return self.frame.back((column + 0.5) * self.side / width, (row + 0.5) * self.side / height)

    def record(self) -> MapRecord:
        """It in plain values."""
        x, y = self.peak
        return MapRecord(
            label=self.label,
            head=self.head,
            peak=(round(x, 1), round(y, 1)),
            values=tuple(tuple(round(float(v), 5) for v in row) for row in self.values),
        )

    def _along(self, axis: int, length: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Along one axis (length, places) float32, how much of each place a pixel takes, and (length,) whether the
        network did not see it."""
        count = self.values.shape[1 - axis]
        whole, scale, offset = self.frame.size[axis], self.frame.scale[axis], self.frame.offset[axis]
        pixels = (np.arange(length) + 0.5) * (whole / length) * scale + offset
        places = np.clip(pixels * (count / self.side) - 0.5, 0.0, count - 1.0)
        shares = np.maximum(0.0, 1.0 - np.abs(places[:, None] - np.arange(count)[None]))
        return shares.astype(np.float32), (pixels < 0.0) | (pixels > self.side)


@dataclass(frozen=True, kw_only=True)
class MapRecord:
    """An `ActivationMap` as JSON has it: `peak` in pixels (x, y) of the upright picture, `values` row by row."""

    label: str
    head: str
    peak: tuple[float, float]
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Explained:
    """A prediction, and a map of each class that it answers.

    Where no class of a multi-label task reaches its threshold, the map is that of the most probable one; where a group
    of classes is answered, that of its best class.
    """

    prediction: Prediction
    maps: tuple[ActivationMap, ...]


def check_task(spec: TaskSpec) -> None:
    """Raises ConfigError where a task's answers have no maps."""
    if isinstance(spec, Detection):
        raise ConfigError(
            "explain: the bundle is of the task detection, whose boxes say where already; leave explain out."
        )


def explained(
    head: PooledHead, outputs: Outputs, prediction: Prediction, *, side: int, frame: Frame
) -> Explained:
    """Draw the maps of an answer.

    Args:
        head: of the network.
        outputs: one image's (first axis 1), with the feature map.
        prediction: what they say.
        side: of the network's input, in pixels.
        frame: of the picture.

    Raises:
        ModelError: the feature map does not fit the weights.
    """
    features = outputs[MAP]
    found = []
    for output, name, one in _answered(prediction):
        found.append(
            ActivationMap(
                label=one.label,
                index=one.index,
                head=name,
                values=parts(head.weights[output][one.index], features),
                side=side,
                frame=frame,
            )
        )
    return Explained(prediction=prediction, maps=tuple(found))


def parts(weights: NDArray[np.float32], features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each place's part in a class's logit.

    Args:
        weights: (F,), the class's row of the linear layer.
        features: (1, F, h, w), one image's feature map.

    Returns:
        (h, w) float32.

    Raises:
        ModelError: they do not fit each other.
    """
    if features.ndim != 4 or features.shape[1] != len(weights):
        raise ModelError(
            f"{MAP}: got {features.shape}, expected (N, {len(weights)}, h, w) for the last layer."
        )
    # In float64: the parts' mean gives the logit again, however many places there are.
    values = np.tensordot(weights.astype(np.float64), features[0].astype(np.float64), axes=1)
    return values.astype(np.float32)


def _answered(prediction: Prediction) -> list[tuple[str, str, Candidate]]:
    """Each class that is answered: the output and the head that it is of."""
    match prediction:
        case ClassPrediction():
            return [(LOGITS, "", prediction.top[0])]
        case TagsPrediction():
            return [(LOGITS, "", one) for one in prediction.tags or prediction.top[:1]]
        case HeadsPrediction():
            heads: Mapping[str, ClassPrediction | TagsPrediction] = prediction.heads
            return [(name, name, one) for name, found in heads.items() for _, _, one in _answered(found)]
        case Detections():
            return []
        case _:
            assert_never(prediction)
