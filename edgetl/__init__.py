"""edgetl: from a folder of images to a gated model on an edge device.

`import edgetl` is light: it loads neither torch nor an inference engine. `edgetl.load(path)` opens a bundle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgetl._version import __version__

__all__ = ["EdgetlError", "Prediction", "Session", "__version__", "load"]

if TYPE_CHECKING:
    from edgetl.errors import EdgetlError
    from edgetl.runtime import Prediction, Session, load

_HOMES = {
    "EdgetlError": "edgetl.errors",
    "Prediction": "edgetl.runtime",
    "Session": "edgetl.runtime",
    "load": "edgetl.runtime",
}


def __getattr__(name: str) -> Any:
    """Resolve the public names on first use (PEP 562), so that the import itself stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'edgetl' has no attribute {name!r}")
    import importlib

    from edgetl.process import collector_off

    with collector_off():
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
