"""What several commands say and how they end."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import typer

if TYPE_CHECKING:
    from edgetl.records.gate import Verdict
    from edgetl.runtime.targets import Choice


def end_by(verdict: Verdict) -> None:
    """End with 1 where the verdict is that something got worse, with 3 where that cannot be decided."""
    from edgetl.records.gate import Verdict

    match verdict:
        case Verdict.PASS:
            return
        case Verdict.FAIL:
            raise typer.Exit(1)
        case Verdict.UNSURE:
            raise typer.Exit(3)
        case _:
            assert_never(verdict)


def say_choice(choice: Choice) -> None:
    """Say on standard error what runs, and why."""
    # Without a full stop, since the reason may end with a command.
    typer.echo(f"Runs {choice.variant} on {choice.target}: {choice.reason}", err=True)
