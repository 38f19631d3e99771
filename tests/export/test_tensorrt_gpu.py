"""What needs a GPU: an engine is compiled for it, loaded, and its own layers are looked at."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from edgetl.export.tensorrt import BuildOptions, EngineTarget, compile_engine, load_module
from edgetl.export.tensorrt.gpu import find_gpu
from tests.export.test_tensorrt import FP16, INT8, half
from tests.onnx_models import classifier

GPU = find_gpu()


@pytest.mark.gpu
@pytest.mark.trt
@pytest.mark.skipif(GPU is None, reason="there is no GPU here")
@pytest.mark.parametrize("target", EngineTarget)
@pytest.mark.parametrize("precision", [FP16, INT8])
def test_the_engine_s_own_layers_have_the_precision_that_was_asked(
    target: EngineTarget, precision: str
) -> None:
    if find_spec(target.replace("-", "_")) is None:
        pytest.skip(f"{target} is not installed")
    assert GPU is not None
    named = (GPU.compute_capability,) if target is EngineTarget.TENSORRT_RTX else ()
    options = BuildOptions(target=target, precision=precision, compute_capabilities=named)
    model = half()[0] if precision is FP16 else classifier(zero_point=0)
    record = compile_engine(load_module(target), model, options, gpu=GPU).record
    assert record.evidence.startswith("the engine's own layers")
    assert precision in record.layers
