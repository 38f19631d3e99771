"""What a trial decides by: variants, budgets, the latency table, shared stages."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="optuna is not installed: pip install optuna")

import optuna

from edgetl import config
from edgetl.errors import ConfigError, StorageError
from edgetl.inputs.image import Interpolation
from edgetl.progress import SILENT
from edgetl.records.codec import to_json
from edgetl.records.scores import Score
from edgetl.records.search import Choice, SearchBudget, TimedVariant, TrialState
from edgetl.search import trials
from edgetl.search.prepare import _check_floor
from edgetl.search.quiet import Quiet
from edgetl.search.settings import SearchConfig, check
from edgetl.search.space import Space
from edgetl.search.trials import (
    OverBudget,
    TooNarrow,
    Trials,
    best_variant,
    budget_problems,
    link_stages,
    records,
    table_of,
)
from edgetl.search.widths import AIM
from tests.search.records import CHOICE

FLOAT = TimedVariant(precision="fp32", ms=1.0, threads=2, size_bytes=2_000_000)
INT8 = TimedVariant(precision="int8", ms=1.5, threads=1, size_bytes=600_000)


def test_the_fastest_variant_that_is_small_enough_counts() -> None:
    assert best_variant((FLOAT, INT8), SearchBudget(latency_ms=9)) == FLOAT
    assert best_variant((FLOAT, INT8), SearchBudget(latency_ms=9, size_mb=1)) == INT8
    assert best_variant((FLOAT, INT8), SearchBudget(latency_ms=9, size_mb=0.1)) == INT8


def test_a_budget_says_by_what_it_is_missed() -> None:
    assert budget_problems(1.5, 600_000, SearchBudget(latency_ms=2, size_mb=1)) == []
    assert budget_problems(2.5, 600_000, SearchBudget(latency_ms=2, size_mb=0.5)) == [
        "2.5 ms, over 2 ms",
        "0.6 MB, over 0.5 MB",
    ]


def _finish(study: object, how: object, value: float | None = None, /, **attrs: object) -> None:
    study.add_trial(
        optuna.trial.create_trial(
            state=how,
            value=value,
            params={"share": 0.5},
            distributions={"share": optuna.distributions.FloatDistribution(0.1, 0.9)},
            user_attrs=attrs,
        )
    )


def test_trials_are_read_back_and_a_table_is_fitted_to_them() -> None:
    study = optuna.create_study(direction="maximize")
    choice = {"network": "teacher", "size": 64, "share": 0.5, "interpolation": "bicubic"}
    done, pruned = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED
    for number in range(1, 10):
        assert (table_of(study) is None) is (number < 9)
        variant = {"precision": "int8", "ms": 0.1 + 0.2 * number, "threads": 1, "size_bytes": 10}
        _finish(study, done, 0.9, choice=choice, variant=variant, work=[number * 1e6, 0.0, number, number])
    table = table_of(study)
    assert table is not None
    assert table.of_work([5e6, 0.0, 5, 5]) == pytest.approx(1.1, rel=0.02)
    _finish(study, pruned, choice=choice, score=0.5, why="worse than others after 2 epochs", epochs=2)
    _finish(study, pruned, choice=choice, state="over_budget", why="9 ms, over 1 ms", predicted_ms=9.0)
    _finish(study, pruned, choice=choice, state="impossible", why="It cannot be cut.")
    _finish(study, pruned)  # of a worker that ended before it said what it tries
    found = records(study)
    assert [one.state for one in found[8:]] == [
        TrialState.TRAINED,
        TrialState.STOPPED,
        TrialState.OVER_BUDGET,
        TrialState.IMPOSSIBLE,
    ]
    assert (found[-2].ms, found[-2].score, found[9].score) == (9.0, None, 0.5)


class _Any:
    """Networks that can have any width up to 95%."""

    def within(self, _: Choice, share: float) -> float:
        return min(share, 0.95)


def _trials(*, nudges: bool = True) -> Trials:
    return Trials(
        recipe=config.parse({}),
        base=lambda _: Path(),
        space=Space(
            networks=("teacher",),
            sizes=(64,),
            depths=(0.0,),
            interpolations=(Interpolation.BICUBIC,),
            least=0.02,
        ),
        budget=SearchBudget(latency_ms=1.0),
        epochs=1,
        metric="top1",
        networks=lambda _: _Any(),  # type: ignore[arg-type, return-value]
        clock=None,  # type: ignore[arg-type]
        quiet=Quiet(None),
        power=0.5,
        folder=Path(),
        worker="one",
        late=lambda: False,
        nudges=nudges,
        progress=SILENT,
    )


def _timed(trials: Trials, study: optuna.Study, share: float, ms: float) -> None:
    """A candidate that is timed, and nothing else."""
    trial, choice = study.ask(), replace(CHOICE, share=share)
    trial.set_user_attr("choice", to_json(choice))
    try:
        trials._wider(trial, choice)
        trials._timed(trial, choice, [replace(INT8, ms=ms)])
    except (OverBudget, TooNarrow) as refused:
        trial.set_user_attr("state", refused.state)
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    else:
        study.tell(trial, 0.9)


def _queued(study: optuna.Study) -> list[float]:
    waiting = study.get_trials(states=(optuna.trial.TrialState.WAITING,))
    return [one.system_attrs["fixed_params"]["share"] for one in waiting]


def test_a_candidate_that_misses_the_budget_has_its_width_corrected() -> None:
    study, trials = optuna.create_study(direction="maximize"), _trials()
    _timed(trials, study, 0.4, 2.0)
    assert _queued(study) == pytest.approx([0.4 * (AIM / 2) ** 2]), "by the usual power"
    _timed(trials, study, 0.1, 0.5)
    line = 0.1 * (AIM / 0.5) ** 1  # from 0.1 to 0.4 of the multiply-accumulates the time grew as they did
    assert _queued(study) == pytest.approx([line]), "by the line through both"
    _timed(trials, study, 0.19, 0.9)
    assert _queued(study) == [], "it is near the budget"


@pytest.mark.parametrize(("ms", "refused"), [(1.01, False), (1.19, False), (1.3, True)])
def test_the_first_timing_refuses_only_what_is_far_above_the_budget(ms: float, refused: bool) -> None:
    study, trials = optuna.create_study(direction="maximize"), _trials()
    trial = study.ask()
    trial.set_user_attr("choice", to_json(CHOICE))
    variants = [replace(INT8, ms=ms)]
    with pytest.raises(OverBudget) if refused else nullcontext():
        trials._timed(trial, CHOICE, variants, rough=True)
    assert bool(_queued(study)) is refused
    with pytest.raises(OverBudget, match="over 1 ms"):
        trials._timed(trial, CHOICE, variants)


@pytest.mark.parametrize("rough", [True, False])
def test_a_wider_one_is_tried_in_place_of_what_leaves_much_of_the_budget(rough: bool) -> None:
    study, trials = optuna.create_study(direction="maximize"), _trials()
    trial, variants = study.ask(), [replace(INT8, ms=0.6)]
    with pytest.raises(TooNarrow, match=r"^well within 1 ms, so 60\.1% is tried in its place$"):
        trials._timed(trial, replace(CHOICE, share=0.25), variants, rough=rough)
    assert _queued(study) == pytest.approx([0.25 * (AIM / 0.6) ** 2], rel=1e-2)
    study = optuna.create_study(direction="maximize")
    _trials(nudges=False)._timed(study.ask(), replace(CHOICE, share=0.25), variants, rough=rough)
    trials.budget = SearchBudget(latency_ms=1.0, size_mb=0.65)
    trials._timed(study.ask(), replace(CHOICE, share=0.25), variants, rough=rough)  # its file has no room
    assert _queued(study) == []


def test_one_is_tried_near_what_was_too_narrow_to_learn() -> None:
    study, trials = optuna.create_study(direction="maximize"), _trials()
    _timed(trials, study, 0.4, 0.82)
    _timed(trials, study, 0.6, 1.25)
    assert _queued(study)[-1] == pytest.approx(0.449, rel=1e-2)


def test_the_widest_candidate_learns_however_fast_it_is() -> None:
    study, trials = optuna.create_study(direction="maximize"), _trials()
    trials._timed(study.ask(), replace(CHOICE, share=0.95), [replace(INT8, ms=0.1)])
    assert _queued(study) == []


def test_a_candidate_learns_once_its_width_was_corrected_often() -> None:
    study, trials = optuna.create_study(direction="maximize"), _trials()
    for share in (0.01, 0.02, 0.04):
        _timed(trials, study, share, 0.1)
    trials._timed(study.ask(), replace(CHOICE, share=0.08), [replace(INT8, ms=0.1)])


def test_a_file_that_is_too_large_is_refused_at_once() -> None:
    study, trials = optuna.create_study(direction="maximize"), _trials()
    trials.budget = SearchBudget(latency_ms=1.0, size_mb=0.1)
    with pytest.raises(OverBudget, match=r"^0\.6 MB, over 0\.1 MB$"):
        trials._timed(study.ask(), CHOICE, [replace(INT8, ms=0.9)], rough=True)


def test_a_random_search_corrects_nothing() -> None:
    study = optuna.create_study(direction="maximize")
    _timed(_trials(nudges=False), study, 0.4, 2.0)
    assert _queued(study) == []


def test_none_is_timed_that_is_wider_than_one_over_the_budget() -> None:
    study, trials = optuna.create_study(direction="maximize"), _trials()
    _timed(trials, study, 0.4, 2.0)
    wider, narrower = replace(CHOICE, share=0.5), replace(CHOICE, share=0.3)
    with pytest.raises(OverBudget, match=r"^wider than trial 0, which took 2 ms, over 1 ms$"):
        trials._wider(study.ask(), wider)
    trials._wider(study.ask(), narrower)
    trials._wider(study.ask(), replace(wider, size=48))
    impossible = {"choice": to_json(replace(CHOICE, share=0.2)), "variant": to_json(replace(INT8, ms=1.1))}
    _finish(study, optuna.trial.TrialState.PRUNED, **impossible, state="impossible")
    trials._wider(study.ask(), narrower)


def test_a_trial_finds_the_stages_that_all_share(tmp_path: Path) -> None:
    base, folder = tmp_path / "run", tmp_path / "trials" / "one"
    for name in ("data", "train", "prune", "distill", "calibration"):
        (base / name).mkdir(parents=True)
    (base / "data" / "index.json").write_text("{}")
    (base / "recipe.lock.toml").touch()
    link_stages(base, folder)
    link_stages(base, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["data", "train"]
    assert (folder / "data" / "index.json").read_text() == "{}"
    (tmp_path / "run").rename(tmp_path / "moved")
    assert not (folder / "data").exists()


def test_a_file_system_without_links_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    (tmp_path / "run" / "data").mkdir(parents=True)
    monkeypatch.setattr(trials.Path, "symlink_to", refuse)
    with pytest.raises(StorageError, match="by symbolic links: name a folder with --out"):
        link_stages(tmp_path / "run", tmp_path / "trial")


def test_figures_out_of_range_are_refused_together() -> None:
    with pytest.raises(ConfigError) as caught:
        check(SearchConfig(latency_ms=-1, floor=95, minutes=0, trials=0, workers=0, depths=(0.5, 2.0)))
    assert caught.value.problems == (
        "--latency-ms: got -1, expected a number above 0.",
        "--minutes: got 0, expected a number above 0.",
        "--floor: got 95, expected a score above 0 and at most 1, as in 0.95.",
        "--trials: got 0, expected 1 or more.",
        "--workers: got 0, expected 1 or more.",
        "--depths: got 2, expected shares from 0 to 1, as in 0,0.5.",
    )


def test_a_floor_above_what_the_teacher_may_reach() -> None:
    teacher = Score(value=0.9, low=0.85, high=0.94)
    _check_floor(0.94, teacher, "top1")
    _check_floor(None, teacher, "top1")
    with pytest.raises(ConfigError) as caught:
        _check_floor(0.95, teacher, "top1")
    assert str(caught.value) == (
        "--floor 0.95 is above what the teacher may reach: its top-1 on the validation split is 90.0% (95% interval"
        " 85.0% to 94.0%). Lower the floor, or train a better teacher first: edgetl finetune."
    )
