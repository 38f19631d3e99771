"""The torch-free runtime: open a bundle, predict, score, and prove what this machine computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["Prediction", "Session", "load"]

if TYPE_CHECKING:
    from edgetl.runtime.session import Session, load
    from edgetl.tasks.all import Prediction


def __getattr__(name: str) -> Any:
    """Resolve the public names on first use (PEP 562), so that the import itself stays light."""
    if name not in __all__:
        raise AttributeError(f"module 'edgetl.runtime' has no attribute {name!r}")
    if name == "Prediction":  # A union that `isinstance` takes, of whatever a task may answer.
        from edgetl.tasks.all import prediction_types

        return prediction_types()
    from edgetl.runtime import session

    return getattr(session, name)
