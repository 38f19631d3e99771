"""Requests of one encoded picture: what is in the body, what is asked, and the answer in words and boxes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgetl.deploy.server.answers import Answer, Refusal, encoded
from edgetl.deploy.server.lane import Rows
from edgetl.errors import ImageError
from edgetl.inputs.image import NAMELESS, read_header
from edgetl.inputs.recordings import ending_of
from edgetl.records.codec import to_json
from edgetl.runtime.explain import ActivationMap
from edgetl.runtime.session import Session
from edgetl.runtime.stream import Seen
from edgetl.tasks.all import Prediction
from edgetl.tasks.base import Outputs

_MAP_SIDE = 64
"""Places along the longer side of a map that is sent; a page draws it over the picture."""
_BOUNDARY = re.compile(r'boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_OPTIONS = ("top", "explain", "sure", "coverage", "unknown")


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """What of `edgetl.runtime.session.Session.predict` is asked in an address."""

    top: int = 1
    explain: bool = False
    sure: float | None = None
    coverage: float | None = None
    unknown: float | None = None

    @property
    def alone(self) -> bool:
        """Whether it needs the network's features, which no batch has."""
        return self.explain or self.unknown is not None


@dataclass(frozen=True, kw_only=True)
class PictureJob:
    """A request of one encoded picture."""

    model: str
    version: str
    content: bytes
    options: PredictOptions
    max_pixels: int

    def rows(self, session: Session) -> Rows:
        """The picture's pixels; none where it is answered outside of batches. See `edgetl.deploy.server.lane.Job`."""
        checked(self.content, self.max_pixels)
        options = self.options
        if options.sure is not None:
            session.check_sure(options.sure)
        if options.coverage is not None:
            session.least_conformities(options.coverage)
        if options.alone:
            return Rows()
        pixels, frame = session.framed(self.content)
        return Rows(images=[pixels], frames=[frame])

    def answer(self, session: Session, outputs: Outputs, rows: Rows) -> Answer:
        """The prediction in JSON; see `edgetl.deploy.server.lane.Job`."""
        options = self.options
        maps: tuple[ActivationMap, ...] = ()
        found: Prediction
        if options.explain:
            explained = session.predict(
                self.content,
                top_k=options.top,
                sure=options.sure,
                coverage=options.coverage,
                unknown=options.unknown,
                explain=True,
            )
            found, maps = explained.prediction, explained.maps
        elif options.alone:
            found = session.predict(
                self.content,
                top_k=options.top,
                sure=options.sure,
                coverage=options.coverage,
                unknown=options.unknown,
            )
        else:
            found = session.answer(Seen(outputs, rows.frames[0]), options.top, options.sure, options.coverage)
        value: dict[str, Any] = {
            "model": self.model,
            "version": self.version,
            "variant": session.variant.name,
            "task": session.manifest.task.kind,
            "text": found.text,
            "prediction": to_json(found),
        }
        if options.explain:
            value["maps"] = [_map(one) for one in maps]
        return Answer(body=encoded(value))


def checked(content: bytes, max_pixels: int) -> bytes:
    """An encoded picture whose header says that it is not too large to be decoded, or a recording.

    Raises:
        Refusal: it is.
        ImageError: it is neither.
    """
    if ending_of(content):  # which takes no more memory than a few times its own length
        return content
    width, height = read_header(content).size
    if width * height > max_pixels:
        raise Refusal(
            413,
            f"The picture has {width} x {height} pixels; at most {max_pixels / 1e6:g} million are taken. "
            "Send it smaller.",
        )
    return content


def parse_options(query: Mapping[str, str]) -> PredictOptions:
    """What is asked behind the `?` of an address.

    Raises:
        Refusal: a name is unknown, or a value is none of its kind.
    """
    if strange := sorted(query.keys() - set(_OPTIONS)):
        raise Refusal(400, f"There is no option {strange[0]!r:.60}; there are {', '.join(_OPTIONS)}.")
    top = query.get("top", "1")
    if not (top.isascii() and top.isdigit() and 0 < len(top) <= 6 and int(top) > 0):
        raise Refusal(400, f"top: got {top[:40]!r}, expected a number of labels from 1.")
    explain = query.get("explain", "0").lower()
    if explain not in ("0", "1", "false", "true"):
        raise Refusal(400, f"explain: got {explain[:40]!r}, expected 0 or 1.")
    return PredictOptions(
        top=int(top),
        explain=explain in ("1", "true"),
        sure=_share(query, "sure"),
        coverage=_share(query, "coverage"),
        unknown=_share(query, "unknown"),
    )


def picture_in(body: bytes, media_type: str) -> bytes:
    """The picture in a body: all of it, or the first file of a form (RFC 7578).

    Raises:
        Refusal: it is empty, or a form without a file.
    """
    kind = media_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        body = _file_of_form(body, media_type)
    elif kind == "application/json":
        raise Refusal(
            415, "The body is JSON; send an encoded picture (JPEG, PNG, ...), or a form with a file."
        )
    if not body:
        raise Refusal(400, "The body is empty; send an encoded picture (JPEG, PNG, ...).")
    return body


def describe(error: ImageError) -> str:
    """An error about a picture that came without a name."""
    return str(error).replace(NAMELESS, "The picture", 1)


def _share(query: Mapping[str, str], name: str) -> float | None:
    if (text := query.get(name)) is None:
        return None
    try:
        return float(text[:40])
    except ValueError:
        raise Refusal(400, f"{name}: got {text[:40]!r}, expected a share such as 0.9.") from None


def _file_of_form(body: bytes, media_type: str) -> bytes:
    if (found := _BOUNDARY.search(media_type)) is None:
        raise Refusal(400, "The form has no boundary in its Content-Type.")
    mark = b"--" + (found[1] or found[2]).encode("latin-1")
    at = body.find(mark)
    while at >= 0:
        start = at + len(mark)
        if body[start : start + 2] == b"--":
            break
        head_end = body.find(b"\r\n\r\n", start)
        end = body.find(b"\r\n" + mark, start)
        if head_end < 0 or end < 0:
            break
        if b"filename" in body[start:head_end].lower():
            return body[head_end + 4 : max(end, head_end + 4)]
        at = end + 2
    raise Refusal(400, "The form has no file; send the picture as a field of the type file.")


def _map(one: ActivationMap) -> dict[str, Any]:
    """A map over the whole upright picture, 0 to 255, row by row; where it peaks, in the picture's pixels."""
    width, height = one.frame.size
    scale = min(1.0, _MAP_SIDE / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    levels = np.rint(255 * one.strength(size)).astype(np.uint8)
    x, y = one.peak
    return {
        "label": one.label,
        "head": one.head,
        "peak": [round(x, 1), round(y, 1)],
        "size": [width, height],
        "strength": levels.tolist(),
    }
