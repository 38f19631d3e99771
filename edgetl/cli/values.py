"""Values of options that are lists parted by commas."""

from __future__ import annotations

from edgetl.errors import ConfigError


def names(option: str, text: str) -> tuple[str, ...]:
    """The names, each once.

    Raises:
        ConfigError: one is empty.
    """
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if not all(found):
        raise ConfigError(f"{option}: got {text!r}, expected names parted by commas.")
    return found


def numbers(option: str, text: str) -> tuple[float, ...]:
    """The numbers, each once.

    Raises:
        ConfigError: one is none.
    """
    try:
        return tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        raise ConfigError(
            f"{option}: got {text!r}, expected numbers parted by commas, as in 0,0.5."
        ) from None


def sides(text: str) -> tuple[int, ...]:
    """The sides of `--sizes` in pixels, each once.

    Raises:
        ConfigError: one is no whole number from 16 to 1024.
    """
    parts = [part.strip() for part in text.split(",")]
    found = [int(part) for part in parts if part.isascii() and part.isdecimal() and len(part) < 6]
    if len(found) != len(parts) or not all(16 <= side <= 1024 for side in found):
        raise ConfigError(
            f"--sizes: got {text!r}, expected whole numbers of pixels from 16 to 1024, parted by commas, as in"
            " 96,128,160."
        )
    return tuple(dict.fromkeys(found))
