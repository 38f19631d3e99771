"""A detector on the device: boxes in the picture's pixels, scores on sets of boxes, pictures drawn."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgetl
from edgetl.errors import ConfigError, DataError, ImageError
from edgetl.inputs.image import Resize, decode
from edgetl.records.codec import to_json
from edgetl.runtime import Session
from edgetl.runtime.coco import Ids
from edgetl.runtime.drawing import drawn as with_boxes
from edgetl.runtime.evaluate import choose_images, evaluate_folder
from edgetl.runtime.inputs import ImageResult, open_source, predict_all
from edgetl.tasks.all import detail_of
from edgetl.tasks.detection.answers import Detection, Detections
from tests.squares import (
    COLOURS,
    HEIGHT,
    SPEC,
    TASK,
    WIDTH,
    drawn,
    encoded,
    model,
    squares,
    write_bundle,
    write_set,
)

SOME = squares(5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("squares")
    write_bundle(path / "squares.edgetl")
    write_set(path / "set")
    return path


@pytest.fixture(scope="module")
def session(folder: Path) -> Iterator[Session]:
    with edgetl.load(folder / "squares.edgetl", threads=2) as opened:
        yield opened


def check(answer: object, found: list[tuple[int, int, int, int]] = SOME) -> Detections:
    """The squares are there, each once, to within the detector's grid; nothing else is."""
    assert isinstance(answer, Detections)
    boxes = sorted((*item.box, item.index) for item in answer.items)
    true = sorted((x, y, x + side, y + side, colour) for x, y, side, colour in found)
    assert [row[-1] for row in boxes] == [row[-1] for row in true]
    assert np.array(boxes) == pytest.approx(np.array(true), abs=3)
    return answer


def test_boxes_come_back_in_the_pixels_of_every_kind_of_picture(session: Session) -> None:
    picture = drawn(SOME)
    answer = check(session.predict(encoded(picture)))
    assert (answer.width, answer.height) == (WIDTH, HEIGHT)
    assert [item.score for item in answer.items] == sorted((i.score for i in answer.items), reverse=True)
    assert {item.label for item in answer.items} == {COLOURS[colour] for *_, colour in SOME}
    array = np.asarray(picture)
    for same in (picture, array, encoded(picture, "BMP")):
        assert session.predict(same) == answer
    assert session.predict(array[..., ::-1], channels="bgr") == answer
    assert session.predict([picture, array]) == [answer, answer]


@pytest.mark.parametrize("turn", range(1, 9))
def test_boxes_are_in_the_upright_picture_however_the_file_is_turned(session: Session, turn: int) -> None:
    upright = drawn(SOME)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[turn]) if turn > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = turn
    content = encoded(stored, "JPEG", quality=95, exif=exif.tobytes())
    assert decode(content).size == upright.size
    answer = check(session.predict(content))
    assert (answer.width, answer.height) == upright.size


def test_a_large_jpeg_that_is_decoded_smaller_gives_boxes_in_its_own_pixels(session: Session) -> None:
    large = drawn(SOME).resize((WIDTH * 8, HEIGHT * 8), Image.Resampling.NEAREST)
    answer = session.predict(encoded(large, "JPEG", quality=95))
    assert isinstance(answer, Detections)
    assert (answer.width, answer.height) == (WIDTH * 8, HEIGHT * 8)
    smaller = tuple(
        dataclasses.replace(item, box=tuple(side / 8 for side in item.box)) for item in answer.items
    )
    check(Detections(items=smaller, width=WIDTH, height=HEIGHT))


@pytest.mark.parametrize("resize", [Resize.CROP, Resize.SQUASH])
def test_boxes_find_their_way_back_through_every_resize(tmp_path: Path, resize: Resize) -> None:
    spec = dataclasses.replace(SPEC, resize=resize, crop_fraction=1.0)
    scale = 96 / HEIGHT if resize is Resize.CROP else 0.5
    # One square that is 16 pixels of the input, in its middle, where the crop keeps it.
    side = round(16 / scale)
    across = side if resize is Resize.CROP else 32
    down = side if resize is Resize.CROP else round(16 * HEIGHT / 96)
    x, y = WIDTH // 2 - across // 4, HEIGHT // 2 - down // 4
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[y : y + down, x : x + across, 1] = 255
    path = write_bundle(tmp_path / "b.edgetl", {"fp32": model(spec=spec)}, spec=spec)
    with edgetl.load(path, threads=1) as opened:
        answer = opened.predict(pixels)
    assert isinstance(answer, Detections)
    [item] = answer.items
    assert item.box == pytest.approx((x, y, x + across, y + down), abs=8)


def test_a_picture_without_objects_and_one_of_a_pixel(session: Session) -> None:
    black = session.predict(np.zeros((50, 70, 3), np.uint8))
    assert black == Detections(items=(), width=70, height=50)
    assert isinstance(black, Detections)
    assert black.text == "nothing"
    with pytest.raises(ImageError, match="is 1x1 pixels; at least 4x4 are needed"):
        session.predict(encoded(Image.new("RGB", (1, 1))))


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.1, float("nan")])
def test_a_threshold_that_cannot_be_is_refused(folder: Path, threshold: float) -> None:
    with pytest.raises(ConfigError, match=r"threshold: .*expected a score above 0 and below 1"):
        edgetl.load(folder / "squares.edgetl", threshold=threshold)


def test_another_threshold_answers_fewer_boxes(folder: Path, session: Session) -> None:
    whole = session.predict(drawn(SOME))
    assert isinstance(whole, Detections)
    middle = sorted(item.score for item in whole.items)[1]
    with edgetl.load(folder / "squares.edgetl", threads=1, threshold=middle) as opened:
        fewer = opened.predict(drawn(SOME))
    assert isinstance(fewer, Detections)
    assert fewer.items == tuple(item for item in whole.items if item.score >= middle)
    assert 0 < len(fewer.items) < len(whole.items)


def test_the_most_boxes_and_the_overlap_travel_in_the_manifest(tmp_path: Path) -> None:
    task = dataclasses.replace(TASK, most=2)
    path = write_bundle(tmp_path / "b.edgetl", task=task)
    with edgetl.load(path, threads=1) as opened:
        assert opened.task.spec == task
        assert len(opened.predict(drawn(SOME)).items) == 2  # type: ignore[union-attr]


def test_scores_on_a_set_of_boxes(folder: Path, session: Session) -> None:
    found = evaluate_folder(session, folder / "set")
    assert found.images == found.image_set.images == 12
    assert found.scores["map50"].value == 1.0
    assert 0.7 < found.scores["map"].value < 0.95
    detail = detail_of(found)
    assert detail.kind == "detection"
    assert (detail.mistakes.wrong, detail.asked) == (0, TASK.threshold)
    assert sum(c.objects for c in detail.classes) == detail.mistakes.right
    json.dumps(to_json(found), allow_nan=False)


def _yolo(folder: Path) -> Path:
    """The same set as YOLO's text."""
    content = json.loads((folder / "annotations.json").read_text())
    out = folder.parent / "yolo"
    for part in ("images/val", "labels/val"):
        (out / part).mkdir(parents=True, exist_ok=True)
    for image in content["images"]:
        name = image["file_name"]
        (out / "images/val" / name).write_bytes((folder / name).read_bytes())
        rows = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        lines = []
        for row in rows:
            x, y, w, h = row["bbox"]
            centre = ((x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT)
            lines.append(" ".join([str(row["category_id"] - 10), *(f"{v:.6f}" for v in centre)]))
        (out / "labels/val" / name).with_suffix(".txt").write_text("\n".join(lines))
    names = ", ".join(COLOURS)
    (out / "data.yaml").write_text(f"path: .\ntrain: images/val\nval: images/val\nnames: [{names}]\n")
    return out / "data.yaml"


def _table(folder: Path) -> Path:
    """The same set as a CSV."""
    content = json.loads((folder / "annotations.json").read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    lines = ["path,label,x1,y1,x2,y2"]
    for row in content["annotations"]:
        x, y, w, h = row["bbox"]
        lines.append(f"{names[row['image_id']]},{COLOURS[row['category_id'] - 10]},{x},{y},{x + w},{y + h}")
    path = folder / "boxes.csv"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("write", [_yolo, _table], ids=["yolo", "csv"])
def test_other_forms_of_the_same_set_score_the_same(
    folder: Path, session: Session, write: object, tmp_path: Path
) -> None:
    write_set(tmp_path / "set", 4)
    first = evaluate_folder(session, tmp_path / "set" / "annotations.json")
    other = write(tmp_path / "set")  # type: ignore[operator]
    if other.suffix == ".yaml":
        text = other.read_text()
        other.write_text(text.replace("train: images/val", "train: images/train"))
        for part in ("images/train", "labels/train"):
            (other.parent / part).mkdir(parents=True)
        (other.parent / "images/train/a.png").write_bytes(encoded(drawn([])))
    assert evaluate_folder(session, other).scores == first.scores


def test_pictures_without_boxes_count_and_no_box_anywhere_is_refused(
    session: Session, tmp_path: Path
) -> None:
    path = write_set(tmp_path / "set", 3)
    content = json.loads(path.read_text())
    (path.parent / "empty.png").write_bytes(encoded(drawn(SOME)))
    content["images"].append({"id": 99, "file_name": "empty.png"})
    path.write_text(json.dumps(content))
    detail = detail_of(evaluate_folder(session, path))
    assert detail.kind == "detection"
    assert detail.mistakes.background == len(SOME)
    assert [Path(worst.file).name for worst in detail.worst] == ["empty.png"]
    assert {box.kind for box in detail.worst[0].boxes} == {"background"}
    content["annotations"] = []
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="4 pictures but no box anywhere"):
        evaluate_folder(session, path)


def test_sets_that_do_not_fit_are_refused(session: Session, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There are no boxes at .*, and the bundle is a detector"):
        choose_images(tmp_path, [session.bundle])
    path = write_set(tmp_path / "set", 2)
    content = json.loads(path.read_text())
    content["categories"][0]["name"] = "ret"
    path.write_text(json.dumps(content))
    with pytest.raises(
        DataError, match=r"has the class 'ret', which the bundle does not know. Did you mean 'red'"
    ):
        choose_images(path, [session.bundle])
    content["categories"][0]["name"] = "red"
    content["annotations"][0]["bbox"] = [WIDTH + 1, 0, 20, 20]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="1 boxes that lie outside their pictures"):
        choose_images(path, [session.bundle])


def test_a_picture_of_a_set_that_cannot_be_read_is_named_or_skipped(session: Session, tmp_path: Path) -> None:
    path = write_set(tmp_path / "set", 3)
    (path.parent / "0001.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1 of 3 images cannot be used:\n.*0001\.png"):
        evaluate_folder(session, path)
    found = evaluate_folder(session, path, bad_images="skip")  # type: ignore[arg-type]
    assert (found.images, [name for name, _ in found.image_set.skipped]) == (2, ["0001.png"])


def test_a_picture_with_two_thousand_boxes_is_scored(session: Session, tmp_path: Path) -> None:
    path = write_set(tmp_path / "set", 2)
    content = json.loads(path.read_text())
    generator = np.random.default_rng(0)
    content["annotations"] += [
        {
            "id": 1000 + at,
            "image_id": 1,
            "category_id": 10 + at % 3,
            "bbox": [float(x), float(y), 4.0, 4.0],
            "iscrowd": 0,
        }
        for at, (x, y) in enumerate(generator.uniform(0, 140, (2000, 2)))
    ]
    path.write_text(json.dumps(content))
    detail = detail_of(evaluate_folder(session, path))
    assert detail.kind == "detection"
    assert detail.mistakes.missed >= 1990
    assert len(detail.worst[0].boxes) == 80


def test_pictures_are_saved_with_their_boxes(session: Session, folder: Path, tmp_path: Path) -> None:
    names = [str(folder / "set"), str(folder / "set" / "0000.png")]
    results = list(predict_all(session, open_source(names), save=tmp_path / "out"))
    assert len(results) == 13
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["0000-2.jpg", *(f"{at:04}.jpg" for at in range(12))]
    assert isinstance(results[0].prediction, Detections)
    item = results[0].prediction.items[0]
    with Image.open(tmp_path / "out" / "0000.jpg") as saved:
        assert saved.size == (WIDTH, HEIGHT)
        before, after = decode(folder / "set" / "0000.png"), np.asarray(saved.convert("RGB")).astype(int)
    moved = np.abs(after - np.asarray(before).astype(int)).max(axis=2)
    x2, y2 = (round(value) for value in item.box[2:])
    assert moved[y2 - 1 : y2 + 1, x2 - 8 : x2].max() > 60  # its lower edge
    far = np.ones_like(moved, dtype=bool)
    for one in results[0].prediction.items:
        x1, y1, x2, y2 = (round(value) for value in one.box)
        far[max(0, y1 - 24) : y2 + 8, max(0, x1 - 8) : x2 + 60] = False
    assert moved[far].max() < 40


def test_other_answers_are_drawn_as_text_and_odd_boxes_do_no_harm() -> None:
    from edgetl.tasks.classification.answers import Prediction

    picture = Image.new("RGB", (200, 100), "black")
    said = with_boxes(picture, Prediction(label="rose", index=0, score=0.9, top=()))
    assert np.asarray(said).max() > 200
    assert np.asarray(picture).max() == 0
    odd = Detection(box=(0.0, 0.0, 200.0, 100.0), label="ü" * 90, index=11, score=1.0)
    tiny = Detection(box=(199.5, 99.5, 200.0, 100.0), label="a", index=0, score=0.5)
    assert with_boxes(picture, Detections(items=(odd, tiny), width=200, height=100)).size == (200, 100)


def test_frames_of_a_video_are_answered_and_saved(session: Session, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="videos need: pip install 'edgetl[video]'")
    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (WIDTH, HEIGHT))
    for seed in (5, 6):
        writer.write(np.asarray(drawn(squares(seed)))[..., ::-1])
    writer.release()
    results = list(predict_all(session, open_source([str(path)]), save=tmp_path / "out"))
    for seed, result in zip((5, 6), results, strict=True):
        check(result.prediction, squares(seed))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["v-000000.jpg", "v-000001.jpg"]


def test_results_in_coco_s_form_carry_the_ids_of_the_annotations(session: Session, folder: Path) -> None:
    annotations = folder / "set" / "annotations.json"
    ids = Ids(annotations, session.labels)
    results = list(predict_all(session, open_source([str(folder / "set")])))
    rows = ids.results(results)
    content = json.loads(annotations.read_text())
    true = sorted((a["image_id"], a["category_id"], *a["bbox"]) for a in content["annotations"])
    found = sorted((r["image_id"], r["category_id"], *r["bbox"]) for r in rows)
    assert [row[:2] for row in found] == [row[:2] for row in true]
    assert all(0.5 <= row["score"] <= 1 for row in rows)
    assert ids.image("/somewhere/else/0003.png") == ids.image("0003.png") == 4
    with pytest.raises(DataError, match=r"does not list the picture x/other\.png"):
        ids.image("x/other.png")
    with pytest.raises(DataError, match=r"lists no category 'pink', which the bundle answers"):
        Ids(annotations, ("pink",))
    none = ImageResult(path="bad.png", prediction=None, error="gone")
    assert ids.results([none]) == []


def test_results_are_scored_by_coco_s_own_tool_as_here(session: Session, folder: Path) -> None:
    pytest.importorskip("faster_coco_eval", reason="the oracle is in the dev extra")
    import contextlib

    from faster_coco_eval import COCO, COCOeval_faster

    annotations = folder / "set" / "annotations.json"
    results = list(predict_all(session, open_source([str(folder / "set")])))
    with contextlib.redirect_stdout(io.StringIO()):
        truths = COCO(str(annotations))
        run = COCOeval_faster(
            truths, truths.loadRes(Ids(annotations, session.labels).results(results)), "bbox"
        )
        run.evaluate()
        run.accumulate()
        run.summarize()
    # Every box of this detector scores above the threshold or far below it, so both see the same boxes.
    assert evaluate_folder(session, annotations).scores["map"].value == pytest.approx(
        float(run.stats[0]), abs=1e-4
    )
