"""Engines in forked children: a fork copies an engine's memory and none of its threads.

Whoever then runs or frees the engine waits for those threads for ever, and a GPU refuses the child. So no child frees
an engine that it inherited, and using one says what to do. `os.register_at_fork` does the marking; calls cost nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import NoReturn, Self
from weakref import WeakSet

from edgetl.errors import ForkError

_alive: WeakSet[Inheritable] = WeakSet()
_starting: WeakSet[threading.Thread] = WeakSet()
_registered = False
_started: dict[str, int] = {}


class Inheritable:
    """Base of what holds an engine, which a `with` block closes. `inherited`: it came into this process by a fork."""

    inherited = False

    def close(self) -> None:
        """Free the engine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied, as pools of processes and `copy` would have it.

        Raises:
            ForkError: always.
        """
        raise ForkError(
            f"A {type(self).__name__} cannot be pickled or copied, since its engine lives in this process: give the"
            " other process the bundle's path, and load it there."
        )

    def watch_forks(self) -> None:
        """Mark this object in every child that is forked from now on."""
        _register()
        _alive.add(self)

    def natives(self) -> Iterable[object]:
        """The engine's own objects, which a child must never free."""
        return ()

    def in_child(self) -> None:
        """Called in the child, before anything else of ours runs there."""


def wait_for(thread: threading.Thread) -> None:
    """Have forks wait until this short-lived thread is done: an import that it holds half done could not go on."""
    _register()
    _starting.add(thread)


class Refusing:
    """Stands where an inherited engine stood."""

    def __getattr__(self, name: str) -> NoReturn:
        refuse()


def refuse() -> NoReturn:
    """Raise what using an inherited engine deserves."""
    raise ForkError(
        "This session was loaded before the process forked, and its engine's threads stayed in the parent: "
        "load it in the child (gunicorn: in post_fork, or without --preload; multiprocessing: in the worker, or spawn)."
    )


def start(engine: str) -> None:
    """Note that this process starts an engine which no child of it can start again.

    Raises:
        ForkError: this process is such a child.
    """
    if _started.setdefault(engine, os.getpid()) != os.getpid():
        raise ForkError(
            f"{engine} ran in the parent before this process was forked, and cannot start anew in the child: "
            "load only in the children, or start them with spawn."
        )


def _register() -> None:
    global _registered
    if not _registered and hasattr(os, "register_at_fork"):
        _registered = True
        os.register_at_fork(before=_before, after_in_child=_after)


def _before() -> None:
    for thread in list(_starting):
        if thread is not threading.current_thread():
            thread.join()


def _after() -> None:
    for owner in list(_alive):
        if not owner.inherited:  # A child's child has nothing left to keep.
            owner.inherited = True
            for native in owner.natives():
                _keep_for_ever(native)
        owner.in_child()


def _keep_for_ever(thing: object) -> None:
    """One reference that nobody gives back, not even the interpreter at its end."""
    import ctypes  # numpy has loaded it.

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
