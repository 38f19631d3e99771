"""What a search begins with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="optuna is not installed: pip install optuna")

import optuna

from edgetl import config
from edgetl.errors import ModelError
from edgetl.inputs.image import Interpolation
from edgetl.progress import SILENT
from edgetl.records.search import Choice
from edgetl.search.guesses import Guesses
from edgetl.search.settings import SearchConfig
from edgetl.search.space import MOST, Space
from edgetl.search.stage import Search
from edgetl.search.widths import AIM, Timing
from tests.search.test_finals import KNOWN

SPACE = Space(
    networks=("teacher", "other"),
    sizes=(64, 32),
    depths=(0.0, 0.5),
    interpolations=(Interpolation.BICUBIC,),
    least=0.02,
)


class _Two:
    """The teacher's blocks can go, at 64 px only; the other network's cannot, and it does not take 32 px."""

    def depth(self, choice: Choice) -> float:
        if choice.network == "other" and choice.size == 32:
            raise ModelError("other does not take 32 px.")
        return choice.depth if choice.network == "teacher" and choice.size == 64 else 0.0

    def macs(self, choice: Choice) -> int:
        return choice.size**2

    def within(self, _: Choice, share: float) -> float:
        return min(share, MOST)


def _guesses() -> Guesses:
    known = replace(
        KNOWN,
        space=SPACE,
        whole=Timing(macs=64**2, ms=2.0),
        smallest=Timing(macs=16**2, ms=0.5),
    )
    return Guesses(
        known=known,
        networks=_Two(),  # type: ignore[arg-type]
        interpolation=Interpolation.BICUBIC,
        latency_ms=1.0,
    )


def test_each_kind_is_guessed_once_the_fewest_blocks_first() -> None:
    study, guesses, drawn = optuna.create_study(direction="maximize"), _guesses(), list[Choice]()
    for _ in range(20):
        guesses.queue(study)
        guesses.queue(study)  # one waits
        if not study.get_trials(states=(optuna.trial.TrialState.WAITING,)):
            break
        trial = study.ask()
        drawn.append(SPACE.suggest(trial))
        study.tell(trial, 0.5)
    assert [(one.network, one.size, one.depth) for one in drawn] == [
        ("teacher", 64, 0.5),
        ("teacher", 64, 0.0),
        ("other", 64, 0.0),
        ("teacher", 32, 0.0),
        ("other", 32, 0.5),
        ("other", 32, 0.0),
    ]
    share = (AIM / 2) ** 2  # milliseconds grow by the power of a half
    assert [one.share for one in drawn] == pytest.approx([share] * 3 + [4 * share, MOST, MOST], rel=1e-2)


def test_a_correction_comes_before_the_next_guess() -> None:
    study, guesses = optuna.create_study(direction="maximize"), _guesses()
    guesses.queue(study)
    study.tell(study.ask(), 0.5)
    corrected = {"network": "teacher", "size": 64, "depth": 0.5, "share": 0.9}
    study.enqueue_trial(corrected)
    guesses.queue(study)
    (waiting,) = study.get_trials(states=(optuna.trial.TrialState.WAITING,))
    assert waiting.system_attrs["fixed_params"] == corrected


@pytest.mark.parametrize(
    ("filters", "guessed"),
    [
        ((Interpolation.BILINEAR, Interpolation.BICUBIC), Interpolation.BICUBIC),
        ((Interpolation.BILINEAR, Interpolation.LANCZOS), Interpolation.BILINEAR),
    ],
)
def test_guesses_are_of_a_filter_that_is_searched(
    filters: tuple[Interpolation, ...], guessed: Interpolation, tmp_path: Path
) -> None:
    recipe = config.parse({"preprocess": {"interpolation": "bicubic"}})
    search = Search(SearchConfig(latency_ms=1.0), recipe, tmp_path, SILENT)
    search.networks = lambda _: _Two()  # type: ignore[assignment, return-value]
    guesses = search._guesses(replace(KNOWN, space=replace(SPACE, interpolations=filters)))
    assert guesses is not None
    assert guesses.interpolation == guessed
