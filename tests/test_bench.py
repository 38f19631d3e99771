"""The benchmarks' runner: every family is found, and a claim says whether it holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.bench import backbone_choice, cascade, claims, gate_power, sound
from tests.bench.__main__ import families, main
from tests.bench.claims import Claim, at_least, at_most
from tests.cascade.bundles import record
from tests.transfer.rankings import ranking


def test_a_claim_s_line() -> None:
    assert at_most("start", 1.5, 2, "x").line() == "start | 1.5x | <= 2x | holds"
    assert at_least("ratio", 9.96, 10, "x").line() == "ratio | 9.96x | >= 10x | falls short"
    assert Claim(name="note", measured="3 ms").line() == "note | 3 ms | - | -"


def test_every_family_is_found_and_can_run() -> None:
    from importlib import import_module

    assert {"start-up", "main-job", "predict-overhead"} <= set(families())
    for name in families():
        assert callable(import_module(f"tests.bench.{name.replace('-', '_')}").run)


def test_an_unknown_family_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("speed") == 2
    stated = capsys.readouterr().err
    assert stated.startswith("no benchmark named speed; there are: ")
    assert "main-job" in stated


def test_figures_are_kept_with_machine_and_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    monkeypatch.setattr(claims, "HISTORY", tmp_path / "bench.json")
    claims.keep("start-up", [at_most("start", 1.5, 2, "x")])
    claims.keep("start-up", [at_most("start", 2.5, 2, "x")])
    kept = json.loads((tmp_path / "bench.json").read_text())
    assert [entry["claims"][0]["holds"] for entry in kept] == [True, False]
    assert kept[0]["machine"]["cores"] >= 1
    assert "commit" in kept[0]


def _trace(slower: float, rounds: int = 400) -> gate_power.Trace:
    """A machine that drifts; the base, and four candidates that are all `slower`."""
    generator = np.random.default_rng(0)
    level = np.exp(np.cumsum(generator.normal(0, 0.01, (rounds, 1, 1)), axis=0))
    speed = 3 * np.array([1, *4 * [1 + slower]])[:, None]
    calls_ms = speed * level * generator.lognormal(0, 0.03, (rounds, 5, 20))
    return gate_power.Trace(calls_ms=calls_ms, block_s=np.full((rounds, 5), 0.15), seconds=600.0)


def test_a_trace_is_replayed_as_the_gate_meets_it() -> None:
    equal = [claim.line() for claim in gate_power.replay(_trace(0.0), 20, busy=0)]
    assert equal[0] == "trace, 0 busy processes | 600 s, 400 rounds, base 3.01 ms, limit 2.5% | - | -"
    named = "replayed, 0 busy, slower by 0% (+0.11% over the trace): "
    assert f"{named}fails it, 0 of 20 (95% interval 0.0% to 16.1%) | 0% | <= 1% | holds" in equal
    assert f"{named}cannot tell | 0 of 20 (95% interval 0.0% to 16.1%) | - | -" in equal
    [naive] = [line for line in equal if line.startswith(f"{named}naive gate fails it | ")]
    assert "| 0 of 20" not in naive
    slow = [claim.line() for claim in gate_power.replay(_trace(0.05), 20, busy=0)]
    assert [line.rpartition(" | ")[2] for line in slow if "fails it, 20 of 20" in line] == [
        "falls short",
        "holds",
        "holds",
    ]


def test_a_gate_that_cannot_tell_has_no_time() -> None:
    lines = [claim.line() for claim in gate_power.replay(_trace(0.0, rounds=15), 5, busy=0)]
    assert any(": cannot tell | 5 of 5" in line for line in lines)
    assert any(
        "median time to the verdict, warm-up included | inf s | <= 20 s | falls short" in line
        for line in lines
    )


def test_segments_make_one_trace(tmp_path: Path) -> None:
    for number in (1, 0):
        np.savez_compressed(
            tmp_path / f"{number:04}.npz",
            calls_ms=np.full((3, 5, 20), number + 1.0),
            block_s=np.ones((3, 5)),
            seconds=60.0,
        )
    trace = gate_power.Trace.load(tmp_path)
    assert (trace.calls_ms[:, 0, 0].tolist(), trace.seconds) == ([1.0] * 3 + [2.0] * 3, 120.0)


def test_a_ranking_is_judged_by_what_fine_tuning_gave() -> None:
    shares = (0.97, 0.96, 0.91, 0.92)
    tuned = [
        backbone_choice.Tuned(origin="pretrained", scores=(share, share), val=(share, share), minutes=5.0)
        for share in shares
    ]
    lines = [claim.line() for claim in backbone_choice.judged(ranking(), tuned, [(0, 2), (0, 3), (3, 2)])]
    subject = "photos <1>, 4 backbones"
    assert lines[0].startswith(
        "photos <1>: large, pretrained | probe 96.0%, LogME 0.480, fine-tuned 97.00% and 97.00%, 5.0 min"
    )
    assert f"{subject}: Kendall's tau of probe and fine-tuned top1 | 0.667 | >= 0.6 | holds" in lines
    order = "of the pairs that the test images tell apart, in the probe's order"
    assert f"{subject}: {order} | 2 of 3 (6 pairs) | - | -" in lines
    assert f"{subject}: points of the proposed one behind the best | 1.00 | - | -" in lines
    assert f"{subject}: minutes saved over fine-tuning all of them | 19 min | >= 0 min | holds" in lines


def test_alarms_in_a_stream_are_right_where_they_meet_a_word_of_their_label() -> None:
    words = [sound.Word(label="one", start=1.0, end=1.4), sound.Word(label="two", start=3.0, end=3.4)]
    quiet = [(at / 4, "one", 0.5) for at in range(16)]
    assert sound.judged(quiet, words, 1.0) == (0, 0)
    once = [(0.5, "one", 0.99), (0.75, "one", 0.97), (1.0, "one", 0.96), (1.25, "two", 0.9)]
    assert sound.judged(once, words, 1.0) == (1, 0)
    confused = [(0.5, "one", 0.99), (0.75, "two", 0.99), (1.5, "one", 0.99), (2.5, "two", 0.99)]
    assert sound.judged(confused, words, 1.0) == (2, 2)
    assert sound.judged([], words, 1.0) == (0, 0)


def test_a_cascade_is_judged_by_a_paired_test_and_the_mean() -> None:
    found = record(lost=6, won=2, p_value=0.29)
    lines = [claim.line() for claim in (*cascade.judged(found), *cascade.timed(found))]
    paired = "not worse than the larger one (McNemar's exact test)"
    assert lines[1] == f"{paired} | 6 lost, 2 won, p = 0.29 | p >= 0.05, or more won | holds"
    assert lines[3].endswith(": mean latency over the larger one's | 0.5x | <= 0.6x | holds")
    assert lines[4].endswith("| 1 and 3 ms; the larger one's 2 and 3 ms | - | -")
    worse = [claim.line() for claim in cascade.judged(record(lost=20, won=2, p_value=0.0001))]
    assert worse[1].endswith("| falls short")
