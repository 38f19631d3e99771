"""How long and how large a network will be, before it has learned anything: exported, quantized, and timed in each
engine that the recipe's targets name."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx
from torch import nn

from edgetl.bench.threads import numbers_of
from edgetl.bundle.manifest import ModelFormat
from edgetl.config import Recipe, Target
from edgetl.export.half_weights import store_half
from edgetl.export.litert.convert import to_tflite
from edgetl.export.onnx import to_bytes, to_onnx
from edgetl.export.opsets import opset_for
from edgetl.inputs.image import PreprocessSpec
from edgetl.measure.stopwatch import share_of, shipped_target
from edgetl.measure.timing import TimedFile, times_of
from edgetl.quantize.unlearned import int8_on_noise
from edgetl.records.search import LITERT, ONNXRUNTIME, TimedVariant
from edgetl.search.quiet import Quiet
from edgetl.tasks.base import TaskSpec

_ROUNDS, _WARM_ROUNDS = 6, 1
_REFERENCE = "reference"


@dataclass(frozen=True, kw_only=True)
class _File:
    """A network as one engine takes it, and the bytes that would ship."""

    precision: str
    engine: str
    content: bytes
    size_bytes: int

    @property
    def format(self) -> ModelFormat:
        return ModelFormat.TFLITE if self.engine == LITERT else ModelFormat.ONNX


class Clock:
    """Times networks against one that stays the same, so that times of different moments can be compared.

    Args:
        recipe: targets, threads, operator set.
        task: what the networks answer.
        spec: the teacher's preprocessing; a network's own differs in its size.
        reference: a network at the teacher's size.
        quiet: keeps other workers still meanwhile.
        reference_ms: the reference's median where it was timed before; else that of the measurements so far.
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
        self.reference_ms = math.nan if reference_ms is None else reference_ms
        self._learned = list[float]() if reference_ms is None else None
        self._reference = to_bytes(self._exported(reference, spec))
        self.target = shipped_target(recipe.quantize)

    def __call__(self, network: nn.Module, size: int) -> tuple[TimedVariant, ...]:
        """Time a network in each precision and engine that may ship.

        Args:
            network: (N, 3, S, S) float32 to (N, D).
            size: S.

        Raises:
            ModelError: it cannot be exported, loaded or written for LiteRT, or ONNX Runtime is not installed, or LiteRT
                where it is a target.
        """
        files = self._files(self._exported(network, replace(self.spec, size=size)), size)
        timed, reference_ms = self._timed(files, size)
        if self._learned is not None:
            self._learned.append(reference_ms)
            self.reference_ms = statistics.median(self._learned)
        return tuple(
            TimedVariant(
                precision=file.precision,
                engine=file.engine,
                ms=share * self.reference_ms,
                threads=threads,
                size_bytes=file.size_bytes,
            )
            for file, (share, threads) in zip(files, timed, strict=True)
        )

    def _files(self, model: onnx.ModelProto, size: int) -> list[_File]:
        def add(precision: str, engine: str, content: bytes, size_bytes: int | None = None) -> None:
            files.append(
                _File(
                    precision=precision,
                    engine=engine,
                    content=content,
                    size_bytes=len(content) if size_bytes is None else size_bytes,
                )
            )

        files, half, quantize = list[_File](), store_half(model), self.recipe.quantize
        add("fp32", ONNXRUNTIME, to_bytes(model), half.ByteSize())
        if self.target is not None and (small := int8_on_noise(model, self.target, size)) is not None:
            add("int8", ONNXRUNTIME, small)
        if Target.LITERT in quantize.target:
            add("fp32", LITERT, to_tflite(model), len(to_tflite(half)))
            if quantize.enabled and (small := int8_on_noise(model, Target.LITERT, size)) is not None:
                add("int8", LITERT, to_tflite(onnx.load_from_string(small)))
        return files

    def _timed(self, files: Sequence[_File], size: int) -> tuple[list[tuple[float, int]], float]:
        """Each file's share of the reference's time with its better number of threads, and the reference's median.

        The median, since that is what the ordinary run will measure of what ships, on a machine as it is.
        """
        numbers = numbers_of(self.recipe.bench.threads)
        asked = {
            str(at): TimedFile(content=file.content, format=file.format, size=size, threads=numbers)
            for at, file in enumerate(files)
        }
        asked[_REFERENCE] = TimedFile(content=self._reference, size=self.spec.size, threads=(1,))
        with self.quiet.alone():
            found = times_of(asked, warm_rounds=_WARM_ROUNDS, rounds=_ROUNDS)
        reference = found[_REFERENCE][1]
        shares = [
            min((share_of(samples, reference, _ROUNDS), number) for number, samples in found[str(at)].items())
            for at in range(len(files))
        ]
        return shares, statistics.median(reference)

    def _exported(self, network: nn.Module, spec: PreprocessSpec) -> onnx.ModelProto:
        opset = self.recipe.export.opset or opset_for(self.recipe.quantize.target)
        return to_onnx(network, task=self.task, spec=spec, opset=opset)
