"""What the scores of several heads are made of."""

from __future__ import annotations

from typing import Literal

from edgetl.records.frozen import dataclass
from edgetl.records.scores import Evaluation


@dataclass(frozen=True, kw_only=True)
class HeadsDetail:
    """Each head's evaluation, on the images whose truth is known for it."""

    kind: Literal["multihead"] = "multihead"
    heads: dict[str, Evaluation]
