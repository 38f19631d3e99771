"""Whatever is kept, written by two real processes at once: whole at every moment, and nothing of either is lost."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgetl.bundle.archive import open_bundle
from edgetl.bundle.pack import pack
from edgetl.data import builtin, calibration
from edgetl.data.calibration import CalibrationImage, CalibrationSet
from edgetl.data.index import Sample, build_index
from edgetl.data.pixels import open_pixels
from edgetl.export.tensorrt import cache
from edgetl.export.tensorrt.builder import BuiltEngine
from edgetl.export.tensorrt.options import BuildOptions, EngineTarget
from edgetl.files import sha256_bytes, sha256_file
from edgetl.gate import baseline
from edgetl.history.store import append, runs_by_subject
from edgetl.inputs.image import PreprocessSpec
from edgetl.progress import SILENT
from edgetl.records.variants import EngineRecord
from edgetl.runtime import tuned
from edgetl.runtime.targets import Choice, EngineName, tuned_path
from tests.bundles import contents
from tests.cli.typed import edgetl
from tests.gate.test_compare import figures
from tests.history.records import record
from tests.images import write_set

TIMES = 12


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles of different content and length, and images."""
    folder = tmp_path_factory.mktemp("two")
    for number in (1, 2):
        pack(contents(folder, images=2 + number), folder / f"{number}.edgetl")
    write_set(folder / "images", {"train": 4, "val": 2})
    return folder


@dataclass(frozen=True)
class Case:
    """What each process does, and what must be true afterwards, given what the two returned."""

    work: Callable[[Path, int], Any]
    check: Callable[[Path, list[Any]], None]


def _nothing_more(folder: Path, answers: list[Any]) -> None:
    """What counts was checked in the processes."""


def _tuned(folder: Path, number: int) -> None:
    bundle = open_bundle(folder / "1.edgetl")
    for turn in range(TIMES):
        winner = tuned.Winner(
            variant="fp32",
            target=EngineName.CPU,
            reason="fastest",
            date="2026-11-24",
            machine=tuned.this_machine(),
            versions=tuned.engine_versions(),
        )
        tuned.keep(bundle, 2 * turn + number, winner)


def _all_tuned(folder: Path, answers: list[Any]) -> None:
    bundle = open_bundle(folder / "1.edgetl")
    for threads in range(1, 2 * TIMES + 1):
        assert isinstance(tuned.recall(tuned_path(bundle), bundle, threads), Choice), threads


def _engines(folder: Path, number: int) -> None:
    key = cache.EngineKey.of(b"onnx", BuildOptions(target=EngineTarget.TENSORRT), "10.14", None)
    content = b"engine" * 1000 * number
    built = EngineRecord(
        target="tensorrt",
        compute_capabilities=(),
        tensorrt_version="10.14",
        batch=(1, 1, 8),
        size_bytes=len(content),
        sha256=sha256_bytes(content),
        seconds=1.0,
    )
    said: list[str] = []
    for _ in range(TIMES):
        cache.store(key, BuiltEngine(content, built))
        assert cache.load(key, said.append) is not None
    assert said == []


def _history(folder: Path, number: int) -> None:
    for _ in range(TIMES):
        append(folder / "history.db", record(float(number)), commit="")


def _all_history(folder: Path, answers: list[Any]) -> None:
    assert [len(runs) for runs in runs_by_subject(folder / "history.db").values()] == [2 * TIMES]


def _baseline(folder: Path, number: int) -> None:
    path = folder / "baseline.json"
    for _ in range(TIMES):
        figures(size_bytes=10**number).save(path)
        assert baseline.load(path).size_bytes in (10, 100)


def _builtin(folder: Path, number: int) -> None:
    def images(_: Path) -> Iterator[tuple[str, Image.Image]]:
        for at in range(20):
            yield f"{at % 2}/{at}.png", Image.new("L", (8, 8), at)

    for turn in range(TIMES):
        target = folder / "sets" / str(turn)
        builtin._write_folder(target, images)
        assert len(list(target.glob("*/*.png"))) == 20


def _no_leftovers(folder: Path, answers: list[Any]) -> None:
    assert len(list((folder / "sets").iterdir())) == TIMES


def _calibration(folder: Path, number: int) -> None:
    """Two sets whose copies have the same names."""
    own = folder / f"own{number}"
    own.mkdir()
    samples = []
    for at in range(4):
        path = own / f"{at}.png"
        Image.new("L", (8, 8), 100 * number + at).save(path)
        samples.append(CalibrationImage(path=path, sha256=sha256_file(path), label="a"))
    drawn = CalibrationSet(samples=tuple(samples), seed=number, requested=4, index_sha256="")
    for _ in range(TIMES):
        calibration.save_portable(drawn, folder / "set.json")


def _whole_calibration(folder: Path, answers: list[Any]) -> None:
    assert len(calibration.load(folder / "set.json").samples) == 4


def _samples(folder: Path) -> list[Sample]:
    from edgetl.config import parse

    data = parse({"data": {"source": str(folder / "images")}}).data
    return list(build_index(data, seed=0, progress=SILENT).samples)


def _pixels(folder: Path, number: int) -> int:
    samples = _samples(folder)
    return sum(
        int(open_pixels(samples, PreprocessSpec(size=size), folder / "cache").sum(dtype=np.int64))
        for size in range(16, 16 + TIMES)
    )


def _features(folder: Path, number: int) -> float:
    """A network's features, which several trials of a head share."""
    from edgetl.inputs.image import PreprocessSpec
    from edgetl.models import backbones
    from edgetl.models.backbones import classifier_names
    from edgetl.train.augment import Augment
    from edgetl.train.features import compute
    from edgetl.train.sets import PixelSet

    model = backbones.create("test_resnet", 2, "none", seed=1)
    pixels = np.arange(6 * 32 * 32 * 3, dtype=np.int64).astype(np.uint8).reshape(6, 32, 32, 3)
    data = PixelSet(pixels, np.arange(6) % 2, PreprocessSpec(size=32))
    found = [
        compute(model, classifier_names(model), data, folder / "cache", views=views, augment=Augment.NONE)
        for views in (1, 2, 3)
    ]
    return float(sum(np.abs(each.features).sum() for each in found))


def _same(folder: Path, answers: list[Any]) -> None:
    assert answers[0] == answers[1]


def _init(folder: Path, number: int) -> list[tuple[int, str]]:
    return [
        (done.returncode, done.stderr)
        for done in (
            edgetl("init", folder / "images", "-o", folder / f"recipe{turn}.toml") for turn in range(3)
        )
    ]


def _one_wrote(folder: Path, answers: list[Any]) -> None:
    for turn, both in enumerate(zip(*answers, strict=True)):
        (first, _), (second, said) = sorted(both)
        assert (first, second) == (0, 2)
        path = folder / f"recipe{turn}.toml"
        assert f"{path} is there already; overwrite it with --force" in said
        assert "[data]" in path.read_text(encoding="utf-8")


def _bundle(folder: Path, number: int) -> None:
    """Each opens and reads while the other puts another bundle in its place."""
    path, own = folder / "model.edgetl", folder / f"next{number}"
    for turn in range(10 * TIMES):
        shutil.copyfile(folder / f"{1 + (turn + number) % 2}.edgetl", own)
        own.replace(path)
        bundle = open_bundle(path)
        bundle.verify()
        assert bundle.sha256() in {sha256_file(folder / f"{which}.edgetl") for which in (1, 2)}


CASES = {
    "what tune keeps": Case(_tuned, _all_tuned),
    "kept engines": Case(_engines, _nothing_more),
    "the history": Case(_history, _all_history),
    "a baseline": Case(_baseline, _nothing_more),
    "a built-in set": Case(_builtin, _no_leftovers),
    "a calibration manifest": Case(_calibration, _whole_calibration),
    "decoded pixels": Case(_pixels, _same),
    "features": Case(_features, _same),
    "a recipe": Case(_init, _one_wrote),
    "a bundle that is replaced": Case(_bundle, _nothing_more),
}

_together: list[Any] = []


def _begin(barrier: Any) -> None:
    _together.append(barrier)


def _run(name: str, folder: Path, number: int) -> Any:
    os.environ["EDGETL_CACHE"] = str(folder / "cache")
    _together[0].wait(60)  # each process takes one of the two
    return CASES[name].work(folder, number)


@pytest.fixture(scope="module")
def processes() -> Iterator[Any]:
    context = multiprocessing.get_context("spawn")
    with context.Pool(2, _begin, (context.Barrier(2),)) as pool:
        yield pool
        pool.close()
        pool.join()


@pytest.mark.parametrize(
    "name",
    # Both processes import torch for the features alone.
    [pytest.param(name, marks=pytest.mark.slow if name == "features" else ()) for name in CASES],
)
def test_two_processes_at_once(
    name: str, place: Path, processes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for what in ("1.edgetl", "2.edgetl", "images"):
        (tmp_path / what).symlink_to(place / what)
    monkeypatch.setenv("EDGETL_CACHE", str(tmp_path / "cache"))
    answers = processes.starmap(_run, [(name, tmp_path, number) for number in (1, 2)], chunksize=1)
    CASES[name].check(tmp_path, answers)
    assert [p.name for p in tmp_path.rglob("*.tmp")] == []
