from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from edgetl.data import index as indexes
from edgetl.data import unlabelled
from edgetl.data.index import UNLABELLED, DataIndex, build_index
from edgetl.errors import DataError
from edgetl.files import sha256_file
from edgetl.records.train import UnlabelledRecord
from tests.data.images import Recorder, Settings, fill, write


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> DataIndex:
    sizes = {"train/a": 3, "train/b": 3, "val/a": 2, "val/b": 2, "test/a": 2, "test/b": 2}
    return build_index(Settings(source=str(fill(tmp_path_factory.mktemp("labelled"), sizes))), seed=0)


@pytest.fixture
def further(tmp_path: Path) -> Path:
    """Seven images at three depths, and what is not one of them."""
    for number, name in enumerate(("0.png", "b/1.png", "b/2.PNG", "a/c/d/3.png", "4.png", "5.png", "6.png")):
        write(tmp_path / "further" / name, 1000 + number)
    write(tmp_path / "further" / ".hidden" / "x.png", 2000)
    (tmp_path / "further" / "notes.txt").write_text("not one of them")
    return tmp_path / "further"


def look(
    folder: Path, index: DataIndex, out: Path, *, bad_images: str = "refuse", progress: Recorder | None = None
) -> tuple[UnlabelledRecord, DataIndex]:
    inputs = unlabelled.UnlabelledInputs(index=index, bad_images=bad_images)
    out.mkdir(parents=True, exist_ok=True)
    record = unlabelled.run(str(folder), inputs, out=out, progress=progress or Recorder())
    return record, indexes.load(out / "index.json")


def refusal(folder: Path, index: DataIndex, out: Path) -> str:
    with pytest.raises(DataError) as caught:
        look(folder, index, out)
    return str(caught.value)


def test_images_at_any_depth_are_found_without_labels(
    further: Path, index: DataIndex, tmp_path: Path
) -> None:
    record, found = look(further, index, tmp_path / "unlabelled")
    assert record == UnlabelledRecord(
        index="unlabelled/index.json", images=7, held_out=0, skipped=(), sha256=found.sha256
    )
    names = {s.path.relative_to(further).as_posix() for s in found.samples}
    assert names == {"0.png", "b/1.png", "b/2.PNG", "a/c/d/3.png", "4.png", "5.png", "6.png"}
    assert {(s.label, s.split) for s in found.samples} == {(UNLABELLED, "train")}
    assert all(sha256_file(s.path) == s.sha256 for s in found.samples)


def test_the_hash_and_the_order_follow_the_contents_alone(
    further: Path, index: DataIndex, tmp_path: Path
) -> None:
    before, found = look(further, index, tmp_path / "1")
    shutil.move(further / "0.png", further / "b" / "zzz.png")
    shutil.copy(further / "4.png", further / "copy.png")
    after, again = look(further, index, tmp_path / "2")
    assert (after.sha256, after.images) == (before.sha256, 7)
    assert [s.sha256 for s in again.samples] == [s.sha256 for s in found.samples]
    write(further / "new.png", 3000)
    assert look(further, index, tmp_path / "3")[0].sha256 != before.sha256


def test_images_of_validation_and_test_are_left_out_and_those_of_train_are_not(
    further: Path, index: DataIndex, tmp_path: Path
) -> None:
    shutil.copytree(index.root, further / "all")
    recorder = Recorder()
    record, found = look(further, index, tmp_path / "out", progress=recorder)
    assert (record.images, record.held_out) == (7 + 6, 8)
    assert recorder.messages == [
        "unlabelled: 8 of 21 images are in the validation or test split, or near-copies of those, and are left out"
    ]
    scored = {s.sha256 for s in index.samples if s.split != "train"}
    assert not scored & {s.sha256 for s in found.samples}
    assert {s.sha256 for s in index.split("train")} <= {s.sha256 for s in found.samples}


def test_another_exposure_of_a_test_image_is_left_out_and_one_of_a_training_image_is_not(
    further: Path, index: DataIndex, tmp_path: Path
) -> None:
    for split in ("train", "test"):
        with Image.open(index.split(split)[0].path) as image:
            image.point(lambda level: level * 0.7 + 20).save(further / f"{split}.png")
    record, found = look(further, index, tmp_path / "out")
    assert (record.images, record.held_out) == (7 + 1, 1)
    assert "train.png" in {s.path.name for s in found.samples}


def test_a_folder_of_nothing_else_is_refused(index: DataIndex, tmp_path: Path) -> None:
    assert refusal(index.root / "val", index, tmp_path / "out") == (
        f"distill.unlabelled: all images in {index.root / 'val'} are in the validation or test split, which must not"
        " teach; add others."
    )


def test_a_folder_that_is_missing_or_empty_or_a_file_is_refused(index: DataIndex, tmp_path: Path) -> None:
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    (tmp_path / "empty" / "deeper" / "notes.txt").touch()
    expected = {
        "gone": "does not exist; give a folder of images.",
        "empty/deeper/notes.txt": "is a file; give a folder of images.",
        "empty": "holds no images at any depth; expected files that end in .jpg, .png or the like."
        " It holds 1 .txt file.",
    }
    for name, text in expected.items():
        stated = refusal(tmp_path / name, index, tmp_path / "out")
        assert stated == f"distill.unlabelled: {tmp_path / name} {text}"


def test_a_corrupt_image_is_named_or_skipped(further: Path, index: DataIndex, tmp_path: Path) -> None:
    (further / "b" / "1.png").write_bytes(b"no image")
    assert refusal(further, index, tmp_path / "out").splitlines() == [
        f"1 of 7 images in {further} cannot be used:",
        f"  {further / 'b/1.png'}: is not an image that can be read, or its start is corrupt.",
        'Mend or remove them, or leave them out with data.bad_images = "skip".',
    ]
    recorder = Recorder()
    record, found = look(further, index, tmp_path / "out", bad_images="skip", progress=recorder)
    assert (record.images, len(found.samples)) == (6, 6)
    assert [name for name, _ in record.skipped] == ["b/1.png"]
    assert recorder.warnings == [
        f"1 of 7 images in {further} cannot be used and are skipped, e.g. {further / 'b/1.png'}: is not an image that"
        " can be read, or its start is corrupt."
    ]
    for path in unlabelled.find(str(further)):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"7 of 7 images in .*further cannot be used:"):
        look(further, index, tmp_path / "out", bad_images="skip")
