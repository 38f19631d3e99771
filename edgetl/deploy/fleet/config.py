"""FLEET.toml: which devices there are, where edgetl stands on them, and how patient to be."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from edgetl.errors import ConfigError

ENGINES = ("onnxruntime", "onnxruntime-gpu", "openvino", "ai-edge-litert", "tensorrt-rtx", "cuda-bindings")
"""Packages of inference engines; the last is what TensorRT needs where the system brings it."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@:%\[\]/-]{0,254}")
_PATH = re.compile(r"[A-Za-z0-9_/~.][A-Za-z0-9_/.+@ -]{0,254}")


@dataclass(frozen=True, kw_only=True)
class Device:
    """One device.

    Attributes:
        name: what it is called here; files are named after it.
        host: as `ssh` takes it: a name of your ssh settings, USER@HOST, or ssh://USER@HOST:PORT; the name where unset.
        folder: where all of it is there, from the home folder unless it begins with a slash.
        python: Python 3.11 or newer there, a name on its PATH or a path.
        engine: package of the inference engine that `edgetl fleet init` installs.
        system_packages: let the environment see the system's own packages, as a Jetson's TensorRT.
        captured: the folder in which it keeps images, from `folder` unless it begins with a slash.
    """

    name: str
    host: str
    folder: str = "edgetl"
    python: str = "python3"
    engine: str = "onnxruntime"
    system_packages: bool = False
    captured: str = "captured"


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """The devices, and what holds for all of them.

    Attributes:
        path: the file.
        devices: in the order of the file.
        parallel: devices that are worked on at the same time.
        ssh_config: settings of `ssh` in place of your own.
        require_signature: a public key; bundles that it did not sign are refused, on the devices too.
        connect_s: seconds until a device that does not answer is away.
        step_s: longest time of one step there, in seconds.
        stall_s: seconds without progress after which an upload is broken off.
        clock_s: seconds by which a device's clock may differ from this one's.
        retries: how often a connection that broke is tried again, where it had been there before.
    """

    path: Path
    devices: tuple[Device, ...]
    parallel: int = 8
    ssh_config: Path | None = None
    require_signature: Path | None = None
    connect_s: float = 15.0
    step_s: float = 1800.0
    stall_s: float = 60.0
    clock_s: float = 300.0
    retries: int = 2

    def only(self, names: Sequence[str]) -> Fleet:
        """The fleet with these devices alone; with all of them where no name is given.

        Raises:
            ConfigError: there is no device of a name.
        """
        known = {device.name: device for device in self.devices}
        wrong = [name for name in names if name not in known]
        if wrong:
            raise ConfigError([f"{self.path} has no device {name}.{_hint(name, known)}" for name in wrong])
        chosen = tuple(device for device in self.devices if device.name in names)
        return replace(self, devices=chosen) if names else self


_SHARED = ("folder", "python", "engine", "system_packages", "captured")
_OWN = ("host", *_SHARED)
_TOP = tuple(f.name for f in fields(Fleet) if f.name not in ("path", "devices"))
_LEAST: Mapping[str, float] = {
    "parallel": 1,
    "connect_s": 1,
    "step_s": 1,
    "stall_s": 1,
    "clock_s": 1,
    "retries": 0,
}
_MOST: Mapping[str, float] = {"parallel": 256, "retries": 20}
_DAY = 86_400.0


def load(path: Path) -> Fleet:
    """Read a file of devices.

    Raises:
        ConfigError: it is missing or wrong; carries all problems at once.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"There is no {path}. For what it holds: edgetl guide fleet") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text in UTF-8 ({error.reason}).") from None
    try:
        return parse(tomllib.loads(text), path)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from None


def parse(values: Mapping[str, Any], path: Path) -> Fleet:
    """The fleet that a file's values describe; other files are named from the folder of `path`.

    Raises:
        ConfigError: values are wrong; carries all problems at once.
    """
    problems: list[str] = []
    shared = _checked(values, (*_TOP, *_SHARED, "devices"), "", problems)
    listed = values.get("devices")
    if not isinstance(listed, Mapping) or not listed:
        problems.append("devices: there are none. Write a line [devices.NAME] for each.")
        listed = {}
    devices = []
    for name, own in listed.items():
        where = f"devices.{name}."
        if not _NAME.fullmatch(name):
            problems.append(
                f"devices.{name}: the name may have letters, digits, dots, dashes and underscores, and begins with a"
                " letter or digit."
            )
        if not isinstance(own, Mapping):
            problems.append(f"devices.{name}: expected a table [devices.{name}], got {own!r}.")
            continue
        found = {k: v for k, v in shared.items() if k in _SHARED} | _checked(own, _OWN, where, problems)
        devices.append(Device(**{"name": name, "host": name, **found}))
    hosts: dict[tuple[str, str], str] = {}
    for device in devices:
        if (before := hosts.setdefault((device.host, device.folder), device.name)) != device.name:
            problems.append(f"devices.{device.name}: it has the host and folder of {before}.")
    top = {key: value for key, value in shared.items() if key in _TOP}
    for key in ("ssh_config", "require_signature"):
        if key in top:
            top[key] = path.parent / Path(top[key]).expanduser()
            if not top[key].is_file():
                problems.append(f"{key}: there is no file {top[key]}.")
    if problems:
        raise ConfigError([f"{path}: {problem}" for problem in problems])
    return Fleet(path=path, devices=tuple(devices), **top)


def _checked(
    values: Mapping[str, Any], known: Sequence[str], where: str, problems: list[str]
) -> dict[str, Any]:
    """The values that are right; what is wrong is added to `problems`."""
    hints = get_type_hints(Device) | get_type_hints(Fleet)
    usual = {f.name: f.default for f in (*fields(Device), *fields(Fleet)) if f.default is not MISSING}
    found = dict[str, Any]()
    for key, value in values.items():
        if key not in known:
            problems.append(f"{where}{key}: no such key.{_hint(key, known)}")
        elif key == "devices":
            continue
        elif (wrong := _wrong(key, value, hints[key])) is not None:
            example = f", e.g. {usual[key]}" if usual.get(key) not in (None, False) else ""
            problems.append(f"{where}{key}: got {value!r}, expected {wrong}{example}.")
        else:
            found[key] = value
    return found


def _wrong(key: str, value: Any, kind: Any) -> str | None:
    """What is expected in the value's place; None where it is right."""
    if kind is bool:
        return None if isinstance(value, bool) else "true or false"
    if kind in (int, float):
        low, high = _LEAST[key], _MOST.get(key, _DAY)
        number = isinstance(value, int | float if kind is float else int) and not isinstance(value, bool)
        whole = "a number" if kind is float else "a whole number"
        return None if number and low <= value <= high else f"{whole} from {low:g} to {high:g}"
    if not isinstance(value, str) or not value:
        return "text"
    if key == "engine":
        return None if value in ENGINES else f"one of {', '.join(ENGINES)}"
    if key == "host":
        return None if _HOST.fullmatch(value) else "a name as ssh takes it, without spaces"
    if key in ("folder", "captured", "python"):
        plain = value.removeprefix("~/")
        good = _PATH.fullmatch(plain) and "~" not in plain and ".." not in Path(plain).parts
        if good and (key != "folder" or Path(plain) not in (Path("/"), Path())):
            return None
        return "a path there of letters, digits, spaces and ._+@/-, without `..`"
    return None


def _hint(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]}?" if close else f" There are {', '.join(known)}."
