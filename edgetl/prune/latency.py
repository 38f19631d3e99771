"""How many milliseconds a network of given widths takes: a table fitted to a few networks that were really timed.

A layer's time is taken as a weighted sum of its work: dense and grouped multiply-accumulates, values read and
written, weights read, and its call, which counts where networks of different depth are timed. The rates are fitted,
none negative, to whole networks of random widths in the runtime that will run the result, so that its fusions, layouts
and calls are in them. Like the tables of ProxylessNAS (Cai et al. 2019) and FBNet (Wu et al. 2019) it adds up layers;
unlike those it needs no graph of a single layer, and only a dozen measurements, since layers of a kind share their
rates.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from edgetl.prune.groups import Layer


@dataclass(frozen=True, kw_only=True)
class LayerTiming:
    """Milliseconds of a network, and of the teacher in the same runtime, whose calls took turns."""

    ms: float
    teacher_ms: float

    @property
    def share(self) -> float:
        """The network's time over the teacher's: it holds also where the machine's speed drifts."""
        return self.ms / self.teacher_ms


Stopwatch = Callable[[nn.Module], LayerTiming]
"""Times a network (N, 3, S, S) float32 -> (N, C) at batch 1 in the runtime that will run it."""


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """Predicts milliseconds.

    Attributes:
        rates: milliseconds for a unit of each kind of work, in the order of `work`.
        fixed_ms: what every network takes, however narrow.
        error: median relative error of each fitted network's time as predicted from the others only.
    """

    rates: tuple[float, ...]
    fixed_ms: float
    error: float

    def layer_ms(self, layer: Layer, inputs: float, outputs: float) -> float:
        """Milliseconds of a layer with so many input and output channels."""
        return sum(r * w for r, w in zip(self.rates, work(layer, inputs, outputs), strict=True))

    def milliseconds(self, layers: Mapping[str, Layer]) -> float:
        """Milliseconds of a network with these layers."""
        return self.of_work(total_work(layers))

    def of_work(self, amounts: Sequence[float]) -> float:
        """Milliseconds of a network whose `total_work` this is."""
        return self.fixed_ms + sum(r * w for r, w in zip(self.rates, amounts, strict=True))

    def scaled(self, factor: float) -> LatencyTable:
        """The table with all times multiplied: what a measurement showed it to be off by."""
        return dataclasses.replace(
            self, rates=tuple(factor * rate for rate in self.rates), fixed_ms=factor * self.fixed_ms
        )


def work(layer: Layer, inputs: float, outputs: float) -> tuple[float, float, float, float, float]:
    """A layer's dense and grouped multiply-accumulates, values read and written, weights, and calls, for one image.

    A layer without outputs is not there, and not called.
    """
    macs = layer.macs(inputs, outputs)
    places = layer.unit_macs / layer.unit_weights
    weights = layer.unit_weights * outputs * (layer.width or inputs)
    if layer.width:  # it reads as many channels as it makes
        return (0.0, macs, places * 2 * outputs, weights, float(outputs > 0))
    return (macs, 0.0, places * (inputs + outputs), weights, float(outputs > 0))


def total_work(layers: Mapping[str, Layer]) -> tuple[float, ...]:
    """The work of a whole network."""
    each = [work(layer, layer.inputs, layer.outputs) for layer in layers.values()]
    return tuple(sum(kind) for kind in zip(*each, strict=True))


def fit_table(works: Sequence[Sequence[float]], milliseconds: Sequence[float]) -> LatencyTable:
    """Fit a table by least squares of the relative errors, with no negative rate.

    Args:
        works: `total_work` of three or more networks of different widths. Where all have as many layers, calls cannot
            be distinguished from what every network takes, and cost nothing of their own.
        milliseconds: their times.
    """
    alike = len({one[-1] for one in works}) == 1
    distinct = np.asarray([one[:-1] if alike else one for one in works], dtype=np.float64)
    features = np.column_stack([distinct, np.ones(len(works))])
    times = np.asarray(milliseconds, dtype=np.float64)
    left_out = []
    for index in range(len(times)):
        others = np.arange(len(times)) != index
        predicted = features[index] @ _solve(features[others], times[others])
        left_out.append(abs(float(predicted) / times[index] - 1))
    *rates, fixed_ms = _solve(features, times).tolist()
    rates += [0.0] * alike
    return LatencyTable(rates=tuple(rates), fixed_ms=fixed_ms, error=statistics.median(left_out))


def _solve(features: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    from sklearn.linear_model import LinearRegression

    scale = np.maximum(features.max(axis=0), 1e-12)
    fit = LinearRegression(positive=True, fit_intercept=False)
    fit.fit(features / scale / times[:, None], np.ones(len(times)))
    solved: NDArray[np.float64] = fit.coef_ / scale
    return solved
