"""Time a torch network as it will run: exported, in the runtime, its calls taking turns with the teacher's."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.config import BenchConfig
from edgetl.preprocess import PreprocessSpec
from edgetl.prune.latency import Timing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

_RUNS, _WARMUP = 60, 10


class RuntimeStopwatch:
    """Times networks in ONNX Runtime in float32 at batch 1, against the teacher in the same runtime.

    Args:
        teacher: its checkpoint; exported at the first call.
        teacher_spec: preprocessing of the teacher, whose size is its input's.
        spec: preprocessing of the networks.
        labels: class names.
        opset: ONNX operator set.
        bench: gives the engine's threads.
    """

    def __init__(
        self,
        *,
        teacher: Path,
        teacher_spec: PreprocessSpec,
        spec: PreprocessSpec,
        labels: Sequence[str],
        opset: int,
        bench: BenchConfig,
    ) -> None:
        self._teacher, self._teacher_spec, self._spec = teacher, teacher_spec, spec
        self._labels, self._opset, self._threads = tuple(labels), opset, bench.threads
        self._reference: bytes | None = None

    def __call__(self, network: nn.Module) -> Timing:
        """Export and time a network.

        Raises:
            ModelError: it cannot be exported or loaded.
            MissingDependencyError: ONNX Runtime is not installed.
        """
        from edgetl.bench.timer import BLOCK, PAUSE_S, SETTLE, time_interleaved
        from edgetl.models import checkpoint
        from edgetl.runtime.onnx_backend import OnnxBackend

        if self._reference is None:
            self._reference = self._exported(checkpoint.load(self._teacher)[0], self._teacher_spec)
        with (
            OnnxBackend(self._reference, threads=self._threads) as teacher,
            OnnxBackend(self._exported(network, self._spec), threads=self._threads) as candidate,
        ):
            timed = time_interleaved(
                {
                    "teacher": teacher.bind(_images(self._teacher_spec)),
                    "network": candidate.bind(_images(self._spec)),
                },
                warmup=_WARMUP,
                runs=_RUNS,
                pause_s=PAUSE_S,
                settle=SETTLE,
                block=BLOCK,
            )
        return Timing(ms=statistics.median(timed["network"]), teacher_ms=statistics.median(timed["teacher"]))

    def _exported(self, network: nn.Module, spec: PreprocessSpec) -> bytes:
        from edgetl.export.onnx import to_bytes, to_onnx

        return to_bytes(to_onnx(network, labels=self._labels, spec=spec, opset=self._opset))


def _images(spec: PreprocessSpec) -> NDArray[np.float32]:
    """(1, 3, S, S): the values do not matter to the time."""
    import numpy as np

    return np.random.default_rng(0).normal(size=(1, 3, spec.size, spec.size)).astype(np.float32)
