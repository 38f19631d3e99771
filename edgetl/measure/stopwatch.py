"""Time a torch network as it will run: exported, in the runtime, its calls taking turns with the teacher's."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.config import QuantizeConfig, Target
from edgetl.inputs.image import PreprocessSpec
from edgetl.keys import UNKEYED
from edgetl.processor import computes
from edgetl.prune.latency import LayerTiming
from edgetl.tasks.base import TaskSpec

if TYPE_CHECKING:
    from torch import nn

_ROUNDS, _WARM_ROUNDS = 12, 2
_NETWORK = "network"
_FAST = 0.1
"""Within a round this quantile of a network's calls counts: where other programs take the cores for a moment, they
lengthen the longer calls more often, and the medians' ratio with them."""


@dataclass(kw_only=True)
class RuntimeStopwatch:
    """Times networks as they will ship, in ONNX Runtime at batch 1, against the teacher in float32 in the same runtime.

    Each is timed with one thread and with `threads`; its better number counts.

    Attributes:
        teacher: its checkpoint; exported at the first call.
        teacher_spec: preprocessing of the teacher, whose size is its input's.
        spec: preprocessing of the networks.
        task: what the networks answer.
        opset: ONNX operator set.
        target: what INT8 is made for; in float32 where unset, or where a network cannot be quantized.
        threads: the most of the engine.
        machine: fingerprint of the machine whose times count, for the keys of what is made by them.
    """

    teacher: Path
    teacher_spec: PreprocessSpec
    spec: PreprocessSpec
    task: TaskSpec
    opset: int
    target: Target | None
    threads: int
    machine: str = ""
    _reference: bytes | None = field(default=None, init=False, repr=False, metadata=UNKEYED)

    def __call__(self, network: nn.Module) -> LayerTiming:
        """Export and time a network.

        Raises:
            MissingDependencyError: ONNX Runtime is not installed.
            ModelError: it cannot be exported or loaded.
        """
        from edgetl.bench.threads import numbers_of
        from edgetl.measure.timing import TEACHER, TimedFile, times_of
        from edgetl.models import checkpoint

        if self._reference is None:
            self._reference = self._exported(checkpoint.load(self.teacher)[0], self.teacher_spec, None)
        files = {
            TEACHER: (self._reference, self.teacher_spec),
            _NETWORK: (self._exported(network, self.spec, self.target), self.spec),
        }
        numbers = numbers_of(self.threads)
        timed = times_of(
            {
                name: TimedFile(content=content, size=spec.size, threads=numbers)
                for name, (content, spec) in files.items()
            },
            warm_rounds=_WARM_ROUNDS,
            rounds=_ROUNDS,
        )
        teacher = min(timed[TEACHER].values(), key=statistics.median)
        teacher_ms = statistics.median(teacher)
        share = min(share_of(own, teacher, _ROUNDS) for own in timed[_NETWORK].values())
        return LayerTiming(ms=share * teacher_ms, teacher_ms=teacher_ms)

    def _exported(self, network: nn.Module, spec: PreprocessSpec, target: Target | None) -> bytes:
        from edgetl.export.onnx import to_bytes, to_onnx
        from edgetl.quantize.unlearned import int8_on_noise

        model = to_onnx(network, task=self.task, spec=spec, opset=self.opset)
        small = None if target is None else int8_on_noise(model, target, spec.size)
        return to_bytes(model) if small is None else small


def shipped_target(config: QuantizeConfig) -> Target | None:
    """What INT8 is made for that ONNX Runtime computes on this machine; None where float ships."""
    return next((target for target in config.target if config.enabled and computes(target)), None)


def share_of(own: Sequence[float], other: Sequence[float], rounds: int) -> float:
    """What share of another network's time one takes, where the calls of both took turns.

    The median over the rounds, in each of which the fast end of the calls counts: a machine that is faster or slower
    for some of the rounds changes neither.

    Args:
        own, other: samples in milliseconds, in the order in which they were taken.
        rounds: how many there were, each of a block of calls of both.
    """
    parts = zip(_rounds(own, rounds), _rounds(other, rounds), strict=True)
    return statistics.median(_fast_end(first) / _fast_end(second) for first, second in parts)


def _rounds(samples: Sequence[float], rounds: int) -> list[Sequence[float]]:
    block = max(1, len(samples) // rounds)
    return [samples[start : start + block] for start in range(0, len(samples), block)]


def _fast_end(samples: Sequence[float]) -> float:
    """The sample that a tenth of them are faster than."""
    return sorted(samples)[int(_FAST * len(samples))]
