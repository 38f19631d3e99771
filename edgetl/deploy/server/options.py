"""What a server is asked to do, and how much it takes from those who ask it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgetl.errors import ConfigError

LOCAL = ("127.0.0.1", "::1", "localhost")
_NAME = re.compile(r"[^\s/:=?#%]+( [^\s/:=?#%]+)*")
_LEAST_TOKEN = 16


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How waiting requests become calls of the engine.

    Attributes:
        max_batch: images per call, at most; None takes what the engine is made for: its own number where that is fixed,
            on the CPU few, on a GPU `edgetl.runtime.stream.GPU_BATCH`.
        max_wait_ms: how long a request that was read may wait for others that are still being read, at most; None
            waits on GPUs only, since a CPU gains nothing from larger batches.
        queue: requests of a model that may wait; further ones are told to come back.
        seconds: how long a request may wait in all before it is told to come back.
    """

    max_batch: int | None = None
    max_wait_ms: float | None = None
    queue: int = 128
    seconds: float = 10.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may cost.

    Attributes:
        max_bytes: of its body.
        max_pixels: of a picture, counted before it is decoded.
        seconds: in which its headers and its body must have come, each.
        connections: at once; further ones take the place of those that ask nothing.
    """

    max_bytes: int = 16 << 20
    max_pixels: int = 50_000_000
    seconds: float = 10.0
    connections: int = 1000


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Where a server listens, and to whom.

    Attributes:
        host: address to listen on.
        port: 0 takes any free one.
        token: what clients must show as `Authorization: Bearer TOKEN`; None asks for none.
        certificate, key: PEM files for TLS; None serves plain HTTP.
        batching: see there.
        limits: see there.
        watch_seconds: how often the bundles' files are looked at; a new one takes over. 0 never looks.
        log_requests: a line for every request.

    Raises:
        ConfigError: with every problem, at once.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    batching: Batching = Batching()
    limits: Limits = Limits()
    watch_seconds: float = 1.0
    log_requests: bool = True

    def __post_init__(self) -> None:
        found = []
        batching, limits = self.batching, self.limits
        if not 0 <= self.port <= 65535:
            found.append(f"port: got {self.port}, expected 0 to 65535.")
        if self.token is not None and len(self.token) < _LEAST_TOKEN:
            found.append(f"token: it has {len(self.token)} characters, expected at least {_LEAST_TOKEN}.")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            found.append("token: it holds characters that no header can; take printable ASCII ones.")
        if (self.certificate is None) != (self.key is None):
            found.append("TLS takes two files: give --tls-cert and --tls-key, or neither.")
        if batching.max_batch is not None and batching.max_batch < 1:
            found.append(f"max batch: got {batching.max_batch}, expected at least 1.")
        if batching.max_wait_ms is not None and not 0.0 <= batching.max_wait_ms <= 1000.0:
            found.append(f"max wait: got {batching.max_wait_ms:g} ms, expected 0 to 1000.")
        if batching.queue < 1:
            found.append(f"queue: got {batching.queue}, expected at least 1.")
        if limits.max_bytes < 1 or limits.max_pixels < 1:
            found.append("limits: a request may have neither bytes nor pixels; expected more than 0.")
        if not (0.0 < limits.seconds <= 3600.0 and 0.0 < batching.seconds <= 3600.0):
            found.append(f"seconds: got {limits.seconds:g}, expected more than 0 and at most 3600.")
        if not 0.0 <= self.watch_seconds <= 3600.0:
            found.append(f"watch: got {self.watch_seconds:g} seconds, expected 0 to 3600.")
        if found:
            raise ConfigError(found)

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in LOCAL


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model of each bundle is served, and by what; as `edgetl.runtime.session.load` takes it."""

    target: str = "auto"
    variant: str | None = None
    precision: str | None = None
    threads: int | None = None
    require_signature: Path | None = None


def named_paths(words: list[str]) -> dict[str, Path]:
    """The bundles by the names that were given to them, `NAME=PATH`; those without one by their path.

    Raises:
        ConfigError: a name cannot stand in an address, or is given twice.
    """
    found: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or Path(word).exists():
            name, path = word, word
        elif not is_name(name):
            raise ConfigError(f"{name!r} cannot be a model's name in an address: leave out / : = ? # %.")
        if name in found:
            raise ConfigError(f"{name} is given twice; name one of them otherwise: NAME=BUNDLE.")
        found[name] = Path(path)
    return found


def is_name(name: str) -> bool:
    """Whether a model can have this name in an address."""
    return _NAME.fullmatch(name) is not None and name.isprintable()
