"""One quantization of a float model for a target, before it is written; and the calibration that all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from edgetl.config import Calibrator, QuantizeConfig
from edgetl.data import calibration
from edgetl.data.calibration import CalibrationSet
from edgetl.data.splits import spread
from edgetl.errors import DataError
from edgetl.inputs.image import PreprocessSpec
from edgetl.process import usable_cores
from edgetl.progress import SILENT, Progress
from edgetl.quantize import store
from edgetl.quantize.affine import Affine, from_range
from edgetl.quantize.calibrate import observe
from edgetl.quantize.graph import Graph
from edgetl.quantize.observers import Histogram
from edgetl.quantize.plan import QuantizationPlan, make_plan
from edgetl.quantize.qdq import insert
from edgetl.quantize.ranges import estimate
from edgetl.quantize.score import divergence, outputs
from edgetl.quantize.targets import TargetRules, rules_for
from edgetl.tasks.base import TaskSpec

CHOICE = (Calibrator.PERCENTILE, Calibrator.ENTROPY, Calibrator.MSE, Calibrator.MINMAX)
"""What `auto` chooses from."""
CHOICE_IMAGES = 128
"""Calibration images on which it compares models."""
_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class Form:
    """A float graph and how it is quantized; `grids` as in `qdq.insert`, `calibrator` as its ranges were estimated."""

    graph: Graph
    rules: TargetRules
    plan: QuantizationPlan
    activations: Mapping[str, Affine]
    calibrator: Calibrator
    grids: Mapping[int, Affine] = field(default_factory=dict)

    def model(self) -> onnx.ModelProto:
        """The model with its Q/DQ pairs."""
        return insert(self.graph, self.plan, self.rules, self.activations, grids=self.grids)


@dataclass
class Calibration:
    """Ranges of any float model's activations on one set of images.

    Attributes:
        config: estimator, percentile, targets.
        images, spec: what is looked at.
        task: what the model answers.
        folder: of the cache.
        progress: where to report.
    """

    config: QuantizeConfig
    images: CalibrationSet
    spec: PreprocessSpec
    task: TaskSpec
    folder: Path
    progress: Progress = SILENT

    def form(self, model: onnx.ModelProto, rules: TargetRules, *, keep: frozenset[str] = frozenset()) -> Form:
        """Plan and calibrate; one pass over the images serves all targets of the recipe.

        Raises:
            DataError: there are no images, they do not fit the model, or show nothing.
            ModelError: an activation is not finite.
        """
        graph = Graph(model)
        plan = make_plan(graph, rules, keep=keep)
        histograms = self.observed(graph, plan)
        if self.config.calibrator is not Calibrator.AUTO:
            return self._form(graph, rules, plan, histograms, self.config.calibrator)
        forms = [self._form(graph, rules, plan, histograms, calibrator) for calibrator in CHOICE]
        images = self.batches(CHOICE_IMAGES)
        expected = outputs(model, images)
        found = [
            divergence(self.task, expected, outputs(f.model(), images, target=rules.target)) for f in forms
        ]
        stated = ", ".join(f"{f.calibrator} {value:.2g}" for f, value in zip(forms, found, strict=True))
        self.progress.message(f"{rules.target}: divergence from float by estimator: {stated}")
        return forms[int(np.argmin(found))]

    def _form(
        self,
        graph: Graph,
        rules: TargetRules,
        plan: QuantizationPlan,
        histograms: Mapping[str, Histogram],
        calibrator: Calibrator,
    ) -> Form:
        grid, percentile = rules.activations, self.config.percentile
        ranges = {
            name: estimate(histograms[name], calibrator, grid, percentile=percentile)
            for name in plan.observed
        }
        activations = {name: from_range(*span, grid) for name, span in (ranges | plan.known).items()}
        return Form(graph=graph, rules=rules, plan=plan, activations=activations, calibrator=calibrator)

    def key(self, model: onnx.ModelProto) -> str:
        """The cache's key."""
        return store.calibration_key(model, self.images, self.spec)

    def batches(self, images: int) -> list[NDArray[np.float32]]:
        """At most so many of the images, spread over the classes, in batches (n, 3, S, S) float32."""
        chosen = tuple(spread(self.images.samples, images))
        some = CalibrationSet(
            samples=chosen,
            seed=self.images.seed,
            requested=len(chosen),
            index_sha256=self.images.index_sha256,
        )
        return list(calibration.batches(some, self.spec, _BATCH, threads=usable_cores()))

    def observed(self, graph: Graph, plan: QuantizationPlan) -> dict[str, Histogram]:
        """Histograms of the plan's activations, from the cache where they are there. Raises as `form` does."""
        key = self.key(graph.model)
        if (kept := store.load(self.folder, key, plan.observed)) is not None:
            self.progress.message("calibration: taken from the cache")
            return kept
        every = [make_plan(graph, rules_for(target)).observed for target in self.config.target]
        tensors = dict.fromkeys(name for names in (*every, plan.observed) for name in names)
        found = observe(
            graph.model,
            tuple(tensors),
            calibration.batches(self.images, self.spec, _BATCH, threads=usable_cores()),
            images=len(self.images.samples),
            progress=self.progress,
        )
        source = found.get(graph.inputs[0])
        if source is not None and source.low == source.high:
            raise DataError(
                f"Every pixel of the {source.images} calibration images is the same, so they show no range."
                " Calibrate with real images."
            )
        store.save(found, self.folder, key)
        return found
