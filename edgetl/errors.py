"""Every exception that a user may meet.

EdgetlError                    the user's input or machine is at fault; the command line exits with 2
├── ConfigError                a recipe is wrong; carries all problems at once
├── DataError                  an image set is wrong (missing, empty, one class, bad labels)
│   ├── ImageError             one image cannot be used (corrupt, truncated, empty, too small)
│   │   └── SoundError         one recording cannot be used (silent, clipped, truncated, another format)
│   └── SourceError            a camera or stream cannot be opened, closed, or gives nothing any more
├── WeightsError               pretrained weights or a checkpoint cannot be had or do not fit
├── ModelError                 a network cannot be built, traced, pruned or exported
│   └── UncuttableError        pruning does not understand it; it can be trained and shipped whole
├── TrainingError              training cannot go on (non-finite loss, too few images)
├── BundleError                a bundle cannot be used
│   ├── BundleIntegrityError   truncated, altered, or unsafe
│   └── BundleSchemaError      written by a newer edgetl
├── TensorError                an array of the wrong shape or dtype came in
├── ForkError                  an engine from before a fork was used in the child, or sent to another process
├── BaselineError              no baseline, or one that cannot be compared
├── HistoryError               a history of benchmarks is missing, broken, another program's, or locked
├── StorageError               a file or stream cannot be used (no space, no permission, a name that is too long)
├── BusyError                  another process works in the same folder
├── DeviceError                a device of a fleet refuses, or lacks something
│   └── DeviceAwayError        it cannot be reached, or the connection broke
├── MissingDependencyError     an optional package or part is absent; the message names the remedy
└── Interrupted                the user stopped a run; the message says how to go on (exit code 130)

Anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class EdgetlError(Exception):
    """Base of all errors that are the user's to mend. The message is one clear sentence or a short list.

    Attributes:
        exit_code: with which the command line ends.
    """

    exit_code: ClassVar[int] = 2


class ConfigError(EdgetlError):
    """A recipe or an option is wrong.

    Attributes:
        problems: every problem found, one sentence each.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class DataError(EdgetlError):
    """An image set cannot be used."""


class ImageError(DataError):
    """One image cannot be used; the message names the file and the reason."""


class SoundError(ImageError):
    """One recording cannot be used; where images are looked at, sounds are as pictures."""


class SourceError(DataError):
    """A camera, microphone or stream cannot be opened, closed, or gives no more; what came before was given."""


class WeightsError(EdgetlError):
    """Weights or a checkpoint cannot be had, or do not fit the network."""


class ModelError(EdgetlError):
    """A network cannot be built, traced, pruned or exported; the message names the module."""


class UncuttableError(ModelError):
    """Pruning does not understand a network, whatever the settings: it can still be trained and shipped whole."""


class TrainingError(EdgetlError):
    """Training cannot go on."""


class BundleError(EdgetlError):
    """A bundle cannot be used."""


class BundleIntegrityError(BundleError):
    """A bundle is truncated, altered, or holds an unsafe path."""


class BundleSchemaError(BundleError):
    """A bundle was written for a newer schema than this version reads."""


class TensorError(EdgetlError):
    """An array has the wrong shape or dtype; the message names the tensor, what came, what was expected."""


class ForkError(EdgetlError):
    """A session was used in a child that inherited it by a fork, or sent to a process; it must be loaded there."""


class BaselineError(EdgetlError):
    """A baseline is missing, broken, or not comparable."""


class HistoryError(EdgetlError):
    """A history of benchmarks is missing, broken, another program's, or locked."""


class StorageError(EdgetlError):
    """A file or stream cannot be used; the message names it and the cause."""


class BusyError(EdgetlError):
    """Another process works in the same folder; the message names it."""


class DeviceError(EdgetlError):
    """A device of a fleet refuses, or lacks something; the message says what, and what to do."""


class DeviceAwayError(DeviceError):
    """A device of a fleet cannot be reached, is too slow, or the connection to it broke."""


class MissingDependencyError(EdgetlError):
    """An optional package or part is absent.

    Args:
        what: what is missing, e.g. `onnxruntime`.
        remedy: one imperative sentence, e.g. `Install it with: pip install onnxruntime`.
    """

    def __init__(self, what: str, remedy: str) -> None:
        self.what, self.remedy = what, remedy
        super().__init__(f"{what} is not available. {remedy}")


class Interrupted(EdgetlError):
    """The user stopped a run; what was done is saved."""

    exit_code: ClassVar[int] = 130


def to_plain(error: EdgetlError) -> dict[str, Any]:
    """An error as plain values, to be raised in another process: its class, and what that class is made from."""
    match error:
        case MissingDependencyError():
            arguments: list[Any] = [error.what, error.remedy]
        case ConfigError():
            arguments = [list(error.problems)]
        case _:
            arguments = [str(error)]
    return {"kind": type(error).__name__, "arguments": arguments}


def from_plain(values: Mapping[str, Any]) -> EdgetlError:
    """The error that `to_plain` described."""
    made = globals()[values["kind"]](*values["arguments"])
    assert isinstance(made, EdgetlError)
    return made
