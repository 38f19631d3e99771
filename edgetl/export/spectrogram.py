"""The picture of a sound made by ONNX operators: `edgetl.inputs.sound.drawn` and its resizing, for a window of samples.

A Fourier transform as two products with a matrix: about its middle, a frame under a window that is even about it has
its cosines in the sum of the frame and its mirror image, its sines in the difference, and power does not know where the
middle is. So each product has half the frame, and only the lines that a band hears. All operators are those that
ONNX Runtime, OpenVINO and TensorRT have kernels for; ONNX's own STFT takes no frames at uneven distances.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from PIL import Image

from edgetl.errors import ModelError
from edgetl.inputs.sound import FLOOR, QUIETEST_DB, bands, framing
from edgetl.inputs.spec import Level, PreprocessSpec, Resize, SoundSpec

_FULL = 255.0


class Drawing:
    """Nodes and constants that make the picture of a sound.

    Args:
        spec: of sounds.
        source: name of the input, (batch, samples of a window) float32.
        picture: name of the result, (batch, 1, S, S) float32, whole numbers in 0..255.
        prefix: names of all between them start so.

    Attributes:
        nodes: in order.
        constants: of the nodes.

    Raises:
        ModelError: the spec is of images, or cuts the picture or fills it up.
    """

    def __init__(self, spec: PreprocessSpec, *, source: str, picture: str, prefix: str) -> None:
        if spec.sound is None or spec.resize is not Resize.SQUASH:
            raise ModelError("A graph takes samples where the model looks at whole pictures of sounds only.")
        self.nodes = list[onnx.NodeProto]()
        self.constants = list[onnx.TensorProto]()
        self._prefix = prefix
        levels = self._levels(self._power(source, spec.sound), spec.sound)
        for weights, before in resizing(spec):
            matrix = self._constant(weights)
            levels = self._rounded(self._node("MatMul", *((matrix, levels) if before else (levels, matrix))))
        planes = [self._node("Transpose", levels, perm=[0, 2, 1]), self._constant([1], np.int64)]
        self.nodes.append(helper.make_node("Unsqueeze", planes, [picture], picture))

    def _power(self, source: str, spec: SoundSpec) -> str:
        """(batch, frames, mels) power, the highest band first."""
        length = spec.frame_samples
        starts, taper = framing(spec)
        weights = bands(spec)
        heard = np.flatnonzero(weights.any(axis=0))
        places = np.arange(1, length // 2 + 1)  # the first place of the taper is 0
        share = np.where(2 * places == length, 0.5, 1.0) * taper[places]  # the middle is its own mirror image
        angles = 2.0 * np.pi / spec.spectrum * np.outer(places - length / 2, heard)
        padded = self._node("Pad", source, self._constant([0, length // 2, 0, length], np.int64))
        first = self._constant(starts[:, None], np.int64)
        halves = [
            self._node(
                "Gather",
                padded,
                self._node("Add", first, self._constant(offsets[None], np.int64)),
                axis=1,
            )
            for offsets in (places, length - places)
        ]
        squares = []
        for operator, wave in (("Add", np.cos(angles)), ("Sub", np.sin(angles))):
            part = self._node("MatMul", self._node(operator, *halves), self._constant(share[:, None] * wave))
            squares.append(self._node("Mul", part, part))
        return self._node("MatMul", self._node("Add", *squares), self._constant(weights[::-1, heard].T))

    def _levels(self, power: str, spec: SoundSpec) -> str:
        """(batch, frames, mels) whole numbers from 0, black, to 255, white."""
        step = _FULL / spec.range_db
        natural = self._node("Log", self._node("Max", power, self._constant(FLOOR)))
        levels = self._node("Mul", natural, self._constant(step * 10.0 / math.log(10.0)))
        black = self._constant(-_FULL)
        if spec.level is Level.LOUDEST:
            loudest = self._node("ReduceMax", levels, self._constant([1, 2], np.int64), keepdims=1)
            white = self._node("Max", loudest, self._constant(step * QUIETEST_DB))
            black = self._node("Add", white, black)
        return self._rounded(self._node("Sub", levels, black))

    def _rounded(self, values: str) -> str:
        return self._node("Round", self._node("Clip", values, self._constant(0.0), self._constant(_FULL)))

    def _constant(self, values: Any, kind: type[np.generic] = np.float32) -> str:
        name = f"{self._prefix}/constant-{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(values, kind, order="C"), name))
        return name

    def _node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{self._prefix}/{operator}-{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name


def resizing(spec: PreprocessSpec) -> Sequence[tuple[NDArray[np.float32], bool]]:
    """What Pillow's resizing multiplies a sound's picture (frames, mels) by, each product being rounded to 8 bits.

    Returns:
        Weights, and whether they stand before the picture, (S, frames), or behind it, (mels, S); none for a side that
        has its length already.
    """
    assert spec.sound is not None
    kind = Image.Resampling[spec.interpolation.name]
    found = []
    for side, before in ((spec.sound.frames, True), (spec.sound.mels, False)):
        if side != spec.size:
            unit = Image.fromarray(np.eye(side, dtype=np.float32)).resize((spec.size, side), kind)
            weights = np.asarray(unit, np.float32)
            found.append((weights.T if before else weights, before))
    return found


def most_steps(spec: PreprocessSpec) -> int:
    """By how much of 255 a pixel may differ from numpy's: what float32 puts on the other side of a half is one step, a
    resizing makes of steps no more than its weights' absolute values, and rounds once more."""
    steps = 1
    for weights, before in resizing(spec):
        steps = math.floor(steps * float(np.abs(weights).sum(axis=1 if before else 0).max())) + 1
    return steps
