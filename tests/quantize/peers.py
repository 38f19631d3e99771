"""What the quantization benchmarks share: the five networks, images, and the peers' calibration."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgetl.export.onnx import to_onnx
from edgetl.inputs.image import PreprocessSpec
from edgetl.models import backbones
from edgetl.tasks.base import Classification

Array = NDArray[np.float32]
NETWORKS = (
    "efficientnet_lite0",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "resnet18",
    "regnety_004",
)
BATCH = 8


def untrained(name: str, size: int, classes: int = 10) -> onnx.ModelProto:
    """The network with random weights, exported for `size` pixels."""
    import torch

    torch.manual_seed(0)
    model = backbones.create(name, classes, "none").eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.uniform_(0.5, 1.5)
    return to_onnx(
        model,
        task=Classification(labels=tuple([str(i) for i in range(classes)])),
        spec=PreprocessSpec(size=size),
        opset=18,
    )


def noise(count: int, size: int) -> Iterator[Array]:
    """Batches of (8, 3, size, size) float32, made as they are asked for; the same every time."""
    for number in range(count // BATCH):
        yield np.random.default_rng(number).normal(size=(BATCH, 3, size, size)).astype(np.float32)


@dataclass
class Reader:
    """What `quantize_static` takes its images from."""

    batches: Iterator[Array]

    def get_next(self) -> dict[str, Array] | None:
        """The next batch; None at the end."""
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch}


def quantize_static(source: Path, target: Path, batches: Iterator[Array], method: str) -> None:
    """ONNX Runtime's own static quantization as its documents advise for x86: U8S8, per channel, Q/DQ, 7 bits."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    class _Reader(Reader, CalibrationDataReader):
        pass

    logging.getLogger().setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        quantize_static(
            source,
            target,
            _Reader(batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=getattr(CalibrationMethod, method),
        )


def nncf_quantize(model: onnx.ModelProto, batches: list[Array]) -> onnx.ModelProto | None:
    """NNCF's post-training quantization with the same images, as it is by default; None where it is not installed.

    Its ONNX models have weights of 8 bits, whatever `overflow_fix` says (3.4).
    """
    os.environ.setdefault("NNCF_CI", "1")  # sends no telemetry
    try:
        import nncf
    except ImportError:
        return None
    with contextlib.redirect_stdout(io.StringIO()):
        made: Any = nncf.quantize(
            model, nncf.Dataset(batches, lambda batch: {"images": batch}), subset_size=len(batches)
        )
    return made
