"""Atomic writes, hashing, and the stage cache."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from edgetl.errors import ConfigError, StorageError
from edgetl.keys import key_of, sources
from edgetl.records.codec import from_json, to_json

R = TypeVar("R")

_PREFIX = 40
"""Characters of a file's name that its temporary file bears, so that this one's fits too where that one's does."""

UNENCODABLE = "backslashreplace"
"""What becomes of characters that a file or stream cannot take, everywhere: `\\udce9`, `\\xe9`."""


_OTHER_CACHE = "Set EDGETL_CACHE to a folder for the cache that can be written."


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors into one clear `StorageError` that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is None or not _concerns(error, path):
            raise
        from edgetl.failures import cause, remedy

        met = error
        if error.errno == errno.EEXIST and Path(os.fsdecode(error.filename or "")) in path.parents:
            met = NotADirectoryError(
                errno.ENOTDIR, ""
            )  # mkdir calls a file in a folder's place one that exists
        what_to_do = _OTHER_CACHE if _is_cached(path) else remedy(met)
        raise StorageError(
            f"Cannot write {path}: {cause(met)}. Nothing was changed there. {what_to_do}".rstrip()
        ) from error


def _is_cached(path: Path) -> bool:
    """Whether nobody named this path: it lies in the cache folder."""
    try:
        return cache_dir().absolute() in path.absolute().parents
    except StorageError:
        return False


def _concerns(error: OSError, path: Path) -> bool:
    """Whether it is about `path`, a folder above it or what lies next to it; a source that is read inside is not."""
    if not isinstance(error.filename, str):
        return True
    named, path = Path(error.filename).absolute(), path.absolute()
    return named == path or named in path.parents or path.parent in named.parents


@contextmanager
def atomic_path(path: Path, *, new: bool = False) -> Iterator[Path]:
    """Yield a temporary path next to `path`; on success it replaces `path` in one step, on failure it goes.

    Args:
        path: the file.
        new: take nothing's place, not even that of a file which another process wrote meanwhile.

    Raises:
        FileExistsError: something is there, and `new` is asked for.
        StorageError: the folder or file cannot be written.
    """
    import tempfile

    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:_PREFIX]}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            if not (taken := new and not _claimed(path)):
                temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    if taken:  # Not inside: this is an answer, and no fault of the system.
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _claimed(path: Path) -> bool:
    """Make the file, empty, where nothing of its name is there: whether it was made."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def encode(text: str) -> bytes:
    """UTF-8 of text that may hold names of files.

    A byte of a name that is not UTF-8, which Python holds as a lone surrogate, becomes JSON's own escape for it: so
    JSON gives the same name back, and other text shows it.
    """
    return text.encode("utf-8", UNENCODABLE)


def name_as_text(name: str) -> str:
    """What a file's name says, which is in UTF-8 whatever the locale takes it for: the same on every machine.

    Bytes that are not UTF-8 stay lone surrogates; a text that cannot be a name in this locale is left as it is.
    """
    try:
        return os.fsencode(name).decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return name


def text_as_name(text: str) -> str:
    """The name of a file, as this locale has it, that is `text` in UTF-8: the way back from `name_as_text`."""
    try:
        return os.fsdecode(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return text


def write_bytes(path: Path, content: bytes, *, new: bool = False) -> None:
    """Write `content` to `path` atomically; with `new` as `atomic_path` says."""
    with atomic_path(path, new=new) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str, *, new: bool = False) -> None:
    """Write `content`, as `encode` does, to `path` atomically; with `new` as `atomic_path` says."""
    write_bytes(path, encode(content), new=new)


def write_json(path: Path, value: Any) -> None:
    """Write a record or plain values as indented JSON, atomically."""
    write_text(path, json.dumps(to_json(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, kind: type[R]) -> R:
    """Read a record written by `write_json`.

    Raises:
        ValueError: it is not JSON or not such a record.
    """
    return from_json(kind, json.loads(path.read_text(encoding="utf-8")))


def sha256_bytes(content: bytes) -> str:
    """SHA-256 of bytes as 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def sha256_stream(file: IO[bytes]) -> str:
    """SHA-256 of what is left in an open file, read in pieces."""
    digest = hashlib.sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file as 64 hex digits."""
    with path.open("rb") as file:
        return sha256_stream(file)


def sha256_json(value: Any) -> str:
    """SHA-256 of the canonical JSON of a record or plain values: the same for equal values."""
    text = json.dumps(to_json(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256_bytes(encode(text))


def cache_dir() -> Path:
    """The user's cache folder for edgetl: `$EDGETL_CACHE`, else `$XDG_CACHE_HOME/edgetl`, else `~/.cache/edgetl`.

    Raises:
        StorageError: this user has no home folder, and none of the variables is set.
    """
    if own := os.environ.get("EDGETL_CACHE"):
        return Path(own)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "edgetl"
    try:
        return Path.home() / ".cache" / "edgetl"
    except RuntimeError:
        raise StorageError(f"This user has no home folder. {_OTHER_CACHE}") from None


class StageCache:
    """Remembers finished stages in a run folder, so that a second run redoes only what is stale.

    A stage's key is the hash of its config, its inputs (`edgetl.keys`) and edgetl's code. `STAGE/stage.json`
    is written last, atomically, so a killed stage counts as not done. A stage whose output files are gone or
    altered is stale too.
    """

    def __init__(self, run_dir: Path, works: Callable[[str], None] = lambda _: None) -> None:
        """Say where the stages' folders lie, and what is called with a stage that is stale before it is done."""
        self.run_dir, self._works = run_dir, works

    def run(
        self,
        stage: str,
        *,
        config: Any,
        inputs: Any,
        kind: type[R],
        outputs: Callable[[R], list[str]],
        work: Callable[[Path], R],
    ) -> tuple[R, bool]:
        """Return the stage's record and whether it came from the cache.

        Args:
            stage: the stage's folder name.
            config: its config.
            inputs: what it reads.
            kind: the record's type.
            outputs: the record's files, relative to the run folder.
            work: does the stage in the folder that it is given.
        """
        config = key_of(config)
        key = sha256_json({"stage": stage, "config": config, "inputs": key_of(inputs), "code": sources()})
        folder = self.run_dir / stage
        if (record := self._load(folder / "stage.json", key, kind)) is not None:
            return record, True
        self._works(stage)
        (folder / "stage.json").unlink(missing_ok=True)
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _clear_leftovers(folder, stage, key, config)
        started = time.monotonic()
        record = work(folder)
        seconds = round(time.monotonic() - started, 3)
        hashes = {name: sha256_file(self.run_dir / name) for name in outputs(record)}
        write_json(
            folder / "stage.json",
            {"key": key, "files": hashes, "seconds": seconds, "record": to_json(record)},
        )
        return record, False

    def seconds(self, stage: str) -> float:
        """How long the stage's work took when it was done; 0 where it was not."""
        try:
            return float(
                json.loads((self.run_dir / stage / "stage.json").read_text(encoding="utf-8"))["seconds"]
            )
        except (OSError, ValueError, KeyError):
            return 0.0

    def _load(self, path: Path, key: str, kind: type[R]) -> R | None:
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            if saved["key"] != key:
                return None
            if any(sha256_file(self.run_dir / name) != digest for name, digest in saved["files"].items()):
                return None
            return from_json(kind, saved["record"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _clear_leftovers(folder: Path, stage: str, key: str, config: Any) -> None:
    """Keep an unfinished stage's files when resuming; drop those made for another key.

    Raises:
        ConfigError: they hold finished epochs (`*.state`), which are not thrown away without being asked.
    """
    started = folder / "started"
    try:
        before = json.loads(started.read_text(encoding="utf-8"))
        if before["key"] == key:
            return
    except (OSError, ValueError, KeyError, TypeError):
        before = None
    if before is not None and any(folder.rglob("*.state")):
        changed = _differences(before.get("config"), config, stage)
        raise ConfigError(
            f"{folder} holds unfinished training under other settings ({changed}). Take the change back to go on,"
            f" delete {folder} to start afresh, or choose another folder with --out."
        )
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() or path.is_symlink() else path.rmdir()
    write_json(started, {"key": key, "config": config})


def _differences(before: Any, now: Any, stage: str) -> str:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        names = [n for n in {**before, **now} if before.get(n) != now.get(n)]
        if names:
            return ", ".join(f"{stage}.{n}: {before.get(n)}, now {now.get(n)}" for n in names)
    return "the data, an earlier stage or edgetl's code differs"
