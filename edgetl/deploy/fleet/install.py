"""`edgetl fleet init`: the wheel and one engine on a device, in an environment of its own.

An environment gets a folder by what is in it, is made whole there, and then the link `env` is switched. So a device
whose installation broke keeps what it had.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from edgetl.deploy.fleet.place import Place, Seen, program
from edgetl.deploy.fleet.record import DeviceRecord, Outcome
from edgetl.deploy.fleet.wheels import Wheel, choose, find
from edgetl.deploy.fleet.work import Reporter
from edgetl.errors import ConfigError, DeviceError
from edgetl.files import sha256_file, sha256_json
from edgetl.packages import PIP_NAMES

LEAST_PYTHON = (3, 11)
_SPACE_BYTES = 400 << 20
"""What an environment with one engine takes, and pip meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Installation:
    """What is installed.

    Attributes:
        wheel: edgetl's own.
        wheels: carried to the devices, which then need no network; None where they fetch packages themselves.
        folder: where `wheels` lie.
        hashes: SHA-256 of each file, by name.
        further: packages beside the engine.
    """

    wheel: Path
    wheels: tuple[Wheel, ...] | None
    folder: Path
    hashes: dict[str, str]
    further: tuple[str, ...] = ()

    def packages(self, engine: str) -> tuple[str, ...]:
        """What pip is asked for on a device, beside edgetl."""
        return (engine, *self.further)


def installation(wheel: Path | None, wheels: Path | None, *, signed: bool = False) -> Installation:
    """What is to be installed, from what the user named.

    Args:
        wheel: edgetl's own; where unset the newest in `wheels`, else in `dist`.
        wheels: a folder of all wheels that devices need.
        signed: whether devices shall check signatures.

    Raises:
        ConfigError: there is no such file or folder.
    """
    found = find(wheels) if wheels is not None else None
    if wheel is None:
        places = [folder for folder in (wheels, Path("dist")) if folder is not None]
        own = [path for folder in places for path in folder.glob("edgetl-*.whl")]
        if not own:
            raise ConfigError(
                f"There is no edgetl-*.whl in {' or '.join(map(str, places))}. Make it with: make wheel"
            )
        wheel = max(own, key=lambda path: path.stat().st_mtime)
    if not (wheel.is_file() and wheel.name.startswith("edgetl-") and wheel.suffix == ".whl"):
        raise ConfigError(f"{wheel} is not a wheel of edgetl. Make one with: make wheel")
    files = [wheel, *(each.path for each in found or ())]
    return Installation(
        wheel=wheel,
        wheels=found,
        folder=wheels or wheel.parent,
        hashes={path.name: sha256_file(path) for path in files},
        further=(PIP_NAMES["cryptography"],) if signed else (),
    )


def install(place: Place, wanted: Installation, reporter: Reporter) -> DeviceRecord:
    """Install on one device.

    Raises:
        DeviceError: it lacks Python, space or wheels; or the installation fails there.
    """
    device = place.device
    reporter.step("look")
    seen = place.look(make=True)
    python = _python(place, seen)
    place.clock(seen)
    carried = [wanted.wheel]
    if wanted.wheels is not None:
        fit = choose(
            wanted.wheels,
            wanted.packages(device.engine),
            seen.python,  # type: ignore[arg-type]
            seen.state.system,
            seen.state.machine,
            wanted.folder,
        )
        carried += [wheel.path for wheel in fit if wheel.name != "edgetl"]
    about = {
        "files": {path.name: wanted.hashes[path.name] for path in carried},
        "packages": wanted.packages(device.engine),
        "system": device.system_packages,
        "offline": wanted.wheels is not None,
        "python": seen.state.python,
    }
    key = sha256_json(about)[:16]
    environment = f"envs/{key}"
    sent = 0
    if place.run(f"test -f {environment}/.ready").code != 0:
        place.room(seen, _SPACE_BYTES)
        reporter.step("carry")
        for path in carried:
            sha256 = wanted.hashes[path.name]
            sent += place.send(
                path,
                sha256,
                f"wheels/{sha256[:16]}/{path.name}",
                python=python,
                tell=reporter.bytes,
            )
        reporter.step("install")
        _make(place, wanted, environment, [f"wheels/{wanted.hashes[p.name][:16]}" for p in carried], python)
    reporter.step("check")
    answer = place.run(f"{environment}/bin/python -m edgetl --version")
    if answer.code != 0:
        raise DeviceError(f"what was installed does not run there: {answer.last_words}.")
    version = answer.text.split("\n")[0]
    reporter.step("switch")
    switched = place.run(place.linking(environment, "env", python))
    if switched.code != 0:
        raise DeviceError(f"the link env cannot be switched there: {switched.last_words}.")
    place.run(
        f'for f in envs/*; do case "$f" in {environment}) ;; *) rm -rf -- "$f" ;; esac; done; rm -rf wheels'
    )
    after = place.look()
    return reporter.record(
        Outcome.DONE,
        f"{version} with {device.engine}, in {device.folder}/env.",
        sent_bytes=sent,
        state=after.state,
        current=after.state.current,
    )


def _python(place: Place, seen: Seen) -> str:
    """The device's Python, for a shell.

    Raises:
        DeviceError: there is none, or it is too old.
    """
    name = place.device.python
    least = ".".join(map(str, LEAST_PYTHON))
    if seen.python is None:
        raise DeviceError(
            f'it has no Python `{name}`. Install Python {least} or newer there, or name it with python = "..." in'
            " the file of devices."
        )
    if seen.python.version < LEAST_PYTHON:
        version = ".".join(map(str, seen.python.version))
        raise DeviceError(
            f"its `{name}` is Python {version}, and {least} or newer is needed. Install one there, and name it with"
            ' python = "python3.11" in the file of devices.'
        )
    return program(name)


def _make(place: Place, wanted: Installation, environment: str, folders: list[str], python: str) -> None:
    """Make the environment whole, and then mark it so.

    Raises:
        DeviceError: Python cannot make environments, or pip cannot install.
    """
    sees = "--system-site-packages " if place.device.system_packages else ""
    made = place.run(f"rm -rf {environment} && mkdir -p envs && {python} -m venv {sees}{environment}")
    if made.code != 0:
        said = made.text.strip().splitlines()
        reason = made.last_words or (said[0] if said else f"exit code {made.code}")
        raise DeviceError(
            f"its Python cannot make an environment: {reason.rstrip('.')}. On Debian and Ubuntu install the package"
            f" python{'.'.join(map(str, LEAST_PYTHON))}-venv, or that of its version."
        )
    offline = wanted.wheels is not None
    sources = " ".join(f"--find-links {folder}" for folder in folders)
    fetch = f"--no-index {sources} " if offline else ""
    own = f"{folders[0]}/{shlex.quote(wanted.wheel.name)}"
    installed = place.run(
        f"{environment}/bin/python -m pip install --quiet --disable-pip-version-check --no-input {fetch}{own}"
        f" {' '.join(wanted.packages(place.device.engine))} && touch {environment}/.ready"
    )
    if installed.code != 0:
        found = [line for line in installed.error.splitlines() if line.startswith("ERROR: ")]
        reason = (found[0].removeprefix("ERROR: ") if found else installed.last_words).rstrip(".")
        remedy = (
            f"Add what is missing to {wanted.folder}."
            if offline
            else "Where the device has no network, carry the wheels with --wheels FOLDER."
        )
        raise DeviceError(f"pip cannot install there: {reason}. {remedy}")
