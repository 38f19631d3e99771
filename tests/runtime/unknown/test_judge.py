"""What is called unknown: at the rate that was asked for, in every place where answers are given."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetl.bundle.archive import open_bundle
from edgetl.bundle.pack import pack
from edgetl.errors import BundleError, ConfigError
from edgetl.records.codec import to_json
from edgetl.records.unknown import ScoreName
from edgetl.runtime import load
from edgetl.runtime.inputs import ImageResult, open_source, predict_all
from edgetl.runtime.unknown.judge import check, normal, usual
from edgetl.tasks.classification.answers import Prediction
from edgetl.tasks.conformal import MOST
from edgetl.tasks.multihead.answers import HeadsPrediction
from edgetl.tasks.multilabel.answers import TagsPrediction
from tests.bundles import contents, picture
from tests.cli.typed import edgetl
from tests.references import with_references
from tests.squares import write_bundle


@pytest.mark.parametrize(("count", "rate"), [(39, 0.05), (400, 0.01), (5000, 0.1)])
def test_known_images_are_called_unknown_as_often_as_asked(count: int, rate: float) -> None:
    generator, shares = np.random.default_rng(0), []
    for _ in range(200):
        kept = normal(generator.normal(size=count))
        assert len(kept.ranked) == min(count, MOST)
        shares.append(float((usual(kept, generator.normal(size=200)) <= rate).mean()))
    assert np.mean(shares) == pytest.approx(rate, rel=0.12)


def test_the_share_counts_what_is_at_least_as_strange() -> None:
    kept = normal(np.arange(9.0))
    np.testing.assert_allclose(usual(kept, np.array([-1.0, 0.0, 7.5, 8.0, 9.0])), [1.0, 1.0, 0.2, 0.2, 0.1])


def test_too_low_a_rate_says_how_many_images_it_needs() -> None:
    check(0.05, 19, "x")
    with pytest.raises(
        ConfigError,
        match=r"^unknown: a false alarm rate of 0\.01 needs 99 validation images, and b\.edgetl was made with 40, which"
        r" allow 0\.0244 and more; ask for more, or train with a larger validation split\.$",
    ):
        check(0.01, 40, "b.edgetl")
    for rate in (0.0, 1.0, -1.0, 5.0):
        with pytest.raises(
            ConfigError, match=rf"^unknown: got {rate:g}, expected a share above 0 and below 1, as 0\.05"
        ):
            check(rate, 40, "x")


@pytest.fixture(scope="module", params=list(ScoreName))
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unknown")
    pack(with_references(contents(folder), request.param), folder / "b.edgetl")
    open_bundle(folder / "b.edgetl").verify()
    return folder / "b.edgetl"


STRANGE = Image.new("RGB", (48, 40), (0, 255, 0))


@pytest.mark.parametrize("variant", ["fp32", "int8-cpu-x86"])
def test_a_strange_picture_is_unknown_and_a_known_one_is_not(bundle: Path, variant: str) -> None:
    with load(bundle, variant=variant, threads=1) as session:
        plain = session.predict(STRANGE)
        assert (plain.unknown, plain.usual) == (None, None)
        assert "unknown" not in json.dumps(to_json(plain))
        known = [picture(500 + at) for at in range(60)]
        found = session.predict(known, unknown=0.1)
        assert sum(bool(one.unknown) for one in found) <= 15
        single = session.predict(known[0], unknown=0.1)
        assert single.usual == pytest.approx(found[0].usual, abs=0.05)
        explained = session.predict(known[0], unknown=0.1, explain=True)
        assert explained.prediction.unknown == found[0].unknown
        score = session.variant.unknown.score
        if score in (ScoreName.NEIGHBOURS, ScoreName.LOOKS):
            strange = session.predict(STRANGE, unknown=0.05)
            assert strange.unknown
            assert strange.usual == pytest.approx(1 / 41)
            assert (strange.label, strange.score) == (plain.label, plain.score)
            assert strange.text.startswith(f"unknown, nearest to {plain.label}")
        assert session.telling(0.1) is (session.with_features() if score.by_features else session)


def test_results_say_so_in_json_and_in_the_table(tmp_path: Path) -> None:
    pack(with_references(contents(tmp_path)), tmp_path / "b.edgetl")
    STRANGE.save(tmp_path / "strange.png")
    (tmp_path / "known.png").write_bytes(picture(501))
    names = [str(tmp_path / "known.png"), str(tmp_path / "strange.png")]
    with load(tmp_path / "b.edgetl", threads=1) as session:
        results = list(predict_all(session, open_source(names), unknown=0.05, save=tmp_path / "drawn"))
    assert [
        isinstance(one, ImageResult) and one.prediction and one.prediction.unknown for one in results
    ] == [
        False,
        True,
    ]
    told = edgetl("predict", str(tmp_path / "b.edgetl"), *names, "--unknown", "0.05", "--json")
    values = json.loads(told.stdout)
    assert [one["prediction"]["unknown"] for one in values] == [False, True]
    assert values[1]["prediction"]["usual"] == pytest.approx(1 / 41)
    shown = edgetl("predict", str(tmp_path / "b.edgetl"), *names, "--unknown", "0.05").stdout
    assert "as strange" in shown
    assert "unknown, nearest to" in shown
    assert "2.4%" in shown
    assert "as strange" not in edgetl("predict", str(tmp_path / "b.edgetl"), *names).stdout
    assert "by neighbours; --unknown from 0.0244" in edgetl("info", str(tmp_path / "b.edgetl")).stdout


def test_tags_and_heads_say_so_too() -> None:
    one = Prediction(label="a", index=0, score=0.5, top=())
    assert dataclasses.replace(one, unknown=True).text == "unknown, nearest to a 50.0%"
    assert dataclasses.replace(one, unknown=False).text == one.text
    assert TagsPrediction(tags=(), top=(), unknown=True).text == "unknown, nearest to none"
    assert HeadsPrediction(heads={"kind": one}, unknown=True).text == "unknown, nearest to kind: a 50.0%"


def test_older_bundles_and_boxes_say_what_to_do(tmp_path: Path) -> None:
    pack(contents(tmp_path), tmp_path / "old.edgetl")
    with (
        load(tmp_path / "old.edgetl", threads=1) as session,
        pytest.raises(
            BundleError,
            match=r"^unknown: .*old\.edgetl was made before bundles could tell unknown images, or its variant fp32 was"
            r" added to it; make it again with: edgetl run RECIPE$",
        ),
    ):
        session.predict(STRANGE, unknown=0.05)
    with (
        load(write_bundle(tmp_path / "boxes.edgetl"), threads=1) as session,
        pytest.raises(ConfigError, match=r"^unknown: the bundle is of the task detection"),
    ):
        session.predict(STRANGE, unknown=0.05)
