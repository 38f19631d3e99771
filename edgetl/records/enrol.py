"""What adding a class on a device, or forgetting one, returns."""

from __future__ import annotations

from edgetl.records.frozen import dataclass


@dataclass(frozen=True, kw_only=True)
class EnrolledVariant:
    """How a variant answers with its added classes.

    `before` and `after` are the shares of right answers, in 0..1, on the `images` validation images that the bundle
    keeps; `added` is the share of these that are answered with any added class. `found` of the new class's pictures are
    answered right where each in turn is left out of its prototype; None for one picture, and where none is new.
    """

    name: str
    images: int
    before: float
    after: float
    added: float
    found: int | None = None


@dataclass(frozen=True, kw_only=True)
class EnrolRecord:
    """A bundle that was written with one class more, or one less.

    `label` is that class, `forgotten` whether it was taken away, `pictures` those that it was made from; `labels` are
    all classes now. `false_alarms` is the share of images of known classes that may be answered with an added one, all
    together. `left_out` names variants that the new bundle does not have, each with the reason. `notes` are what should
    be known, one sentence each. `path` is the new bundle.
    """

    path: str
    label: str
    forgotten: bool
    pictures: int
    labels: tuple[str, ...]
    false_alarms: float
    variants: tuple[EnrolledVariant, ...]
    left_out: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    seconds: float
