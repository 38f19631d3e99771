"""The models that a server has, and how a new bundle takes an old one's place without losing a request."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgetl.bundle.archive import open_bundle
from edgetl.bundle.layout import INDEX_FILE, is_layout
from edgetl.deploy.server.answers import Refusal
from edgetl.deploy.server.lane import Lane
from edgetl.deploy.server.log import Log
from edgetl.deploy.server.metrics import Metrics
from edgetl.deploy.server.options import Batching, ModelOptions, is_name
from edgetl.errors import BundleError, ConfigError, EdgetlError
from edgetl.progress import SILENT, Progress
from edgetl.runtime.session import Session, load
from edgetl.shell import command

_VERSION_DIGITS = 12

Stamp = tuple[int, int, int, int]
"""What changes when a file is replaced or rewritten."""


@dataclass(eq=False)
class Served:
    """One model.

    Attributes:
        name: in addresses; it stays when the bundle is replaced.
        path: of the bundle.
        lane: which answers now.
        version: the first digits of the bundle's SHA-256.
        stamp: of the file that is served, or was refused last.
        pending: of a file that was seen once; one that is still being written changes again.
    """

    name: str
    path: Path
    lane: Lane
    version: str
    stamp: Stamp | None
    pending: Stamp | None = None

    @property
    def session(self) -> Session:
        """The model that answers now."""
        return self.lane.session


class Models(Mapping[str, Served]):
    """All models by name. Only the server's own thread looks them up and replaces them.

    Args:
        paths: the bundles by the names that they were given; of one without a name its path as text.
        options: which model of each bundle.
        batching: how requests become batches.
        metrics: where to count.
        log: where it is said that a bundle is refused.
        progress: of loading them.

    Raises:
        BundleError: a bundle cannot be used, or its outputs here are not those that were recorded.
        ConfigError: two have one name, or a name that no address can have.
    """

    def __init__(
        self,
        paths: Mapping[str, Path],
        options: ModelOptions,
        batching: Batching,
        metrics: Metrics,
        log: Log,
        *,
        progress: Progress = SILENT,
    ) -> None:
        self._options, self._batching, self._metrics, self._log = options, batching, metrics, log
        self._served: dict[str, Served] = {}
        self._closing = set[asyncio.Task[None]]()
        try:
            with progress.task("Loading", total=len(paths)) as task:
                for given, path in paths.items():
                    self._add(None if given == str(path) else given, path)
                    task.advance()
        except BaseException:
            self.close()
            raise

    def __getitem__(self, name: str) -> Served:
        return self._served[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._served)

    def __len__(self) -> int:
        return len(self._served)

    def find(self, name: str, version: str | None = None) -> Served:
        """The model of that name.

        Raises:
            Refusal: there is none, or it is of another version now.
        """
        if (found := self._served.get(name)) is None:
            raise Refusal(404, f"There is no model {name!r:.80}; there is {', '.join(self._served)}.")
        if version not in (None, found.version):
            raise Refusal(404, f"{name} is of the version {found.version}, not {version!r:.80}.")
        return found

    async def watch(self, seconds: float) -> None:
        """Look at the bundles' files for ever; what is new is checked, and takes over where it is right."""
        while True:
            await asyncio.sleep(seconds)
            for served in self._served.values():
                await self._look(served)

    def close(self) -> None:
        """Answer what waits, then free all models."""
        for served in self._served.values():
            served.lane.close()

    async def settle(self) -> None:
        """Wait until the models that were replaced are freed."""
        if self._closing:
            await asyncio.wait(self._closing)

    # --- loading --------------------------------------------------------------------------------------

    def _add(self, given: str | None, path: Path) -> None:
        stamp = _stamp(path)
        session = self._load(path)
        try:
            name = given or session.manifest.name
            if not is_name(name):
                raise ConfigError(
                    f"{path} is named {name!r}, which no address can have; give it as NAME={path}."
                )
            if name in self._served:
                raise ConfigError(
                    f"{path} and {self._served[name].path} are both named {name}; give one as NAME={path}."
                )
            version = session.bundle.sha256()[:_VERSION_DIGITS]
        except EdgetlError:
            session.close()
            raise
        lane = Lane(session, name, self._batching, self._metrics)
        self._served[name] = Served(name=name, path=path, lane=lane, version=version, stamp=stamp)
        self._metrics.swaps.add(name, "taken", by=0)

    def _load(self, path: Path) -> Session:
        """A session whose golden images come out here as they did where the bundle was made.

        Raises:
            EdgetlError: as `load`; or they do not.
        """
        options = self._options
        session = load(
            path,
            target=options.target,
            variant=options.variant,
            precision=options.precision,
            threads=options.threads,
            require_signature=options.require_signature,
        )
        try:
            check = session.verify()
            if not check.passed:
                raise BundleError(
                    f"{path} does not compute here what it was measured with: {check.reason.rstrip('.')}. "
                    f"See: {command('verify', path)}"
                )
            # What workers share is loaded now, and not by the first requests that come together.
            size = session.manifest.preprocess.size
            session.buffers(1, beside=True).outputs([np.zeros((size, size, 3), np.uint8)])
        except EdgetlError:
            session.close()
            raise
        return session

    async def _look(self, served: Served) -> None:
        stamp = _stamp(served.path)
        if stamp is None or stamp == served.stamp:
            served.pending = None
            return
        if stamp != served.pending:  # It may still be written.
            served.pending = stamp
            return
        served.pending, served.stamp = None, stamp
        try:
            session, version = await asyncio.to_thread(self._successor, served)
        except EdgetlError as error:
            self._metrics.swaps.add(served.name, "refused")
            self._log.warning(
                "bundle refused",
                model=served.name,
                kept=served.version,
                reason=str(error),
                path=str(served.path),
            )
            return
        if session is None:
            return
        old, before = served.lane, served.version
        served.lane = Lane(session, served.name, self._batching, self._metrics)
        served.version = version
        self._metrics.swaps.add(served.name, "taken")
        self._log.info(
            "bundle taken", model=served.name, version=version, before=before, path=str(served.path)
        )
        closing = asyncio.create_task(asyncio.to_thread(old.close))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _successor(self, served: Served) -> tuple[Session | None, str]:
        """The new bundle's session and version; none where it is the one that is served.

        Raises:
            EdgetlError: it cannot take over.
        """
        version = open_bundle(served.path).sha256()[:_VERSION_DIGITS]
        if version == served.version:
            return None, version
        session = self._load(served.path)
        was, now = served.session.manifest.task.kind, session.manifest.task.kind
        if was != now:
            session.close()
            raise BundleError(
                f"{served.path} is of the task {now}, and {served.name} answers {was}; serve it under another name."
            )
        return session, session.bundle.sha256()[:_VERSION_DIGITS]


def _stamp(path: Path) -> Stamp | None:
    """None where nothing can be seen there: what is gone is no reason to stop."""
    try:
        found = os.stat(path / INDEX_FILE if is_layout(path) else path)  # noqa: PTH116
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
