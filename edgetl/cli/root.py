"""The root command: what was typed, and which errors are the user's."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from edgetl import shell

_arguments: ContextVar[tuple[str, ...]] = ContextVar("arguments", default=())


class Root(TyperGroup):
    """Keeps the words that were typed, and turns what the machine refuses into errors of ours.

    Inside of typer, which by itself ends with 1, a gate's verdict, where a pipe is closed or a file ends early.
    """

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context; what was typed is kept."""
        _arguments.set(tuple(args))
        with _plain_errors():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with _plain_errors():
            return super().invoke(ctx)


def add_commands(app: typer.Typer, panel: str, examples: Mapping[Callable[..., None], str]) -> None:
    """Add commands, each under the name that its example calls it by."""
    for function, example in examples.items():
        app.command(example.split()[1], rich_help_panel=panel, epilog=f"Example: {example}")(function)


def typed() -> str:
    """The command that is running, exactly as it was typed and fit for a shell; with its launcher, where it has one."""
    return shell.join([*_launcher(os.environ), *_program(sys.orig_argv, sys.argv[0]), *_arguments.get()])


def _program(words: Sequence[str], script: str) -> list[str]:
    """How edgetl was started: `edgetl`, `python -m edgetl`, or the script by its path where that is not on the PATH."""
    for at, word in enumerate(words[1:], start=1):
        if not word.startswith("-"):
            break
        if word == "-m":
            module = words[at + 1 : at + 2]
            return list(words[: at + 2]) if module and module[0].startswith("edgetl") else ["edgetl"]
    known = Path(script).stem == "edgetl" and shutil.which("edgetl") != script and os.sep in script
    return [script] if known else ["edgetl"]


def _launcher(environment: Any) -> list[str]:
    """The words before `edgetl` that start as many processes as there are now; none for a single process."""
    count = environment.get("WORLD_SIZE", "1")
    if count == "1":
        return []
    nodes = environment.get("GROUP_WORLD_SIZE", "1")
    if "ACCELERATE_MIXED_PRECISION" in environment:
        return ["accelerate", "launch", "--num-processes", count, "--no-python"]
    several = ["--nnodes", nodes] if nodes != "1" else []
    return [
        "torchrun",
        *several,
        "--nproc-per-node",
        environment.get("LOCAL_WORLD_SIZE", count),
        "--no-python",
    ]


@contextmanager
def _plain_errors() -> Iterator[None]:
    from edgetl.errors import EdgetlError, Interrupted, StorageError

    try:
        yield
    except (EdgetlError, typer.Exit):
        raise
    except KeyboardInterrupt:
        raise Interrupted("Stopped.") from None
    except EOFError as error:
        raise RuntimeError(f"a file ended early: {error}") from error
    except Exception as error:
        from edgetl.failures import explain

        if (sentence := explain(error)) is None:
            raise
        raise StorageError(sentence) from error
