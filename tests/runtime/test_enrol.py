"""Adding a class to a bundle: what it answers, what stays, what is refused."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import edgetl
from edgetl.bundle import reference
from edgetl.bundle.archive import open_bundle
from edgetl.bundle.pack import Contents, pack
from edgetl.bundle.signature import make_keys, require_signature, sign
from edgetl.bundle.unknown import UnknownSource
from edgetl.cli import app
from edgetl.deploy import parity
from edgetl.errors import BundleError, BundleIntegrityError, ConfigError, ImageError, WeightsError
from edgetl.inputs.image import load_pixels, normalise
from edgetl.inputs.looks import PIXELS, looks
from edgetl.records.lineage import LineageStep
from edgetl.records.unknown import ScoreName
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.runtime.enrol import Enrolment, enrol, forget
from edgetl.runtime.features import EMBEDDING, MAP, embeddings, pooled_head
from edgetl.runtime.unknown.judge import normal
from edgetl.runtime.unknown.scores import Features, scorer
from edgetl.runtime.wire import with_outputs
from edgetl.tasks.base import Classification
from tests.bundles import SPEC, contents
from tests.onnx_models import colours
from tests.squares import write_bundle

COLOURS = {"red": (220, 40, 40), "green": (40, 220, 40), "blue": (40, 40, 220)}
YELLOW, CYAN = (200, 200, 30), (30, 200, 200)


def painted(colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (40, 40)) -> bytes:
    """A picture of a colour, more or less, with noise."""
    generator = np.random.default_rng(seed)
    middle = np.array(colour) + generator.normal(0, 12, 3)
    pixels = generator.normal(middle, 25, (size[1], size[0], 3)).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def files(folder: Path, count: int, seed: int = 0, colour: tuple[int, int, int] = YELLOW) -> list[Path]:
    """Pictures of different sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{at}.png" for at in range(count)]
    for at, path in enumerate(paths):
        path.write_bytes(painted(colour, 1000 * seed + at, (40 + 8 * at, 40)))
    return paths


def parts_of_colours(folder: Path, score: ScoreName = ScoreName.NEIGHBOURS) -> Contents:
    """A bundle of red, green and blue, with what both its variants make of known pictures."""
    parts, model = contents(folder), colours(SPEC.size)
    shown = with_outputs(model, pooled_head(model, ["logits"]).shown)
    encoded = [painted(colour, at) for at in range(30) for colour in COLOURS.values()]
    pixels = np.stack([load_pixels(content, SPEC) for content in (*encoded, *parts.golden.images)])
    with OnnxBackend(shown, threads=1) as backend:
        found = backend.run(normalise(pixels, SPEC))
    seen, logits = embeddings({MAP: found[MAP]}), found["logits"]
    classes, shown_looks = np.arange(90, dtype=np.int32) % 3, np.stack([looks(one) for one in pixels])
    kept = reference.Reference(
        embeddings=seen[:30],
        classes=classes[:30],
        means=np.stack([seen[:30][classes[:30] == at].mean(axis=0) for at in range(3)]),
        counts=np.full(3, 10, dtype=np.int32),
        validation=seen[30:90],
        validation_classes=classes[30:90],
        logits={"logits": logits[30:90]},
        looks=shown_looks[:30],
        validation_looks=shown_looks[30:90],
    )
    content = reference.encode(kept)
    features = Features(
        reference=reference.decode(content, Classification(labels=tuple(COLOURS)), "b"),
        weights=pooled_head(model, ["logits"]).weights,
    )
    own = scorer(score, Classification(labels=tuple(COLOURS)), features)
    fresh = {
        EMBEDDING: features.reference.validation,
        PIXELS: features.reference.validation_looks,
        **features.reference.logits,
    }
    judging = UnknownSource(score=score, normal=normal(own(fresh)))
    lineage = (LineageStep(kind="weights", name="none"), LineageStep(kind="train", name="paint", images=30))
    golden = {one.name: {"logits": logits[90:]} for one in parts.variants}
    return replace(
        parts,
        task=Classification(labels=tuple(COLOURS)),
        variants=[replace(one, model=model, reference=content, unknown=judging) for one in parts.variants],
        golden=replace(parts.golden, outputs=golden),
        provenance=replace(parts.provenance, lineage=lineage),
        splits={"train": ["a" * 64], "val": ["b" * 64], "test": []},
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    pack(parts_of_colours(folder), folder / "b.edgetl")
    return folder / "b.edgetl"


def test_an_added_class_looks_known_too(tmp_path: Path) -> None:
    pack(parts_of_colours(tmp_path, ScoreName.LOOKS), tmp_path / "b.edgetl")
    enrol(tmp_path / "b.edgetl", "yellow", files(tmp_path / "yellow", 5), tmp_path / "more.edgetl")
    for file, images in (("b", 30), ("more", 35)):
        bundle = open_bundle(tmp_path / f"{file}.edgetl")
        kept = reference.read(bundle, bundle.variant())
        assert kept is not None
        assert len(kept.looks) == len(kept.embeddings) == images
        assert len(kept.validation_looks) == len(kept.validation)
    with edgetl.load(tmp_path / "more.edgetl", threads=1) as session:
        found = session.predict(files(tmp_path / "yellow", 5), unknown=0.05)
        assert not any(one.unknown for one in found)


@pytest.fixture(scope="module")
def enrolled(made: Path) -> Path:
    enrol(made, "yellow", files(made.parent / "yellow", 5), made.parent / "more.edgetl")
    return made.parent / "more.edgetl"


def outputs(bundle: Path, variant: str, image: bytes) -> np.ndarray:
    with edgetl.load(bundle, variant=variant, threads=1) as session:
        return np.array(session.see(image).outputs["logits"])


def test_the_new_class_is_answered_and_the_known_logits_stay(made: Path, enrolled: Path) -> None:
    others = files(made.parent / "others", 4, seed=7)
    for variant in ("fp32", "int8-cpu-x86"):
        with edgetl.load(enrolled, variant=variant, threads=1) as session:
            assert session.labels == (*COLOURS, "yellow")
            assert [session.predict(path).label for path in others] == ["yellow"] * 4
            assert session.verify().passed
            assert [session.predict(painted(c, 300)).label for c in COLOURS.values()] == list(COLOURS)
        seen = painted(COLOURS["red"], 301)
        before, now = outputs(made, variant, seen), outputs(enrolled, variant, seen)
        assert np.array_equal(before, now[:, :3])
        assert now[0, 3] < before.max()


def test_a_map_of_an_added_class_says_where_it_is_seen(enrolled: Path, made: Path) -> None:
    with edgetl.load(enrolled, variant="fp32", threads=1) as session:
        shown = session.predict(files(made.parent / "more", 1, seed=9)[0], explain=True)
        assert shown.prediction.label == shown.maps[0].label == "yellow"
        assert np.isfinite(shown.maps[0].values).all()


def test_sets_of_labels_and_eval_know_the_class(enrolled: Path, tmp_path: Path) -> None:
    files(tmp_path / "yellow", 3, seed=5)
    (tmp_path / "red").mkdir()
    (tmp_path / "red" / "a.png").write_bytes(painted(COLOURS["red"], 50))
    done = CliRunner().invoke(app, ["eval", str(enrolled), str(tmp_path), "--variant", "fp32", "--json"])
    assert done.exit_code == 0, done.output
    recalls = {one["label"]: one["recall"] for one in json.loads(done.stdout)["detail"]["classes"]}
    assert recalls["yellow"] == 1.0
    assert list(recalls) == [*COLOURS, "yellow"]


def test_the_pictures_of_the_class_are_known_now(made: Path, enrolled: Path) -> None:
    shown = made.parent / "yellow" / "0.png"
    for bundle, unknown in ((made, True), (enrolled, False)):
        with edgetl.load(bundle, variant="fp32", threads=1) as session:
            assert session.predict(shown, unknown=0.05).unknown is unknown
            assert session.predict(painted(COLOURS["red"], 400), unknown=0.05).unknown is False


def test_the_bundle_says_where_it_comes_from(made: Path, enrolled: Path) -> None:
    before, now = open_bundle(made), open_bundle(enrolled)
    now.verify()
    *_, trained, step = now.manifest.provenance.lineage
    assert step.words == "yellow added from 5 images"
    assert (step.kind, step.name, step.images, step.classes) == ("enrol", "yellow", 5, ("yellow",))
    assert trained.file == before.sha256()
    assert now.manifest.variants[0].test is None
    splits = now.splits()
    assert splits is not None
    assert splits.holds("train", ["a" * 64]).all()
    known = reference.read(now, now.variant("fp32"))
    assert known is not None
    assert known.counts.tolist() == [10, 10, 10, 5]
    assert known.logits["logits"].shape == (60, 4)


def test_a_second_class_and_forgetting_both_gives_the_models_as_they_were(made: Path, enrolled: Path) -> None:
    folder = made.parent
    cyan = files(folder / "cyan", 2, seed=3, colour=CYAN)
    two, one, none = (folder / f"{name}.edgetl" for name in ("two", "one", "none"))
    record = enrol(enrolled, "cyan", cyan, two)
    assert record.labels == (*COLOURS, "yellow", "cyan")
    assert forget(two, "yellow", one).labels == (*COLOURS, "cyan")
    with edgetl.load(one, variant="fp32", threads=1) as session:
        assert session.verify().passed
    record = forget(one, "cyan", none)
    assert (record.forgotten, record.labels) == (True, tuple(COLOURS))
    first, last = open_bundle(made), open_bundle(none)
    for variant in first.manifest.variants:
        assert last.read(last.variant(variant.name).member) == first.read(variant.member)
        assert np.array_equal(
            last.golden_outputs(variant.name)["logits"], first.golden_outputs(variant.name)["logits"]
        )
    assert [step.kind for step in last.manifest.provenance.lineage] == ["weights", "train"]
    with pytest.raises(ConfigError, match="'red' was trained, and cannot be taken away here"):
        forget(made, "red", folder / "x.edgetl")
    with pytest.raises(ConfigError, match="has no class 'iris'; it has red, green, blue"):
        forget(made, "iris", folder / "x.edgetl")


def test_parity_takes_it_as_any_bundle(enrolled: Path, tmp_path: Path) -> None:
    files(tmp_path / "p" / "yellow", 3, seed=5)
    for label, colour in COLOURS.items():
        files(tmp_path / "p" / label, 3, seed=6, colour=colour)
    record = parity.run(enrolled, tmp_path / "p")
    assert record.first_outside == ""
    with pytest.raises(WeightsError, match=r"has classes that were added on a device \(yellow\)"):
        parity.run(enrolled, tmp_path / "p", checkpoint=tmp_path / "student.safetensors")


def test_it_is_not_signed_until_it_is(made: Path, enrolled: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    keys = make_keys(tmp_path / "key.pem")
    sign(made, tmp_path / "key.pem", tmp_path / "signed.edgetl")
    out = tmp_path / "signed-enrolled.edgetl"
    enrol(tmp_path / "signed.edgetl", "yellow", files(tmp_path / "p", 2), out, Enrolment(variant="fp32"))
    with pytest.raises(BundleIntegrityError, match="is not signed"):
        require_signature(open_bundle(out), Path(keys.public))
    sign(out, tmp_path / "key.pem")
    require_signature(open_bundle(out), Path(keys.public))
    assert [v.name for v in open_bundle(out).manifest.variants] == ["fp32"]


def test_what_cannot_be_added_is_refused_and_nothing_is_written(made: Path, tmp_path: Path) -> None:
    some, out = files(tmp_path / "p", 3), tmp_path / "x.edgetl"
    for label, said in (
        ("red", "There is a class 'red' already"),
        ("Red ", "'Red ' looks like the class 'red'"),
        ("", "The class name '' is empty"),
    ):
        with pytest.raises(ConfigError, match=said):
            enrol(made, label, some, out)
    with pytest.raises(ConfigError, match="No pictures of yellow were given; expected 1 to 20"):
        enrol(made, "yellow", [], out)
    with pytest.raises(ConfigError, match="21 pictures of yellow were given; expected 1 to 20"):
        enrol(made, "yellow", some * 7, out)
    with pytest.raises(ConfigError, match=r"0\.png has the same content as a picture before it"):
        enrol(made, "yellow", [*some, some[0]], out)
    (tmp_path / "broken.png").write_bytes(painted(YELLOW, 1)[:200])
    with pytest.raises(ImageError, match=r"broken\.png"):
        enrol(made, "yellow", [*some, tmp_path / "broken.png"], out)
    with pytest.raises(ConfigError, match="false alarms: got"):
        Enrolment(false_alarms=0.5)
    with pytest.raises(ConfigError, match="is of the task detection"):
        enrol(write_bundle(tmp_path / "boxes.edgetl"), "yellow", some, out)
    pack(contents(tmp_path), tmp_path / "older.edgetl")
    with pytest.raises(
        BundleError, match=r"enrol: .*older\.edgetl was made before bundles kept.*make it again"
    ):
        enrol(tmp_path / "older.edgetl", "yellow", some, out)
    assert not out.exists()


def test_a_picture_of_a_known_class_is_warned_of(made: Path, tmp_path: Path) -> None:
    (tmp_path / "known.png").write_bytes(painted(COLOURS["blue"], 2))
    record = enrol(made, "yellow", [*files(tmp_path / "p", 3), tmp_path / "known.png"], tmp_path / "x.edgetl")
    assert any("known.png looks as much like the class blue as that" in note for note in record.notes)
    assert not any("0.png" in note for note in record.notes)


def test_the_command_writes_beside_the_bundle(made: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "b.edgetl"
    bundle.write_bytes(made.read_bytes())
    files(tmp_path / "p", 3)
    run = CliRunner().invoke
    done = run(app, ["enrol", str(bundle), "yellow", str(tmp_path / "p"), "--variant", "fp32"])
    assert done.exit_code == 0, done.output
    assert "yellow is added, from 3 pictures" in done.stdout
    assert "another was asked for" in done.stdout
    done = run(app, ["enrol", str(tmp_path / "b-enrolled.edgetl"), "--forget", "yellow", "--json"])
    assert json.loads(done.stdout)["forgotten"] is True
    assert open_bundle(tmp_path / "b-enrolled.edgetl").manifest.labels == tuple(COLOURS)
    for words in (["yellow", str(tmp_path / "p")], ["yellow", "--forget", "yellow"], []):
        assert run(app, ["enrol", str(bundle), *words]).exception
