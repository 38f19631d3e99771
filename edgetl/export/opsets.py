"""The ONNX operator set that a target's engines take, with the reason."""

from __future__ import annotations

from collections.abc import Sequence

from edgetl.config import Target


def opset_for(targets: Sequence[Target]) -> int:
    """The operator set that all targets take, where the recipe names none.

    CPUs get 18: every ONNX Runtime since 1.14 takes it. TensorRT gets 20, the first with Gelu as one operator: the
    engine then sees one layer where opset 18 has five, and TensorRT 10 and 11 parse it. Both are within reach of
    torch's fast exporter, which ends at 20.
    """
    return 20 if set(targets) <= {Target.TENSORRT, Target.TENSORRT_RTX} else 18
