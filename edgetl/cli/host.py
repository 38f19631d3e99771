"""Commands of the host side, where models are made: they need the `train` extra."""

from __future__ import annotations

from collections.abc import Callable

import typer

from edgetl.cli.cascade import cascade
from edgetl.cli.convert import build, litert, onnx, parity, rknn, triton
from edgetl.cli.data import data_add, data_check
from edgetl.cli.init import init
from edgetl.cli.root import add_commands
from edgetl.cli.search import search
from edgetl.cli.stages import distill, export, extend, finetune, prune, quantize, run
from edgetl.cli.suggest import suggest

PANEL = "Make a model (needs the train extra)"


def register(app: typer.Typer) -> None:
    """Add the commands to the app, in the order of the flow."""
    data = typer.Typer(help="Look at an image set, and add to it.", no_args_is_help=True)
    data.command("check", epilog="Example: edgetl data check photos/, or edgetl data check recipe.toml")(
        data_check
    )
    data.command(
        "add",
        epilog="Example: edgetl data add captured/ -o to_label/, then edgetl data add to_label/ --labels"
        " to_label/labels.csv --data photos/ -o photos.csv",
    )(data_add)
    before: dict[Callable[..., None], str] = {
        init: "edgetl init photos/ -o recipe.toml",
        suggest: "edgetl suggest photos/ --sizes 96,128,160 --latency-ms 5 --page suggest.html",
    }
    after: dict[Callable[..., None], str] = {
        run: "edgetl run recipe.toml --set train.epochs=4",
        search: "edgetl search recipe.toml --latency-ms 3 --size-mb 1 --minutes 60",
        **{
            stage: f"edgetl {stage.__name__} recipe.toml"
            for stage in (finetune, prune, distill, export, quantize)
        },
        extend: "edgetl extend runs/parts --add new_parts/ -o runs/parts-2",
        cascade: "edgetl cascade small.edgetl large.edgetl photos/ -o both.edgetl",
        build: "edgetl build model.edgetl --target tensorrt-rtx --sm 86,89,120 --precision fp16",
        parity: "edgetl parity model.edgetl photos/",
        onnx: "edgetl onnx model.edgetl -o model.onnx --uint8",
        litert: "edgetl litert model.edgetl -o model.tflite --uint8",
        rknn: "edgetl rknn model.edgetl photos/ --platform rk3588 --python rknn/bin/python -o model.rknn",
        triton: "edgetl triton model.edgetl -o models/",
    }
    add_commands(app, PANEL, before)
    app.add_typer(data, name="data", rich_help_panel=PANEL)
    add_commands(app, PANEL, after)
