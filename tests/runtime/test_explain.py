from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetl.bundle.golden import GoldenSet
from edgetl.bundle.pack import Contents, VariantSource, pack
from edgetl.errors import ConfigError, ModelError
from edgetl.inputs.frame import frame_of
from edgetl.inputs.image import PreprocessSpec, Resize, decode
from edgetl.records.codec import to_json
from edgetl.runtime import Session, load
from edgetl.runtime.explain import ActivationMap, Explained
from edgetl.runtime.inputs import open_source, predict_all
from edgetl.tasks.base import Classification, MultiLabel, TaskSpec
from edgetl.tasks.multilabel.answers import TagsPrediction
from tests.bundles import LABELS, SPEC, contents
from tests.cli.typed import edgetl
from tests.onnx_models import SIZE, colours
from tests.squares import write_bundle

PEAKS = {"red": (20, 90), "green": (100, 30), "blue": (150, 100)}
"""Where the middles of the three squares stand in a picture of 180 x 120 pixels."""


def squares(names: Sequence[str] = tuple(PEAKS), size: tuple[int, int] = (180, 120)) -> Image.Image:
    """Squares of pure colours, 24 pixels wide, on grey."""
    image = Image.new("RGB", size, (90, 90, 90))
    for name in names:
        x, y = PEAKS[name]
        image.paste(
            {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}[name],
            (x - 12, y - 12, x + 12, y + 12),
        )
    return image


def bundle_of(folder: Path, task: TaskSpec, resize: Resize) -> Path:
    """A network that answers by the amount of a colour."""
    spec = PreprocessSpec(size=96, resize=resize, crop_fraction=1.0, mean=(0.35,) * 3, std=(1.0,) * 3)
    sure = contents(folder)
    parts = Contents(
        name="colours",
        task=task,
        preprocess=spec,
        variants=[VariantSource(name="fp32", precision="fp32", target="any", model=colours(96))],
        default="fp32",
        golden=GoldenSet(
            images=sure.golden.images,
            pixels=np.zeros((len(sure.golden.images), 96, 96, 3), np.uint8),
            outputs={"fp32": {"logits": np.zeros((len(sure.golden.images), 3), np.float32)}},
        ),
        provenance=sure.provenance,
    )
    pack(parts, folder / "colours.edgetl")
    return folder / "colours.edgetl"


@pytest.mark.parametrize("resize", Resize)
def test_a_map_peaks_where_the_picture_shows_the_class(resize: Resize, tmp_path: Path) -> None:
    path = bundle_of(tmp_path, Classification(labels=tuple(PEAKS)), resize)
    with load(path, threads=1, explain=True) as session:
        for name in ("green", "blue"):
            found = session.predict(squares([name]), explain=True)
            (one,) = found.maps
            assert (one.label, one.index, one.head) == (name, tuple(PEAKS).index(name), "")
            assert one.values.shape == (24, 24)
            # Within two places of the map, and exactly where the whole map peaks.
            assert np.abs(np.subtract(one.peak, PEAKS[name])).max() <= 12
            whole = one.in_picture()
            assert (whole.shape, whole.dtype) == ((120, 180), np.float32)
            row, column = np.unravel_index(np.nanargmax(whole), whole.shape)
            assert np.abs(np.subtract((column, row), PEAKS[name])).max() <= 12
            seen = np.isfinite(whole)
            if resize is Resize.CROP:
                assert seen[:, 31:149].all()
                assert not seen[:, :29].any()
                assert not seen[:, 151:].any()
            else:
                assert seen.all()
            strength = one.strength((90, 60))
            assert (strength.shape, strength.min(), strength.max()) == ((60, 90), 0.0, 1.0)


def test_a_turned_picture_has_its_map_upright(tmp_path: Path) -> None:
    path = bundle_of(tmp_path, Classification(labels=tuple(PEAKS)), Resize.PAD)
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees to the right
    squares(["green"]).transpose(Image.Transpose.ROTATE_90).save(buffer, "JPEG", quality=95, exif=exif)
    with load(path, threads=1) as session:
        (one,) = session.predict(buffer.getvalue(), explain=True).maps
    assert one.in_picture().shape == (120, 180)
    assert np.abs(np.subtract(one.peak, PEAKS["green"])).max() <= 12


def test_the_parts_of_a_map_are_those_of_the_logit() -> None:
    # 24 x 24 places whose mean is the logit, seen through a frame that changes nothing.
    values = np.arange(9, dtype=np.float32).reshape(3, 3) - 2
    spec = PreprocessSpec(size=30, resize=Resize.SQUASH)
    one = ActivationMap(label="a", index=0, values=values, side=30, frame=frame_of((30, 30), spec))
    whole = one.in_picture()
    # The centres of the places have their values; between them it is linear; beyond the outer ones constant.
    np.testing.assert_allclose(one.in_picture((3, 3)), values, atol=1e-6)
    assert whole[0, 0] == pytest.approx(-2.0)
    assert whole[29, 29] == pytest.approx(6.0)
    np.testing.assert_allclose(np.diff(whole[15, 5:25]), 0.1, atol=1e-5)
    assert one.peak == (25.0, 25.0)
    record = one.record()
    assert record.peak == (25.0, 25.0)
    assert json.loads(json.dumps(to_json(record)))["values"] == values.tolist()


def test_tags_have_a_map_each_and_without_any_the_most_probable_one(tmp_path: Path) -> None:
    path = bundle_of(tmp_path, MultiLabel(labels=tuple(PEAKS), thresholds=(0.55, 0.55, 0.55)), Resize.SQUASH)
    with load(path, threads=1, explain=True) as session:
        both = session.predict(squares(["green", "blue"]), explain=True)
        assert isinstance(both.prediction, TagsPrediction)
        assert (
            {one.label for one in both.maps}
            == {tag.label for tag in both.prediction.tags}
            == {"green", "blue"}
        )
        for one in both.maps:
            assert np.abs(np.subtract(one.peak, PEAKS[one.label])).max() <= 12
        none = session.predict(Image.new("RGB", (50, 50), (90, 90, 90)), explain=True)
        assert none.prediction.text == "none"
        assert len(none.maps) == 1


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    pack(contents(folder), folder / "flowers.edgetl")
    return folder / "flowers.edgetl"


@pytest.mark.parametrize("target", ["cpu", "openvino"])
@pytest.mark.parametrize("variant", ["fp32", "int8-cpu-x86"])
def test_explaining_changes_no_answer(bundle: Path, variant: str, target: str) -> None:
    if target == "openvino":
        pytest.importorskip("openvino", reason="OpenVINO is not installed")
    pictures = [np.random.default_rng(n).integers(0, 256, (40, 50, 3), np.uint8) for n in range(4)]
    with load(bundle, variant=variant, target=target, threads=1) as session:
        plain = session.predict(pictures, top_k=3)
        explained = session.predict(pictures, top_k=3, explain=True)
        assert [one.prediction for one in explained] == plain
        one = session.predict(pictures[0], top_k=3, explain=True)
        np.testing.assert_array_equal(one.maps[0].values, explained[0].maps[0].values)
        assert session.backend.outputs[-1].name == "logits"
        logits = session.run(np.stack([session.pixels(picture) for picture in pictures]))["logits"]
        # This network has no bias: the parts' mean is the logit.
        means = [found.maps[0].values.mean() for found in explained]
        np.testing.assert_allclose(means, logits.max(axis=1), atol=1e-5)
        assert session.explaining().verify().passed


def test_a_session_that_is_asked_later_opens_the_model_once_more_and_only_once(bundle: Path) -> None:
    session = load(bundle, threads=1)
    other = session.explaining()
    assert other is not session
    assert session.explaining() is other is other.explaining()
    session.close()
    with pytest.raises(ValueError, match="closed"):
        other.predict(np.zeros((40, 40, 3), np.uint8))
    with load(bundle, threads=1, explain=True) as explaining:
        assert explaining.explaining() is explaining
        assert [tensor.name for tensor in explaining.backend.outputs] == ["logits", "features/map"]
        assert explaining.backend.outputs[1].shape[1:] == (8, 15, 15)


def test_a_detector_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "s.edgetl")
    with pytest.raises(
        ConfigError, match="explain: the bundle is of the task detection, whose boxes say where"
    ):
        load(path, explain=True)
    with (
        load(path, threads=1) as session,
        pytest.raises(ConfigError, match="leave explain out"),
    ):
        session.predict(np.zeros((96, 96, 3), np.uint8), explain=True)


def test_what_the_weights_do_not_fit_is_refused(bundle: Path) -> None:
    with load(bundle, threads=1, explain=True) as session:
        assert session._head is not None
        session._head.weights["logits"] = np.zeros((3, 5), np.float32)  # type: ignore[index]
        with pytest.raises(ModelError, match=r"features/map: got \(1, 8, 15, 15\), expected \(N, 5, h, w\)"):
            session.predict(np.zeros((40, 40, 3), np.uint8), explain=True)


def _saved(session: Session, folder: Path, out: Path) -> dict[str, tuple[int, int]]:
    list(predict_all(session, open_source([str(folder)]), save=out, explain=True))
    return {path.name: decode(path).size for path in sorted(out.iterdir())}


def test_overlays_are_saved_in_the_pictures_size_one_for_each_map(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    squares(["green", "blue"]).save(pictures / "a.png")
    (tmp_path / "one").mkdir()
    (tmp_path / "many").mkdir()
    one = bundle_of(tmp_path / "one", Classification(labels=tuple(PEAKS)), Resize.CROP)
    many = bundle_of(
        tmp_path / "many", MultiLabel(labels=tuple(PEAKS), thresholds=(0.55,) * 3), Resize.SQUASH
    )
    with load(one, threads=1, explain=True) as session:
        assert _saved(session, pictures, tmp_path / "out") == {"a.jpg": (180, 120)}
    with load(many, threads=1, explain=True) as session:
        found = _saved(session, pictures, tmp_path / "several")
    assert found == {"a-blue.jpg": (180, 120), "a-green.jpg": (180, 120)}
    shown = np.asarray(decode(tmp_path / "several" / "a-green.jpg"), dtype=float)
    plain = np.asarray(squares(["green", "blue"]), dtype=float)
    changed = np.abs(shown - plain).mean(axis=2)
    (gx, gy), (bx, by) = PEAKS["green"], PEAKS["blue"]
    assert changed[gy - 6 : gy + 6, gx - 6 : gx + 6].mean() > 40
    assert changed[by - 6 : by + 6, bx - 6 : bx + 6].mean() < 10


def test_the_command_prints_where_with_json_the_whole_map(bundle: Path, tmp_path: Path) -> None:
    squares().save(tmp_path / "a.png")
    done = edgetl("predict", bundle, tmp_path / "a.png", "--explain")
    assert done.returncode == 0, done.stderr
    assert "peak x, y" in done.stdout
    done = edgetl("predict", bundle, tmp_path / "a.png", "--explain", "--json")
    (found,) = json.loads(done.stdout)
    (one,) = found["maps"]
    assert one["label"] == found["prediction"]["label"] in LABELS
    assert np.array(one["values"]).shape == (15, 15)
    assert 0 <= one["peak"][0] <= 180
    assert 0 <= one["peak"][1] <= 120
    done = edgetl("predict", bundle, tmp_path / "a.png", "--json")
    assert "maps" not in json.loads(done.stdout)[0]


def test_a_network_without_maps_is_refused_by_the_command(tmp_path: Path) -> None:
    parts = contents(tmp_path)
    hidden = [
        VariantSource(name=v.name, precision=v.precision, target=v.target, model=colours(SIZE, hidden=True))
        for v in parts.variants
    ]
    path = tmp_path / "hidden.edgetl"
    pack(Contents(**{**vars(parts), "variants": hidden}), path)
    squares().save(tmp_path / "a.png")
    done = edgetl("predict", path, tmp_path / "a.png", "--explain")
    assert done.returncode == 2
    assert "Relu stands between its pooling and its answer" in done.stderr
    assert "Traceback" not in done.stderr
    assert edgetl("predict", path, tmp_path / "a.png").returncode == 0


def test_an_explained_answer_says_what_it_is_made_of(bundle: Path) -> None:
    with load(bundle, threads=1, explain=True) as session:
        found = session.predict(np.zeros((32, 32, 3), np.uint8), explain=True)
    assert isinstance(found, Explained)
    assert found.maps[0].label == found.prediction.label  # type: ignore[union-attr]
    assert SPEC.size == found.maps[0].side
