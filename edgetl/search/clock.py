"""How long and how large a network will be, before it has learned anything: exported, quantized and timed."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import onnx
from torch import nn

from edgetl.bench.threads import numbers_of
from edgetl.bench.timer import PAUSE_S, block_of, time_interleaved
from edgetl.config import Recipe
from edgetl.export.half_weights import store_half
from edgetl.export.onnx import to_bytes, to_onnx
from edgetl.export.opsets import opset_for
from edgetl.inputs.image import PreprocessSpec
from edgetl.measure.stopwatch import fast_end, shipped_target
from edgetl.quantize.unlearned import int8_on_noise, noise
from edgetl.records.search import TimedVariant
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.search.quiet import Quiet
from edgetl.tasks.base import TaskSpec

_ROUNDS, _WARM_ROUNDS = 6, 1
_FAST = 0.1
"""Of this quantile of its own calls is each network's share of the reference: see `edgetl.measure.stopwatch`."""
_REFERENCE = "reference", 1


class Clock:
    """Times networks against one that stays the same, so that times of different moments can be compared.

    Args:
        recipe: targets, threads, operator set.
        task: what the networks answer.
        spec: the teacher's preprocessing; a network's own differs in its size.
        reference: a network at the teacher's size.
        quiet: keeps other workers still meanwhile.
        reference_ms: of the reference where it was timed before; else the quietest measurement says.
    """

    def __init__(
        self,
        recipe: Recipe,
        task: TaskSpec,
        spec: PreprocessSpec,
        reference: nn.Module,
        quiet: Quiet,
        reference_ms: float | None = None,
    ) -> None:
        self.recipe, self.task, self.spec, self.quiet = recipe, task, spec, quiet
        self.reference_ms = math.inf if reference_ms is None else reference_ms
        self._learns = reference_ms is None
        self._reference = to_bytes(self._exported(reference, spec))
        self.target = shipped_target(recipe.quantize)

    def __call__(self, network: nn.Module, size: int) -> tuple[TimedVariant, ...]:
        """Time a network in each precision that may ship.

        Args:
            network: (N, 3, S, S) float32 to (N, D).
            size: S.

        Raises:
            ModelError: it cannot be exported or loaded.
            MissingDependencyError: ONNX Runtime is not installed.
        """
        model = self._exported(network, replace(self.spec, size=size))
        files = {"fp32": (to_bytes(model), store_half(model).ByteSize())}
        if self.target is not None and (small := int8_on_noise(model, self.target, size)) is not None:
            files["int8"] = (small, len(small))
        timed, reference_ms = self._timed({name: content for name, (content, _) in files.items()}, size)
        if self._learns:
            self.reference_ms = min(self.reference_ms, reference_ms)
        return tuple(
            TimedVariant(
                precision=name,
                ms=timed[name][0] * self.reference_ms,
                threads=timed[name][1],
                size_bytes=size_bytes,
            )
            for name, (_, size_bytes) in files.items()
        )

    def _timed(self, models: dict[str, bytes], size: int) -> tuple[dict[str, tuple[float, int]], float]:
        """Each model's share of the reference's time with its better number of threads, and that time."""
        numbers = numbers_of(self.recipe.bench.threads)
        with ExitStack() as stack:
            calls: dict[tuple[str, int], Callable[[], object]] = {
                (name, number): functools.partial(
                    stack.enter_context(OnnxBackend(content, threads=number)).run, noise(size)
                )
                for name, content in models.items()
                for number in numbers
            }
            reference = stack.enter_context(OnnxBackend(self._reference, threads=1))
            calls[_REFERENCE] = functools.partial(reference.run, noise(self.spec.size))
            with self.quiet.alone():
                settle, block = block_of({"fp32": calls["fp32", 1]})
                found = time_interleaved(
                    {_joined(*key): call for key, call in calls.items()},
                    warmup=_WARM_ROUNDS * block,
                    runs=_ROUNDS * block,
                    pause_s=PAUSE_S,
                    settle=settle,
                    block=block,
                )
        base = found[_joined(*_REFERENCE)]
        shares = {
            name: min((fast_end(found[_joined(name, number)]) / fast_end(base), number) for number in numbers)
            for name in models
        }
        return shares, fast_end(base)

    def _exported(self, network: nn.Module, spec: PreprocessSpec) -> onnx.ModelProto:
        opset = self.recipe.export.opset or opset_for(self.recipe.quantize.target)
        return to_onnx(network, task=self.task, spec=spec, opset=opset)


def _joined(name: str, threads: int) -> str:
    return f"{name}/{threads}"
