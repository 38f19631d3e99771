from __future__ import annotations

from pathlib import Path

import pytest

from edgetl.deploy.fleet.config import Device, load, parse
from edgetl.errors import ConfigError


def problems(values: dict[str, object]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as raised:
        parse(values, Path("f.toml"))
    return raised.value.problems


def test_a_device_has_the_fleet_s_settings_and_its_own(tmp_path: Path) -> None:
    (tmp_path / "ssh_config").touch()
    path = tmp_path / "fleet.toml"
    path.write_text(
        'folder = "/opt/edgetl"\nparallel = 3\nssh_config = "ssh_config"\n[devices.a]\n'
        '[devices.b]\nhost = "ssh://pi@10.0.0.1:2222"\nfolder = "~/own"\nengine = "openvino"\n'
    )
    fleet = load(path)
    assert fleet.devices == (
        Device(name="a", host="a", folder="/opt/edgetl"),
        Device(name="b", host="ssh://pi@10.0.0.1:2222", folder="~/own", engine="openvino"),
    )
    assert (fleet.parallel, fleet.ssh_config) == (3, tmp_path / "ssh_config")
    assert [device.name for device in fleet.only(["b"]).devices] == ["b"]
    assert fleet.only([]) is fleet
    with pytest.raises(ConfigError, match=r"fleet.toml has no device bb. Did you mean b\?"):
        fleet.only(["bb"])


def test_all_that_is_wrong_is_said_at_once() -> None:
    assert problems(
        {
            "fodler": "x",
            "parallel": 0,
            "connect_s": "fast",
            "require_signature": "no.pub",
            "devices": {
                "-a": {},
                "b": {"host": "-oProxyCommand=reboot", "engine": "onnx"},
                "c": 3,
                "d": {"folder": "../x", "parallel": 4},
            },
        }
    ) == (
        "f.toml: fodler: no such key. Did you mean folder?",
        "f.toml: parallel: got 0, expected a whole number from 1 to 256, e.g. 8.",
        "f.toml: connect_s: got 'fast', expected a number from 1 to 86400, e.g. 15.0.",
        "f.toml: devices.-a: the name may have letters, digits, dots, dashes and underscores, and begins with a letter"
        " or digit.",
        "f.toml: devices.b.host: got '-oProxyCommand=reboot', expected a name as ssh takes it, without spaces.",
        "f.toml: devices.b.engine: got 'onnx', expected one of onnxruntime, onnxruntime-gpu, openvino, ai-edge-litert,"
        " tensorrt-rtx, cuda-bindings, e.g. onnxruntime.",
        "f.toml: devices.c: expected a table [devices.c], got 3.",
        "f.toml: devices.d.folder: got '../x', expected a path there of letters, digits, spaces and ._+@/-, without"
        " `..`, e.g. edgetl.",
        "f.toml: devices.d.parallel: no such key. There are host, folder, python, engine, system_packages, captured.",
        "f.toml: require_signature: there is no file no.pub.",
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "f.toml: devices: there are none. Write a line [devices.NAME] for each."),
        (
            {"devices": {"a": {"host": "x"}, "b": {"host": "x"}}},
            "f.toml: devices.b: it has the host and folder of a.",
        ),
        ({"devices": {"a": {"folder": "/"}}}, "f.toml: devices.a.folder: got '/'"),
        ({"devices": {"a": {"python": "p; reboot"}}}, "f.toml: devices.a.python: got 'p; reboot'"),
        ({"devices": {"a": {"folder": "a~b"}}}, "f.toml: devices.a.folder: got 'a~b'"),
        (
            {"devices": {"a": {"system_packages": 1}}},
            "f.toml: devices.a.system_packages: got 1, expected true or false.",
        ),
        ({"devices": {"a": {"host": 3}}}, "f.toml: devices.a.host: got 3, expected text."),
        (
            {"retries": True, "devices": {"a": {}}},
            "f.toml: retries: got True, expected a whole number from 0 to 20",
        ),
    ],
)
def test_each_wrong_value_is_told(values: dict[str, object], message: str) -> None:
    (problem,) = problems(values)
    assert problem.startswith(message)


def test_files_that_are_no_files_of_devices(tmp_path: Path) -> None:
    for content, message in (
        (None, "There is no .*. For what it holds: edgetl guide fleet"),
        (b"[devices", "is not TOML: "),
        (b"\xff", "is not text in UTF-8"),
    ):
        path = tmp_path / "fleet.toml"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            load(path)
