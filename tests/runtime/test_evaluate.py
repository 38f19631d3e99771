from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgetl.bundle.pack import pack
from edgetl.errors import DataError, ImageError
from edgetl.files import sha256_file
from edgetl.records.scores import BadImages, value
from edgetl.runtime import Session, load
from edgetl.runtime.evaluate import LabelledImage, evaluate, evaluate_folder, find_samples
from edgetl.runtime.inputs import find_images, open_source, predict_all
from edgetl.tasks.all import detail_of
from edgetl.tasks.base import Classification
from tests.bundles import LABELS, contents, picture


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = tmp_path_factory.mktemp("evaluate")
    pack(contents(folder), folder / "flowers.edgetl")
    with load(folder / "flowers.edgetl", threads=1) as opened:
        yield opened


def write(root: Path, names: dict[str, int]) -> Path:
    """Write so many pictures into each folder."""
    for number, (name, count) in enumerate(names.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i:02}.png").write_bytes(picture(100 * number + i))
    return root


class Recorder:
    """A progress that keeps warnings."""

    def __init__(self) -> None:
        from edgetl.progress import SILENT

        self.task = SILENT.task
        self.message = SILENT.message
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


def test_a_flat_folder_is_scored_by_class_name(session: Session, tmp_path: Path) -> None:
    root = write(tmp_path / "set", {"tulip": 20, "daisy": 15})
    found = evaluate_folder(session, root)
    right = sum(
        session.predict(path).label == path.parent.name
        for path in root.rglob("*.png")  # type: ignore[attr-defined]
    )
    assert found.images == 35
    assert value(found, "top1") == pytest.approx(right / 35)
    assert [(c.label, c.support) for c in detail_of(found).classes] == [
        ("rose", 0),
        ("daisy", 15),
        ("tulip", 20),
    ]
    assert sum(images for _, _, images in detail_of(found).cells) == 35


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ({"train/rose": 3, "val/rose": 2, "test/rose": 1}, 1),
        ({"train/rose": 3, "val/rose": 2}, 2),
        ({"train/rose": 3}, 3),
    ],
)
def test_the_test_split_comes_first(folders: dict[str, int], expected: int, tmp_path: Path) -> None:
    assert len(find_samples(write(tmp_path / "set", folders), Classification(labels=LABELS))[1]) == expected


def test_a_label_that_the_bundle_does_not_know_names_the_nearest(session: Session, tmp_path: Path) -> None:
    root = write(tmp_path / "set", {"rose": 1, "Tullip": 1})
    with pytest.raises(
        DataError, match=r"has the class 'Tullip', which the bundle does not know\. Did you mean 'tulip'\?"
    ):
        evaluate_folder(session, root)
    root = write(tmp_path / "other", {"rose": 1, "xyz": 1})
    with pytest.raises(DataError, match=r"It knows: rose, daisy, tulip\."):
        evaluate_folder(session, root)


def test_a_csv_works_too(session: Session, tmp_path: Path) -> None:
    root = write(tmp_path / "set", {"a": 2})
    (root / "list.csv").write_text("path,label,split\na/00.png,rose,test\na/01.png,daisy,test\n")
    assert evaluate_folder(session, root / "list.csv").images == 2


def test_nothing_to_score_is_an_error(session: Session, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There are no images to score"):
        evaluate(session, [])
    with pytest.raises(DataError, match="There is no folder or CSV"):
        evaluate_folder(session, tmp_path / "gone")


def test_a_broken_image_is_named(session: Session, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    with pytest.raises(ImageError, match=r"broken\.png: the file is empty"):
        evaluate(session, [LabelledImage(broken, 0)])


# --- images that cannot be used, and images that were learned from -------------------------------------------


def test_images_that_cannot_be_used_are_all_named_or_skipped(session: Session, tmp_path: Path) -> None:
    root = write(tmp_path / "set", {"tulip": 4, "daisy": 3})
    (root / "tulip" / "00.png").write_bytes(b"")
    (root / "daisy" / "01.png").write_bytes(picture()[:500])
    with pytest.raises(DataError) as caught:
        evaluate_folder(session, root)
    for text in ("2 of 7 images cannot be used", "00.png", "01.png", "--bad-images skip"):
        assert text in str(caught.value)
    recorder = Recorder()
    found = evaluate_folder(session, root, bad_images=BadImages.SKIP, progress=recorder)
    assert (found.images, found.image_set.images) == (5, 5)
    assert [name for name, _ in found.image_set.skipped] == ["daisy/01.png", "tulip/00.png"]
    assert len(recorder.warnings) == 1
    assert "2 of 7 images cannot be used and are skipped" in recorder.warnings[0]


def test_a_set_of_bad_images_alone_is_an_error(session: Session, tmp_path: Path) -> None:
    root = write(tmp_path / "set", {"tulip": 1, "daisy": 1})
    for path in root.rglob("*.png"):
        path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="2 of 2 images cannot be used"):
        evaluate_folder(session, root, bad_images=BadImages.SKIP)


@pytest.mark.parametrize(
    ("learned", "use", "warning"),
    [
        # Of five images: what stays is what the bundle has not seen, while there is any.
        ({"train": 3, "val": 1, "test": 1}, (1, 3, 1, 4), "4 of them are left out; the other 1 are scored."),
        ({"train": 3, "val": 2}, (2, 3, 2, 3), "3 of them are left out; the other 2 are scored."),
        ({"train": 5}, (5, 5, 0, 0), "All are scored, so the scores are better than on new images."),
        ({"val": 1}, (4, 0, 1, 1), "1 of them are left out; the other 4 are scored."),
        ({"test": 5}, (5, 0, 0, 0), ""),
        (None, (5, None, None, 0), ""),
    ],
)
def test_what_the_bundle_learned_from_is_left_out_of_a_flat_folder(
    learned: dict[str, int] | None, use: tuple[int, ...], warning: str, tmp_path: Path
) -> None:
    root = write(tmp_path / "set", {"tulip": 3, "daisy": 2})
    hashes = [sha256_file(path) for path in sorted(root.rglob("*.png"))]
    splits, at = {}, 0
    for split, count in (learned or {}).items():
        splits[split], at = hashes[at : at + count], at + count
    pack(replace(contents(tmp_path), splits=splits if learned else None), tmp_path / "b.edgetl")
    recorder = Recorder()
    with load(tmp_path / "b.edgetl", threads=1) as opened:
        found = evaluate_folder(opened, root, progress=recorder)
        # A set that says itself what is for testing is scored as it says, and still counted.
        own = evaluate_folder(opened, write(tmp_path / "own", {"train/tulip": 1, "test/tulip": 3}))
    taken = found.image_set
    assert (taken.images, taken.trained_on, taken.chosen_by, taken.left_out) == use
    assert found.images == use[0]
    assert [text.endswith(warning) for text in recorder.warnings] == [True] * bool(warning)
    assert (own.images, own.image_set.left_out) == (3, 0)


# --- what users name on the command line --------------------------------------------------------------------


def test_files_and_folders_are_found_in_order(tmp_path: Path) -> None:
    root = write(tmp_path / "set", {"b": 2, "a/deep": 1})
    (root / "notes.txt").write_text("")
    single = root / "b" / "01.png"
    found = find_images([str(single), str(root)])
    assert found == (single, root / "a/deep/00.png", root / "b/00.png", root / "b/01.png")
    assert find_images([str(root)], limit=2) == found[1:3]


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no image or folder at .*gone\.jpg"):
        find_images([str(tmp_path / "gone.jpg")])
    with pytest.raises(DataError, match="holds no images"):
        find_images([str(tmp_path)])


def test_one_broken_image_does_not_stop_the_others(session: Session, tmp_path: Path) -> None:
    root = write(tmp_path / "set", {"a": 40})
    (root / "a" / "10.png").write_bytes(picture()[:150])
    paths, progress = find_images([str(root)]), Recorder()
    results = list(predict_all(session, open_source([str(root)]), top_k=2, progress=progress))
    assert [r.path for r in results] == [str(p) for p in paths]
    [broken] = [r for r in results if r.prediction is None]
    assert broken.path.endswith("10.png")
    assert progress.warnings == [broken.error]
    assert "10.png" in broken.error
    for path, result in zip(paths, results, strict=True):
        if result.prediction is not None:
            assert result.prediction == session.predict(path, top_k=2)


def test_no_usable_image_is_an_error(session: Session, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ImageError, match=r"a\.png: the file is empty\.\n.*b\.png: the file is empty"):
        list(predict_all(session, open_source([str(tmp_path)])))
