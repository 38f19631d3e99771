"""What a server answers: a status and a body, or the reason why a request is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

JSON = "application/json"
BYTES = "application/octet-stream"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A response."""

    body: bytes
    status: int = 200
    media_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """A request that is not done, with the HTTP status that says whose turn it is to change something.

    Attributes:
        status: 4xx.
        message: one sentence on what came, what was expected, and what to do.
        headers: of the response.
        close: end the connection, since what still comes on it is not wanted.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        close: bool = False,
    ) -> None:
        self.status, self.message = status, message
        self.headers: Mapping[str, str] = dict(headers or {}) | ({"connection": "close"} if close else {})
        super().__init__(message)

    def answer(self) -> Answer:
        """As the Open Inference Protocol has errors."""
        return Answer(status=self.status, body=encoded({"error": self.message}), headers=self.headers)


def busy(message: str, seconds: int) -> Refusal:
    """Too many at once: come back after so many seconds."""
    return Refusal(
        429, f"{message} Try again in {seconds} s.", headers={"retry-after": str(seconds)}, close=False
    )


def encoded(value: Any) -> bytes:
    """Plain values as JSON.

    Raises:
        ValueError: a figure is not finite.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(
        "utf-8", "backslashreplace"
    )
