"""Pascal VOC's XML: one file per picture, with `object`s of `name` and `bndbox`."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from edgetl.data.boxes.entries import (
    BoxEntry,
    Faults,
    FoundBoxes,
    Object,
    box_fault,
    class_name,
    finder,
    read_text,
    split_of,
    together,
)
from edgetl.data.sources import Split, listing
from edgetl.errors import DataError


def read(root: Path, files: list[Path]) -> FoundBoxes:
    """Read all XML files of a folder; `ImageSets/Main/*.txt` or folders named after splits give the splits.

    Raises:
        DataError: a file is not VOC's, or its picture is not there.
    """
    find = finder((root / "JPEGImages", root / "images", root))
    lists = _lists(root)
    missing, entries = [], []
    for path in files:
        name, objects = _file(path)
        picture = find(name) if name else None
        picture = (
            picture
            or next(
                (p for p in (path.with_suffix(s) for s in (".jpg", ".jpeg", ".png", ".bmp")) if p.is_file()),
                None,
            )
            or find(f"{path.stem}.jpg")
            or find(f"{path.stem}.png")
        )
        if picture is None:
            missing.append(f"{path}: there is no picture {name or path.stem}")
            continue
        split = lists.get(path.stem) if lists else split_of(path.parent.name) or split_of(picture.parent.name)
        if lists and split is None:
            continue  # not in any list
        entries.append(BoxEntry(picture, objects, split))
    if missing:
        raise DataError(f"{root} lacks {len(missing)} pictures:\n{listing(missing)}")
    labels = sorted({o.label for entry in entries for o in entry.objects})
    return together(root, tuple(labels), [tuple(entries)])


def _lists(root: Path) -> dict[str, Split]:
    found: dict[str, Split] = {}
    for path in sorted((root / "ImageSets" / "Main").glob("*.txt")):
        if (split := split_of(path.stem)) is not None and "_" not in path.stem:
            for line in read_text(path).split("\n"):
                if line.strip():
                    found[line.split()[0]] = split
    return found


def _file(path: Path) -> tuple[str, tuple[Object, ...]]:
    text = read_text(path)
    if "<!ENTITY" in text:
        raise DataError(f"{path} defines entities, which VOC's XML never needs; it is not read.")
    try:
        tree = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DataError(f"{path} is not XML that can be read: {error}.") from error
    if tree.tag != "annotation":
        raise DataError(f"{path} is not VOC's XML; its root is {tree.tag!r}, expected 'annotation'.")
    faults, objects = Faults(path), []
    for number, item in enumerate(tree.findall("object"), start=1):
        label, box = class_name(item.findtext("name") or ""), item.find("bndbox")
        corners = [box.findtext(key) if box is not None else None for key in ("xmin", "ymin", "xmax", "ymax")]
        if not label:
            faults.add(f"object {number} has no name")
        elif reason := box_fault(corners):
            faults.add(f"object {number} ({label}): {reason}")
        else:
            x1, y1, x2, y2 = (float(value or 0) for value in corners)
            objects.append(Object((x1, y1, x2, y2), label))
    faults.check()
    return tree.findtext("filename") or "", tuple(objects)


def files_in(root: Path) -> list[Path]:
    """The XML files of a folder that look like VOC's; empty where there are none."""
    found = sorted(path for path in root.rglob("*.xml") if not path.name.startswith("."))
    return found if found and any("<annotation" in read_text(path)[:2000] for path in found[:3]) else []
