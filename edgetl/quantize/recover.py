"""From cheap to costly until the floor holds; where it never does, the most sensitive layers stay in float."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import assert_never

import onnx

from edgetl.config import QuantizeConfig, Recovery
from edgetl.errors import ConfigError
from edgetl.progress import SILENT, Progress
from edgetl.quantize.equalise import equalise
from edgetl.quantize.form import Calibration, Form
from edgetl.quantize.graph import Graph
from edgetl.quantize.plan import make_plan
from edgetl.quantize.targets import TargetRules
from edgetl.records.variants import LayerSensitivity, RecoveryAttempt

IMAGES = 64
"""Images that bias correction and AdaRound look at."""
_ORDER = (Recovery.NONE, Recovery.EQUALISE, Recovery.BIAS, Recovery.ADAROUND, Recovery.QAT)

Train = Callable[[Form], onnx.ModelProto | None]


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """The best that was found for a target: how, its score, all tries, and what could not be tried."""

    form: Form
    how: str
    score: float
    attempts: tuple[RecoveryAttempt, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """The form with the fewest layers in float that keeps the floor; `kept` names them, worst first."""

    form: Form
    score: float
    kept: tuple[str, ...]


@dataclass
class RecoverySearch:
    """What recovery works with.

    Attributes:
        config: which recovery.
        calibration: gives forms and images.
        score: a quantized model to its score as its target computes it, in 0..1.
        train: quantization-aware training of a form's float model, which gives None where the form's own weights are
            better; None where there is no teacher.
        floor: the score to reach.
        seed: of AdaRound.
        progress: where to report.
    """

    config: QuantizeConfig
    calibration: Calibration
    score: Callable[[onnx.ModelProto, str], float]
    train: Train | None
    floor: float
    seed: int = 0
    progress: Progress = SILENT
    _notes: list[str] = field(default_factory=list)

    def recover(self, model: onnx.ModelProto, rules: TargetRules) -> Recovered:
        """Try one method after the other until the floor holds.

        Of what was tried the best is taken, the cheaper one among equals.

        Raises:
            ConfigError: training is asked for and there is no teacher.
            ModelError: the model cannot be quantized, or recovery that was asked for cannot run it.
        """
        self._notes = []
        automatic = self.config.recovery is Recovery.AUTO
        ways = _ORDER if automatic else (self.config.recovery,)
        base = self.calibration.form(model, rules)
        best: tuple[float, str, Form] | None = None
        attempts: list[RecoveryAttempt] = []
        start = ""
        for way in ways:
            if automatic and not self._possible(way, base):
                continue
            form = self._tried(way, base, model)
            if best is not None and form is best[2]:
                continue  # there was nothing to equalise
            name, score = f"{start}{way}", self.score(form.model(), rules.target)
            attempts.append(RecoveryAttempt(target=rules.target, name=name, score=score))
            self.progress.message(f"{rules.target}: {_NAMES[way]} scores {score:.2%}, floor {self.floor:.2%}")
            if best is None or score > best[0]:
                best = (score, name, form)
                if way is Recovery.EQUALISE:
                    base, start = form, "equalise + "
            if score >= self.floor:
                break
        assert best is not None
        return Recovered(
            form=best[2], how=best[1], score=best[0], attempts=tuple(attempts), notes=tuple(self._notes)
        )

    def mix(self, form: Form, ranking: tuple[LayerSensitivity, ...]) -> Mixed | None:
        """Leave the most sensitive layers in float, as few as the floor allows, by bisection over their number.

        Bisection takes it that more layers in float do not lower the score. None where even all of them but one do
        not reach the floor, or the ranking is empty.
        """
        found: Mixed | None = None
        low, high = 1, len(ranking) - 1
        while low <= high:
            count = (low + high) // 2
            kept = tuple(layer.name for layer in ranking[:count])
            mixed = self._keeping(form, frozenset(kept))
            score = self.score(mixed.model(), form.rules.target)
            self.progress.message(f"{form.rules.target}: {count} layers in float score {score:.2%}")
            if score >= self.floor:
                found, high = Mixed(form=mixed, score=score, kept=kept), count - 1
            else:
                low = count + 1
        return found

    def _keeping(self, form: Form, keep: frozenset[str]) -> Form:
        plan = make_plan(form.graph, form.rules, keep=keep)
        if set(plan.observed) <= set(form.activations):
            return dataclasses.replace(form, plan=plan)
        wider = self.calibration.form(form.graph.model, form.rules, keep=keep)
        return dataclasses.replace(
            wider, activations={**wider.activations, **form.activations}, grids=form.grids
        )

    def _possible(self, way: Recovery, form: Form) -> bool:
        if way in (Recovery.NONE, Recovery.EQUALISE):
            return True
        from edgetl.quantize.replay import unsupported

        if unknown := unsupported(form.graph):
            note = f"Recovery beyond equalisation was not tried: it cannot run {', '.join(unknown)}."
        elif way is Recovery.QAT and self.train is None:
            note = "Quantization-aware training was not tried: there is no teacher."
        else:
            return True
        if note not in self._notes:
            self._notes.append(note)
        return False

    def _tried(self, way: Recovery, base: Form, model: onnx.ModelProto) -> Form:
        match way:
            case Recovery.NONE:
                return base
            case Recovery.EQUALISE:
                rescaled, pairs = equalise(model)
                self.progress.message(f"equalised {pairs} pairs of convolutions")
                return self.calibration.form(rescaled, base.rules) if pairs else base
            case Recovery.BIAS | Recovery.ADAROUND:
                return self._reconstructed(base, rounding=way is Recovery.ADAROUND)
            case Recovery.QAT:
                if self.train is None:
                    raise ConfigError("quantize.recovery = 'qat' needs a teacher to learn from.")
                if (trained := self.train(base)) is None:
                    self._notes.append(
                        f"{base.rules.target}: quantization-aware training ended below the weights that it began with,"
                        " so those are kept."
                    )
                    return base
                return dataclasses.replace(base, graph=Graph(trained))
            case Recovery.AUTO:
                raise AssertionError("auto is no single method")
            case _:
                assert_never(way)

    def _reconstructed(self, base: Form, *, rounding: bool) -> Form:
        from edgetl.quantize.reconstruct import corrected, reconstruct

        found = reconstruct(
            base.graph,
            base.plan,
            base.rules,
            base.activations,
            self.calibration.batches(IMAGES),
            rounding=rounding,
            seed=self.seed,
            progress=self.progress,
        )
        graph = Graph(corrected(base.graph, found))
        plan = make_plan(graph, base.rules)
        return dataclasses.replace(base, graph=graph, plan=plan, grids=found.grids)


_NAMES = {
    Recovery.NONE: "only calibration",
    Recovery.EQUALISE: "cross-layer equalisation",
    Recovery.BIAS: "bias correction",
    Recovery.ADAROUND: "AdaRound",
    Recovery.QAT: "quantization-aware training",
}
