"""Boxes in COCO's result form, by the ids of an annotation file: what its evaluation tools read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetl.data.boxes.coco import is_coco
from edgetl.data.boxes.entries import class_name, read_json
from edgetl.errors import DataError
from edgetl.tasks.detection.answers import Detections

if TYPE_CHECKING:
    from edgetl.runtime.inputs import ImageResult


class Ids:
    """The ids of pictures and classes in an annotation file.

    Raises:
        DataError: it is not COCO's, or lacks a class.
    """

    def __init__(self, annotations: Path, labels: Sequence[str]) -> None:
        content = read_json(annotations)
        if not is_coco(content):
            raise DataError(
                f"{annotations} is not COCO's JSON; expected the lists images, annotations and categories."
            )
        self._file = annotations
        names = [one for one in content["images"] if isinstance(one, dict)]
        self._images = {str(one.get("file_name")).replace("\\", "/"): one.get("id") for one in names}
        by_last: dict[str, list[str]] = {}
        for name in self._images:
            by_last.setdefault(name.rpartition("/")[2], []).append(name)
        self._by_last = {last: found[0] for last, found in by_last.items() if len(found) == 1}
        categories = [one for one in content["categories"] if isinstance(one, dict)]
        self._classes = {class_name(str(one.get("name"))): one.get("id") for one in categories}
        if lacking := [label for label in labels if label not in self._classes]:
            raise DataError(
                f"{annotations} lists no category {lacking[0]!r}, which the bundle answers; it lists "
                f"{', '.join(self._classes) or 'none'}."
            )

    def image(self, path: str) -> Any:
        """The id of a picture: by its path below the annotation file's folder, or by its last part.

        Raises:
            DataError: it is not listed.
        """
        parts = path.replace("\\", "/").split("/")
        for start in range(len(parts)):
            if (name := "/".join(parts[start:])) in self._images:
                return self._images[name]
        if (name := self._by_last.get(parts[-1], "")) in self._images:
            return self._images[name]
        raise DataError(f"{self._file} does not list the picture {path}.")

    def results(self, found: Sequence[ImageResult]) -> list[dict[str, Any]]:
        """One object per box: `image_id`, `category_id`, `bbox` as (x, y, width, height) in pixels, `score`.

        Pictures without an answer have none.

        Raises:
            DataError: a picture is not listed.
        """
        rows = []
        for one in found:
            if not isinstance(one.prediction, Detections):
                continue
            image = self.image(one.path)
            for item in one.prediction.items:
                x1, y1, x2, y2 = item.box
                rows.append(
                    {
                        "image_id": image,
                        "category_id": self._classes[item.label],
                        "bbox": [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
                        "score": round(item.score, 5),
                    }
                )
        return rows
