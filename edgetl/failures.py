"""What the operating system refuses, in one sentence: the one place that maps its errors to words and remedies."""

from __future__ import annotations

import errno
import os

_CAUSES: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("no space left on the device", "Free some space there, or choose another folder."),
    errno.EDQUOT: ("the quota of this user is used up", "Free some space there, or choose another folder."),
    errno.EFBIG: ("the file would grow too large for its file system", "Choose another folder."),
    errno.EACCES: ("permission denied", "Check its owner and rights, or choose another place."),
    errno.EPERM: ("permission denied", "Check its owner and rights, or choose another place."),
    errno.EROFS: ("the file system is read-only", "Choose another place."),
    errno.ENOENT: ("no such file or folder", "Check the path."),
    errno.ENOTDIR: ("a file stands where a folder was expected", "Check the path."),
    errno.EISDIR: ("it is a folder, and a file was expected", "Check the path."),
    errno.EEXIST: ("something of that name is there already", "Move it away, or choose another name."),
    errno.ENOTEMPTY: ("a folder of that name is there already", "Move it away, or choose another name."),
    errno.ENAMETOOLONG: ("the name is too long", "Choose a shorter one."),
    errno.EINVAL: ("the system does not take such a name or file", "Check the path."),
    errno.ELOOP: ("its symbolic links lead round in a circle", "Mend the links."),
    errno.EXDEV: ("it would move from one file system to another", "Choose a folder on the same one."),
    errno.EIO: ("the device reports an input or output error", "The disk or the connection to it may fail."),
    errno.ENXIO: ("there is no such device", "Check the path."),
    errno.ENODEV: ("there is no such device", "Check the path."),
    errno.ESTALE: ("the network file system has lost it", "Mount it again."),
    errno.ENOTCONN: ("the file system is not connected", "Mount it again."),
    errno.EBADF: ("it is closed", "Open it, or redirect it to a file."),
    errno.EPIPE: ("its reader has gone", "Let the reader read to the end, or write to a file."),
    errno.EMFILE: ("too many files are open", "Raise the limit with: ulimit -n 4096"),
    errno.ENFILE: ("too many files are open on this machine", "Close other programs."),
    errno.ENOMEM: ("not enough memory", "Close other programs."),
    errno.ETXTBSY: ("another process runs or writes it", "Wait for it, or choose another name."),
}
"""Number of an error to its cause, as it ends a sentence, and to what to do, as a sentence."""


def cause(error: OSError) -> str:
    """Why, in a few words without a full stop; the system's own words for an error that has none here."""
    if error.errno in _CAUSES:
        return _CAUSES[error.errno][0]
    words = error.strerror or str(error) or type(error).__name__
    return words[:1].lower() + words[1:].rstrip(".")


def remedy(error: OSError) -> str:
    """What to do, as a sentence; empty where nothing is known."""
    return _CAUSES[error.errno][1] if error.errno in _CAUSES else ""


def explain(error: BaseException) -> str | None:
    """One sentence on what the machine, its files or a name refuses; None for anything else, which is a bug.

    Beside the operating system's errors these are: a name with a null character or one that cannot be encoded, the
    home folder of a user who has none, and a lack of memory.
    """
    match error:
        case OSError() if error.errno is not None:
            where = _names(error)
            return f"{where}: {cause(error)}. {remedy(error)}".rstrip() if where else _sentence(error)
        case UnicodeEncodeError() if _is_name(error):
            return (
                f"{error.object!r:.80} cannot be the name of a file here, where names are in {error.encoding}. "
                "Set PYTHONUTF8=1, or a UTF-8 locale such as LC_ALL=C.UTF-8."
            )
        case ValueError() if "embedded null" in str(error):
            return "A name of a file holds a null character, which no file system takes. Check the path."
        case RuntimeError() if "home directory" in str(error):
            return (
                "A home folder cannot be found: a path begins with ~ and there is no such user, or this user has none. "
                "Begin the path with ./ where ~ is part of a name; set HOME, or EDGETL_CACHE for the cache folder."
            )
        case MemoryError():
            return "Not enough memory. " + _LESS
        case RuntimeError() if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(
            error
        ):
            return "Not enough memory. " + _LESS
        case _:
            return None


def death(code: int) -> str:
    """How a process ended: `signal SIGSEGV`, or `exit code 3`; `code` as `subprocess` gives it."""
    if code < 0:
        import signal

        try:
            return f"signal {signal.Signals(-code).name}"
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"


_LESS = "Close other programs, or take a smaller batch, image size or network."


def _sentence(error: OSError) -> str:
    text = cause(error)
    return f"{text[:1].upper()}{text[1:]}. {remedy(error)}".rstrip()


def _names(error: OSError) -> str:
    names = (error.filename, error.filename2)
    return " to ".join(os.fsdecode(n) if isinstance(n, bytes) else str(n) for n in names if n is not None)


def _is_name(error: UnicodeEncodeError) -> bool:
    """Whether it comes from the system's encoding of names, not from one that the program chose for a text."""
    import sys

    own = sys.getfilesystemencoding().replace("-", "").lower()
    return error.encoding.replace("-", "").lower() == own
