"""Time a torch network as it will run: exported, in the runtime, its calls taking turns with the teacher's."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.inputs.image import PreprocessSpec
from edgetl.keys import UNKEYED
from edgetl.prune.latency import LayerTiming
from edgetl.tasks.base import TaskSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

_ROUNDS, _WARM_ROUNDS = 12, 2
_FAST = 0.1
"""Of this quantile of its own calls is each network's share: where other programs take the cores for a while, they
lengthen the longer calls more often, and the medians' ratio with them."""


@dataclass(kw_only=True)
class RuntimeStopwatch:
    """Times networks in ONNX Runtime in float32 at batch 1, against the teacher in the same runtime.

    Attributes:
        teacher: its checkpoint; exported at the first call.
        teacher_spec: preprocessing of the teacher, whose size is its input's.
        spec: preprocessing of the networks.
        task: what the networks answer.
        opset: ONNX operator set.
        threads: of the engine.
        machine: fingerprint of the machine whose times count, for the keys of what is made by them.
    """

    teacher: Path
    teacher_spec: PreprocessSpec
    spec: PreprocessSpec
    task: TaskSpec
    opset: int
    threads: int
    machine: str = ""
    _reference: bytes | None = field(default=None, init=False, repr=False, metadata=UNKEYED)

    def __call__(self, network: nn.Module) -> LayerTiming:
        """Export and time a network.

        Raises:
            ModelError: it cannot be exported or loaded.
            MissingDependencyError: ONNX Runtime is not installed.
        """
        from edgetl.bench.timer import PAUSE_S, block_of, time_interleaved
        from edgetl.models import checkpoint
        from edgetl.runtime.engines.onnxruntime import OnnxBackend

        if self._reference is None:
            self._reference = self._exported(checkpoint.load(self.teacher)[0], self.teacher_spec)
        with (
            OnnxBackend(self._reference, threads=self.threads) as teacher,
            OnnxBackend(self._exported(network, self.spec), threads=self.threads) as candidate,
        ):
            calls = {
                "teacher": teacher.bind(_images(self.teacher_spec)),
                "network": candidate.bind(_images(self.spec)),
            }
            settle, block = block_of(calls)
            timed = time_interleaved(
                calls,
                warmup=_WARM_ROUNDS * block,
                runs=_ROUNDS * block,
                pause_s=PAUSE_S,
                settle=settle,
                block=block,
            )
        share = fast_end(timed["network"]) / fast_end(timed["teacher"])
        teacher_ms = statistics.median(timed["teacher"])
        return LayerTiming(ms=share * teacher_ms, teacher_ms=teacher_ms)

    def _exported(self, network: nn.Module, spec: PreprocessSpec) -> bytes:
        from edgetl.export.onnx import to_bytes, to_onnx

        return to_bytes(to_onnx(network, task=self.task, spec=spec, opset=self.opset))


def fast_end(samples: Sequence[float]) -> float:
    """The sample that a tenth of them are faster than: noise of the machine only ever adds to a time."""
    return sorted(samples)[int(_FAST * len(samples))]


def _images(spec: PreprocessSpec) -> NDArray[np.float32]:
    """(1, 3, S, S): the values do not matter to the time."""
    import numpy as np

    return np.random.default_rng(0).normal(size=(1, 3, spec.size, spec.size)).astype(np.float32)
