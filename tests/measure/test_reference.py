"""What a variant makes of known images is what a session gives for them, in float and in INT8."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgetl.bundle.archive import open_bundle
from edgetl.bundle.pack import pack
from edgetl.bundle.reference import Reference, decode, room
from edgetl.config import DataConfig
from edgetl.data.index import DataIndex, build_index
from edgetl.inputs.looks import LOOKS, PIXELS
from edgetl.measure import reference
from edgetl.measure.candidates import CandidateModel
from edgetl.measure.far import KINDS
from edgetl.measure.reference import Known, ReferenceInputs, run
from edgetl.progress import SilentProgress
from edgetl.runtime import load
from edgetl.runtime.features import EMBEDDING
from tests.bundles import SPEC, contents
from tests.images import write_set
from tests.onnx_models import classifier, colours


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> DataIndex:
    source = write_set(tmp_path_factory.mktemp("set"), {"train": 6, "val": 5, "test": 1})
    return build_index(DataConfig(source=str(source)), seed=0)


def inputs_of(folder: Path, index: DataIndex, models: dict[str, tuple[str, bytes]]) -> ReferenceInputs:
    candidates = []
    for name, (target, content) in models.items():
        (folder / f"{name}.onnx").write_bytes(content)
        candidates.append(
            CandidateModel(name=name, precision=name[:4], target=target, onnx=folder / f"{name}.onnx")
        )
    return ReferenceInputs(
        candidates=tuple(candidates),
        index=index,
        spec=SPEC,
        pixels_dir=folder / "pixels",
        seed=0,
        threads=1,
    )


BOTH = {"fp32": ("any", classifier()), "int8": ("cpu-arm", classifier(zero_point=0))}


@pytest.fixture(scope="module")
def known(index: DataIndex, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Known], Path]:
    folder = tmp_path_factory.mktemp("run")
    return run(inputs_of(folder, index, BOTH), out=folder / "out"), folder / "out"


def test_it_holds_all_of_a_small_set(known: tuple[dict[str, Known], Path], index: DataIndex) -> None:
    found, out = known
    assert set(found) == set(BOTH)
    for name, one in found.items():
        assert one.features is not None
        assert one.features.weights["logits"].shape == (3, 8)
        kept = one.features.reference
        again = decode((out / f"{name}.npz").read_bytes(), index.task, "x")
        assert (again.embeddings == kept.embeddings).all()
        assert kept.embeddings.shape == (18, 8)
        assert kept.validation.shape == (15, 8)
        assert kept.counts.tolist() == [6, 6, 6]
        for at in range(3):
            own = kept.embeddings[kept.classes == at].mean(axis=0)
            np.testing.assert_allclose(kept.means[at], own, rtol=2e-3)
        np.testing.assert_allclose(one.validation[EMBEDDING], kept.validation, rtol=2e-3)
        assert one.test is not None
        assert one.test[EMBEDDING].shape == (3, 8)
        assert {kind: len(shown[EMBEDDING]) for kind, shown in one.far.items()} == dict.fromkeys(KINDS, 15)
        for seen, count in ((kept.looks, 18), (kept.validation_looks, 15), (one.test[PIXELS], 3)):
            assert seen.shape == (count, len(LOOKS))
        assert (again.looks == kept.looks).all()
        assert sorted(kept.validation_classes.tolist()) == [0] * 5 + [1] * 5 + [2] * 5


def test_equal_seeds_give_equal_files(
    known: tuple[dict[str, Known], Path], index: DataIndex, tmp_path: Path
) -> None:
    run(inputs_of(tmp_path, index, BOTH), out=tmp_path / "out")
    for name in BOTH:
        assert (tmp_path / "out" / f"{name}.npz").read_bytes() == (known[1] / f"{name}.npz").read_bytes()


def kept_of_float(folder: Path, index: DataIndex) -> Reference:
    features = run(inputs_of(folder, index, {"fp32": BOTH["fp32"]}), out=folder)["fp32"].features
    assert features is not None
    return features.reference


def test_few_are_drawn_evenly_and_means_are_of_all(
    index: DataIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgetl.bundle.reference.MOST_BYTES", 6 * 16)
    assert room(8) == 6
    monkeypatch.setattr(reference, "MOST_MEASURED", 9)
    kept = kept_of_float(tmp_path, index)
    assert np.bincount(kept.classes).tolist() == [2, 2, 2]
    assert kept.counts.tolist() == [3, 3, 3]
    assert len(kept.validation) == room(8, 12) == 3
    monkeypatch.setattr(reference, "MOST_BYTES", 40)
    kept = kept_of_float(tmp_path, index)
    assert kept.means.shape == (0, 8)


def test_a_network_without_features_is_named(index: DataIndex, tmp_path: Path) -> None:
    said = list[str]()

    class Listening(SilentProgress):
        def message(self, text: str) -> None:
            said.append(text)

    hidden = ("any", colours(SPEC.size, hidden=True))
    one = run(inputs_of(tmp_path, index, {"fp32": hidden}), out=tmp_path, progress=Listening())["fp32"]
    assert one.features is None
    assert set(one.validation) == {"logits", PIXELS}
    assert not list(tmp_path.glob("*.npz"))
    assert len(said) == 1
    assert said[0].startswith("fp32 keeps no known images. The network gives no class activation map: Relu")


@pytest.mark.parametrize("name", BOTH)
def test_a_session_gives_the_same_embeddings(
    name: str, known: tuple[dict[str, Known], Path], index: DataIndex, tmp_path: Path
) -> None:
    parts = contents(tmp_path)
    sources = [
        replace(one, reference=known[1] / f"{one.name[:4]}.npz", target="any") for one in parts.variants
    ]
    pack(replace(parts, variants=sources), tmp_path / "b.edgetl")
    open_bundle(tmp_path / "b.edgetl").verify()
    variant = next(one.name for one in parts.variants if one.name[:4] == name)
    with load(tmp_path / "b.edgetl", variant=variant, threads=1) as session:
        sample = index.split("val")[3]
        found = session.embedding(sample.path)
        assert found.shape == (8,)
        kept = session.known_images("unknown")
        gaps = np.abs(kept.validation - found).max(axis=1)
        assert gaps.argmin() == 3
        assert gaps[3] < 0.02 * np.abs(found).max()
        assert session.known_images("drift") is kept
        assert session.with_features() is session.with_features()


def test_a_tflite_file_is_asked_for_its_logits_alone(index: DataIndex, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install ai-edge-litert")
    from edgetl.export.litert.convert import to_tflite

    (tmp_path / "lite.onnx").write_bytes(classifier())
    (tmp_path / "lite.tflite").write_bytes(to_tflite(onnx.load_from_string(classifier())))
    inputs = inputs_of(tmp_path, index, {"fp32": BOTH["fp32"]})
    lite = CandidateModel(
        name="lite",
        precision="fp32",
        target="litert",
        onnx=tmp_path / "lite.onnx",
        tflite=tmp_path / "lite.tflite",
    )
    found = run(replace(inputs, candidates=(*inputs.candidates, lite)), out=tmp_path / "out")
    assert found["lite"].features is None
    np.testing.assert_allclose(
        found["lite"].validation["logits"], found["fp32"].validation["logits"], atol=1e-3
    )
    assert not (tmp_path / "out" / "lite.npz").exists()
