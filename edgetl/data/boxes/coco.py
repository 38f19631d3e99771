"""COCO's JSON: `images`, `annotations` with `bbox` as (x, y, width, height), `categories`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgetl.data.boxes.entries import (
    BoxEntry,
    Faults,
    FoundBoxes,
    Object,
    box_fault,
    class_name,
    finder,
    read_json,
    split_of,
    together,
)
from edgetl.data.sources import Split
from edgetl.errors import DataError


def read(root: Path, files: Mapping[Path, Split | None]) -> FoundBoxes:
    """Read one file per split, or one for all.

    Args:
        root: the source's folder.
        files: JSON files with their splits.

    Raises:
        DataError: a file is not COCO's, names pictures that are not there, or holds boxes that are none.
    """
    labels: dict[str, None] = {}
    parts = []
    for path, split in files.items():
        names, entries = _file(path, split)
        labels |= dict.fromkeys(names)
        parts.append(entries)
    return together(root, tuple(labels), parts)


def is_coco(value: Any) -> bool:
    """Whether JSON is of COCO's form."""
    return isinstance(value, dict) and all(
        isinstance(value.get(key), list) for key in ("images", "annotations", "categories")
    )


def _file(path: Path, split: Split | None) -> tuple[list[str], tuple[BoxEntry, ...]]:
    content = read_json(path)
    if not is_coco(content):
        raise DataError(f"{path} is not COCO's JSON; expected the lists images, annotations and categories.")
    faults = Faults(path)
    names = _categories(content["categories"], faults)
    find = finder((path.parent, path.parent / "images", path.parent.parent / "images", path.parent.parent))
    pictures: dict[Any, Path] = {}
    for at, image in enumerate(content["images"]):
        name = image.get("file_name") if isinstance(image, dict) else None
        if not isinstance(name, str) or _key(image.get("id")) is None:
            faults.add(f"images[{at}] lacks its id or file_name")
        elif (picture := find(name)) is None:
            faults.add(f"images[{at}]: there is no picture {name}")
        elif image["id"] in pictures:
            faults.add(f"images[{at}]: the id {image['id']!r} stands for two pictures")
        else:
            pictures[image["id"]] = picture
    objects: dict[Any, list[Object]] = {key: [] for key in pictures}
    missing = len(faults.found)
    for at, annotation in enumerate(content["annotations"]):
        if not isinstance(annotation, dict):
            faults.add(f"annotations[{at}] is not an object")
            continue
        key, category = _key(annotation.get("image_id")), _key(annotation.get("category_id"))
        if category not in names:
            faults.add(f"annotations[{at}]: the category {annotation.get('category_id')!r} is not listed")
        elif key not in objects:
            if not missing:
                faults.add(f"annotations[{at}]: the image {annotation.get('image_id')!r} is not listed")
        elif reason := _refused(annotation.get("bbox")):
            faults.add(f"annotations[{at}]: {reason}")
        else:
            x, y, width, height = (float(value) for value in annotation["bbox"])
            area = annotation.get("area")
            objects[key].append(
                Object(
                    (x, y, x + width, y + height),
                    names[category],
                    crowd=bool(annotation.get("iscrowd", 0)),
                    area=float(area) if isinstance(area, int | float) and area > 0 else None,
                )
            )
    faults.check()
    entries = tuple(BoxEntry(picture, tuple(objects[key]), split) for key, picture in pictures.items())
    return list(names.values()), entries


def _categories(values: list[Any], faults: Faults) -> dict[Any, str]:
    names: dict[Any, str] = {}
    for at, value in enumerate(values):
        name = value.get("name") if isinstance(value, dict) else None
        key = _key(value.get("id")) if isinstance(value, dict) else None
        if not isinstance(name, str) or not class_name(name) or key is None:
            faults.add(f"categories[{at}] lacks its id or name")
        elif key in names or class_name(name) in names.values():
            faults.add(f"categories[{at}]: {name!r} or its id is listed twice")
        else:
            names[key] = class_name(name)
    return names


def _key(value: Any) -> Any:
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def _refused(value: Any) -> str:
    if not isinstance(value, list | tuple) or len(value) != 4:
        return "its bbox is not four numbers"
    try:
        x, y, width, height = (float(v) for v in value)
    except (TypeError, ValueError):
        return "its bbox is not four numbers"
    return box_fault((x, y, x + width, y + height))


def files_in(root: Path) -> dict[Path, Split | None]:
    """COCO's files of a folder with the splits that their names or folders say; empty where there are none."""
    found: dict[Path, Split | None] = {}
    for path in sorted([*root.glob("*.json"), *root.glob("*/*.json")]):
        try:
            content = read_json(path)
        except DataError:
            continue
        if is_coco(content):
            found[path] = split_of(path.stem) or split_of(path.parent.name)
    return found
