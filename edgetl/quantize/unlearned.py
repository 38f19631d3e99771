"""INT8 of a network before it has learned anything, for the clock: it is calibrated on noise.

The ranges decide what a model answers, and nothing of how fast it does.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from edgetl.config import Calibrator, Target
from edgetl.errors import ModelError
from edgetl.quantize.affine import from_range
from edgetl.quantize.calibrate import observe
from edgetl.quantize.compact import compact
from edgetl.quantize.form import Form
from edgetl.quantize.graph import Graph
from edgetl.quantize.plan import make_plan
from edgetl.quantize.ranges import estimate
from edgetl.quantize.targets import rules_for

_PERCENTILE = 99.99


def int8_on_noise(model: onnx.ModelProto, target: Target, size: int) -> bytes | None:
    """The model in INT8 for a target, as a file; None where it cannot be quantized, so that it ships in float.

    Args:
        model: takes (N, 3, S, S) float32.
        target: what it is made for.
        size: S.
    """
    rules, graph = rules_for(target), Graph(model)
    try:
        plan = make_plan(graph, rules)
        histograms = observe(model, tuple(plan.observed), [noise(size)], images=1, threads=1)
    except ModelError:
        return None
    ranges = {
        name: estimate(histograms[name], Calibrator.MINMAX, rules.activations, percentile=_PERCENTILE)
        for name in plan.observed
    }
    grids = {name: from_range(*span, rules.activations) for name, span in (ranges | plan.known).items()}
    form = Form(graph=graph, rules=rules, plan=plan, activations=grids, calibrator=Calibrator.MINMAX)
    return bytes(compact(form.model()).SerializeToString(deterministic=True))


def noise(size: int) -> NDArray[np.float32]:
    """(1, 3, S, S) float32."""
    return np.random.default_rng(0).normal(size=(1, 3, size, size)).astype(np.float32)
