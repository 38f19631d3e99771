"""Time a torch network as it will run: exported, in the runtime, its calls taking turns with the teacher's."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
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
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

_ROUNDS, _WARM_ROUNDS = 12, 2
_TEACHER, _NETWORK = "teacher", "network"
_FAST = 0.1
"""Of this quantile of its own calls is each network's share: where other programs take the cores for a while, they
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
            ModelError: it cannot be exported or loaded.
            MissingDependencyError: ONNX Runtime is not installed.
        """
        from edgetl.bench.threads import numbers_of
        from edgetl.bench.timer import PAUSE_S, block_of, time_interleaved
        from edgetl.models import checkpoint
        from edgetl.runtime.engines.onnxruntime import OnnxBackend

        if self._reference is None:
            self._reference = self._exported(checkpoint.load(self.teacher)[0], self.teacher_spec, None)
        files = {
            _TEACHER: (self._reference, self.teacher_spec),
            _NETWORK: (self._exported(network, self.spec, self.target), self.spec),
        }
        with ExitStack() as stack:
            calls = {
                f"{name}/{number}": stack.enter_context(OnnxBackend(content, threads=number)).bind(
                    _images(spec)
                )
                for name, (content, spec) in files.items()
                for number in numbers_of(self.threads)
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
        teacher, own = (
            min((samples for key, samples in timed.items() if key.startswith(f"{name}/")), key=fast_end)
            for name in files
        )
        teacher_ms = statistics.median(teacher)
        return LayerTiming(ms=fast_end(own) / fast_end(teacher) * teacher_ms, teacher_ms=teacher_ms)

    def _exported(self, network: nn.Module, spec: PreprocessSpec, target: Target | None) -> bytes:
        from edgetl.export.onnx import to_bytes, to_onnx
        from edgetl.quantize.unlearned import int8_on_noise

        model = to_onnx(network, task=self.task, spec=spec, opset=self.opset)
        small = None if target is None else int8_on_noise(model, target, spec.size)
        return to_bytes(model) if small is None else small


def shipped_target(config: QuantizeConfig) -> Target | None:
    """What INT8 is made for that ONNX Runtime computes on this machine; None where float ships."""
    return next((target for target in config.target if config.enabled and computes(target)), None)


def fast_end(samples: Sequence[float]) -> float:
    """The sample that a tenth of them are faster than: noise of the machine only ever adds to a time."""
    return sorted(samples)[int(_FAST * len(samples))]


def _images(spec: PreprocessSpec) -> NDArray[np.float32]:
    """(1, 3, S, S): the values do not matter to the time."""
    import numpy as np

    return np.random.default_rng(0).normal(size=(1, 3, spec.size, spec.size)).astype(np.float32)
