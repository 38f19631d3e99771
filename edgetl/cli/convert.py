"""`edgetl build`, `onnx`, `litert`, `rknn` and `triton`: a bundle's model in other formats; `parity`: do they agree?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgetl.cli.options import BadImagesOption, BundleArg, DataArg, Json, Variant
from edgetl.cli.watch import report_crashes
from edgetl.deploy.rknn.options import PYTHON_VARIABLE, Platform, RknnOptions
from edgetl.export.tensorrt.options import (
    BuildOptions,
    EnginePrecision,
    EngineTarget,
    HardwareCompatibility,
)
from edgetl.records.scores import BadImages

Uint8 = Annotated[
    bool, typer.Option("--uint8", help="Take (N, S, S, 3) uint8 pictures and normalise inside.")
]
Samples = Annotated[
    bool,
    typer.Option(
        "--samples",
        help="Of sounds: take (N, samples) float32, a window at the bundle's rate, and make the picture inside.",
    ),
]
Softmax = Annotated[bool, typer.Option("--softmax", help="Give probabilities in place of logits.")]
Top = Annotated[int, typer.Option("--top", min=0, help="Give the so many best classes; 0 gives all logits.")]


def build(
    bundle: BundleArg,
    target: Annotated[EngineTarget, typer.Option("--target", help="The engine.", show_default=False)],
    sm: Annotated[
        list[str] | None,
        typer.Option("--sm", help="Compute capabilities to compile for, e.g. 86,89,120. TensorRT-RTX only."),
    ] = None,
    precision: Annotated[
        EnginePrecision | None,
        typer.Option("--precision", help="What it shall compute in.", show_default="the variant's"),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(
            "--variant", help="The variant to compile.", show_default="made for the target, or fp32"
        ),
    ] = None,
    batch: Annotated[
        str,
        typer.Option("--batch", metavar="LEAST,TUNED,LARGEST", help="Images per call; one number fixes it."),
    ] = "1,1,8",
    workspace_mib: Annotated[
        int, typer.Option("--workspace-mib", min=1, help="Scratch memory that a layer may use.")
    ] = 1024,
    sparse: Annotated[
        bool, typer.Option("--sparse", help="Use 2:4 sparse kernels where weights fit.")
    ] = False,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Later versions take it too. TensorRT only.")
    ] = False,
    hardware_compatible: Annotated[
        HardwareCompatibility, typer.Option("--hardware-compatible", help="Other GPUs too. TensorRT only.")
    ] = HardwareCompatibility.NONE,
    dla_core: Annotated[
        int | None,
        typer.Option("--dla-core", min=0, help="Compile for a Jetson's DLA; lists what falls back."),
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Compile again, though a cached engine would fit.")
    ] = False,
    output_path: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write.", show_default="next to the bundle")
    ] = None,
    json: Json = False,
) -> None:
    """Compile a TensorRT engine from a bundle's ONNX and prove its precision. TensorRT-RTX needs no GPU for this."""
    from edgetl.cli import output
    from edgetl.cli.progress import open_progress

    report_crashes()
    from edgetl.deploy.engine import build_from_bundle

    options = BuildOptions(
        target=target,
        compute_capabilities=tuple(part for text in sm or () for part in text.split(",") if part),
        batch=_batch(batch),
        workspace_bytes=workspace_mib << 20,
        sparse_weights=sparse,
        version_compatible=version_compatible,
        hardware_compatibility=hardware_compatible,
        precision=precision or EnginePrecision.FP32,
        dla_core=dla_core,
    )
    with open_progress() as progress:
        record = build_from_bundle(
            bundle,
            options,
            precision=precision,
            variant=variant,
            output=output_path,
            reuse=not rebuild,
            progress=progress,
        )
    output.emit(record, json, "engine")


def parity(
    bundle: BundleArg,
    data: DataArg,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="The exported network.", show_default="the run folder's, if there"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Use so many images.", show_default="all")
    ] = None,
    bad_images: BadImagesOption = BadImages.REFUSE,
    json: Json = False,
) -> None:
    """Compare torch, ONNX, variants and engines; name the first that is off (exit code 1), and its layer."""
    report_crashes()
    from edgetl.cli import output
    from edgetl.cli.progress import open_progress
    from edgetl.deploy.parity import run

    with open_progress() as progress:
        record = run(
            bundle, Path(data), checkpoint=checkpoint, limit=limit, bad_images=bad_images, progress=progress
        )
    output.emit(record, json, "parity")
    if record.first_outside:
        raise typer.Exit(1)


def onnx(
    bundle: BundleArg,
    output_path: Annotated[Path, typer.Option("--output", "-o", help="The file.")] = Path("model.onnx"),
    variant: Variant = None,
    uint8: Uint8 = False,
    samples: Samples = False,
    softmax: Softmax = False,
    top: Top = 0,
    nms: Annotated[
        bool,
        typer.Option(
            "--nms",
            help="Of a detector: give boxes without duplicates, above the threshold, in one output (M, 7): image, x1,"
            " y1, x2, y2, score, class. ONNX Runtime and OpenVINO take it, TensorRT-RTX does not.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Take a model out of a bundle as ONNX, for any runtime; by option with what stands before and behind it inside."""
    report_crashes()
    from edgetl.cli import output
    from edgetl.deploy.serving import ServeOptions, write_onnx

    options = ServeOptions(variant=variant, uint8=uint8, samples=samples, softmax=softmax, top=top, nms=nms)
    output.emit(write_onnx(bundle, options, output_path), json, "serve")


def litert(
    bundle: BundleArg,
    output_path: Annotated[Path, typer.Option("--output", "-o", help="The file.")] = Path("model.tflite"),
    variant: Variant = None,
    uint8: Annotated[
        bool, typer.Option("--uint8", help="Take (1, S, S, 3) uint8 pictures and normalise inside.")
    ] = False,
    softmax: Softmax = False,
    json: Json = False,
) -> None:
    """Take a model out of a bundle as one .tflite file, for LiteRT (TensorFlow Lite) on phones and boards.

    It takes one image at a time with its channels last, and computes on the variant's own scales.
    """
    report_crashes()
    from edgetl.cli import output
    from edgetl.deploy.serving import ServeOptions, write_litert

    options = ServeOptions(variant=variant, uint8=uint8, softmax=softmax)
    output.emit(write_litert(bundle, options, output_path), json, "serve")


def rknn(
    bundle: BundleArg,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES...",
            help="What the device will see, 150 or so, without labels.",
            show_default=False,
        ),
    ],
    platform: Annotated[Platform, typer.Option("--platform", help="What to compile for.")] = Platform.RK3588,
    half: Annotated[bool, typer.Option("--half", help="Compute in half precision in place of INT8.")] = False,
    python: Annotated[
        Path | None,
        typer.Option(
            "--python",
            help="The Python that has Rockchip's toolkit.",
            show_default=f"as {PYTHON_VARIABLE} says",
        ),
    ] = None,
    output_path: Annotated[Path, typer.Option("--output", "-o", help="The file.")] = Path("model.rknn"),
    json: Json = False,
) -> None:
    """Convert a model for the NPU of a Rockchip board, and simulate it beside float32 (exit code 1: they differ).

    Rockchip's own toolkit does both, in a Python of its own. Nothing is said of speed, which needs the board.
    """
    report_crashes()
    from edgetl.cli import output
    from edgetl.cli.progress import open_progress
    from edgetl.deploy.rknn.convert import write_rknn

    options = RknnOptions(platform=platform, int8=not half, python=python)
    with open_progress() as progress:
        record = write_rknn(bundle, images, options, output_path, progress=progress)
    output.emit(record, json, "rknn")
    if record.reason:
        raise typer.Exit(1)


def triton(
    bundle: BundleArg,
    output_path: Annotated[Path, typer.Option("--output", "-o", help="The model repository.")] = Path(
        "models"
    ),
    variant: Variant = None,
    max_batch: Annotated[
        int, typer.Option("--max-batch", min=1, help="Largest batch that Triton makes.")
    ] = 8,
    gpu: Annotated[bool, typer.Option("--gpu", help="Run on GPUs instead of the CPU.")] = False,
    uint8: Uint8 = False,
    samples: Samples = False,
    softmax: Softmax = False,
    top: Top = 0,
    json: Json = False,
) -> None:
    """Write a model repository for NVIDIA Triton, or add the model to one."""
    report_crashes()
    from edgetl.cli import output
    from edgetl.deploy.serving import ServeOptions, write_triton

    options = ServeOptions(variant=variant, uint8=uint8, samples=samples, softmax=softmax, top=top)
    output.emit(write_triton(bundle, options, output_path, max_batch=max_batch, gpu=gpu), json, "serve")


def _batch(text: str) -> tuple[int, int, int]:
    from edgetl.errors import ConfigError

    parts = text.split(",")
    if len(parts) not in (1, 3) or not all(part.strip().isdecimal() for part in parts):
        raise ConfigError(f"--batch: got {text!r}, expected one number, or LEAST,TUNED,LARGEST as in 1,1,8.")
    numbers = [int(part) for part in parts]
    least, tuned, largest = numbers if len(numbers) == 3 else numbers * 3
    return least, tuned, largest
