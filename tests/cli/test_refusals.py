"""Every command with every kind of name that cannot be used: one sentence, exit code 2."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest
import typer

from edgetl.bundle.pack import pack
from edgetl.cli import app
from tests.bundles import contents
from tests.cascade.bundles import LARGE, bundle
from tests.cli.typed import edgetl
from tests.images import write_set

LONG = "n" * 300

READ = ("nope", "~nosuchuser/x", "~odd.png", LONG, "a\0b", "folder", "file", "file/x", "loop")
"""Names of nothing, of what cannot be there, of an empty folder, of a file of another kind, and a link to itself."""
WRITTEN = (LONG, "a\0b", "file/x")
"""Names under which nothing can be written, be it a file or a folder."""
AS_A_FILE = (*WRITTEN, "folder")
AS_A_FOLDER = (*WRITTEN, "file", "loop")

RUNS = ("run", "finetune", "prune", "distill", "export", "quantize")
CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "init @": (("init", "@", "-o", "new.toml"), READ),
    "init -o @": (("init", "images", "-o", "@", "--force"), AS_A_FILE),
    "suggest @": (("suggest", "@"), READ),
    "suggest --backbones NAME=@": (
        ("suggest", "images", "--backbones", "test_resnet=@"),
        (LONG, "folder", "file"),
    ),
    "data check @": (("data", "check", "@"), READ),
    "data add @": (("data", "add", "@", "-o", "new"), READ),
    "data add --labels @": (("data", "add", "images", "--labels", "@", "-o", "new.csv"), READ),
    "data add --data @": (("data", "add", "images", "--data", "@", "-o", "new"), READ),
    "data add -o @": (("data", "add", "images", "-o", "@"), WRITTEN),
    **{f"{name} @": ((name, "@"), READ) for name in RUNS},
    "finetune --folds @": (("finetune", "@", "--folds", "2"), READ),
    "run --out @": (("run", "r.toml", "--out", "@"), AS_A_FOLDER),
    "finetune --set data.source=@": (("finetune", "r.toml", "--set", "data.source=@"), READ),
    "finetune --set train.weights=@": (
        ("finetune", "r.toml", "--set", "train.weights=@"),
        (LONG, "folder", "file"),
    ),
    "extend @": (("extend", "@", "--add", "images"), READ),
    "extend --out @": (("extend", "folder", "--add", "images", "--out", "@"), AS_A_FOLDER),
    "cascade @": (("cascade", "@", "b.edgetl", "images"), READ),
    "cascade BUNDLE @": (("cascade", "b.edgetl", "@", "images"), READ),
    "cascade BUNDLE BUNDLE @": (("cascade", "s.edgetl", "s.edgetl", "@"), READ),
    "cascade -o @": (("cascade", "s.edgetl", "s.edgetl", "images", "-o", "@"), AS_A_FILE),
    "build @": (("build", "@", "--target", "tensorrt-rtx", "--sm", "89"), READ),
    "parity @": (("parity", "@", "images"), READ),
    "parity BUNDLE @": (("parity", "b.edgetl", "@"), READ),
    "parity --checkpoint @": (("parity", "b.edgetl", "images", "--checkpoint", "@"), READ),
    "onnx @": (("onnx", "@"), READ),
    "onnx -o @": (("onnx", "b.edgetl", "-o", "@"), AS_A_FILE),
    "litert @": (("litert", "@"), READ),
    "litert -o @": (("litert", "b.edgetl", "-o", "@"), AS_A_FILE),
    "rknn @": (("rknn", "@", "images"), READ),
    "rknn BUNDLE @": (("rknn", "b.edgetl", "@"), READ),
    "rknn --python @": (("rknn", "b.edgetl", "images", "--python", "@"), READ),
    "triton @": (("triton", "@"), READ),
    "triton -o @": (("triton", "b.edgetl", "-o", "@"), AS_A_FOLDER),
    **{f"{name} @": ((name, "@"), READ) for name in ("info", "verify", "bench", "tune", "baseline")},
    "predict @": (("predict", "@", "images"), READ),
    "predict BUNDLE @": (("predict", "b.edgetl", "@"), READ),
    "predict -": (("predict", "b.edgetl", "-"), ("-",)),
    "predict --capture @": (("predict", "b.edgetl", "images", "--capture", "@"), ("file",)),
    "drift @": (("drift", "@", "images"), READ),
    "drift BUNDLE @": (("drift", "b.edgetl", "@"), READ),
    "eval @": (("eval", "@", "images"), READ),
    "eval BUNDLE @": (("eval", "b.edgetl", "@"), READ),
    "enrol @": (("enrol", "@", "new", "images"), READ),
    "enrol BUNDLE NAME @": (("enrol", "b.edgetl", "new", "@"), READ),
    "verify --require-signature @": (("verify", "b.edgetl", "--require-signature", "@"), READ),
    "history @": (("history", "@"), READ),
    "bench --history @": (("bench", "b.edgetl", "--history", "@"), ("folder", "file", LONG, "loop")),
    "baseline --data @": (("baseline", "b.edgetl", "--data", "@"), READ),
    "gate --against @": (("gate", "b.edgetl", "--against", "@"), READ),
    "gate --baseline @": (("gate", "b.edgetl", "--baseline", "@"), READ),
    "gate @": (("gate", "@", "--against", "b.edgetl"), READ),
    **{
        f"fleet {name} @": (("fleet", name, "@"), READ)
        for name in ("init", "status", "verify", "bench", "gate", "tune", "capture", "rollback")
    },
    "fleet deploy @": (("fleet", "deploy", "@", "b.edgetl"), READ),
    "fleet deploy FLEET @": (("fleet", "deploy", "fleet.toml", "@"), READ),
    "fleet gate FLEET @": (("fleet", "gate", "fleet.toml", "@"), READ),
    "fleet init --wheel @": (("fleet", "init", "fleet.toml", "--wheel", "@"), READ),
    "fleet init --wheels @": (("fleet", "init", "fleet.toml", "--wheels", "@"), READ),
    "fleet capture --out @": (("fleet", "capture", "fleet.toml", "--out", "@"), ("file",)),
    "keygen @": (("keygen", "@"), (*AS_A_FILE, "")),
    "sign @": (("sign", "@", "--key", "k.pem"), READ),
    "sign --key @": (("sign", "b.edgetl", "--key", "@"), READ),
    "serve @": (("serve", "@", "--port", "0"), READ),
    "serve --token-file @": (
        ("serve", "b.edgetl", "--port", "0", "--token-file", "@"),
        (*READ[:2], LONG, "folder"),
    ),
    "oci @": (("oci", "@", "-o", "layout"), READ),
    "oci -o @": (("oci", "b.edgetl", "-o", "@"), (*WRITTEN, "file", "loop", "images")),
    "oci --tag @": (("oci", "b.edgetl", "-o", "layout", "--tag", "@"), ("", "a b", ".x", LONG)),
    "search @": (("search", "@", "--latency-ms", "3"), READ),
    "search -o @": (("search", "r.toml", "--latency-ms", "3", "-o", "@"), AS_A_FOLDER),
    "report @": (("report", "@"), READ),
    "report BUNDLE @": (("report", "b.edgetl", "@", "--data", "images"), READ),
    "report --page @": (("report", "b.edgetl", "b.edgetl", "--data", "images", "--page", "@"), AS_A_FILE),
    **{f"{name} @": ((name, "@"), READ) for name in ("card", "sbom")},
    **{f"{name} -o @": ((name, "b.edgetl", "-o", "@"), AS_A_FILE) for name in ("card", "sbom")},
    "guide @": (("guide", "@"), (*READ, "", "../keys.py", "README")),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refusals")
    pack(contents(folder), folder / "b.edgetl")
    bundle(folder / "s.edgetl", LARGE, 0.5)
    write_set(folder / "images", {"train": 4, "val": 2})
    (folder / "r.toml").write_text('[data]\nsource = "images"\n[train]\nbackbone = "test_efficientnet"\n')
    (folder / "fleet.toml").write_text("[devices.line-1]\n")
    (folder / "file").write_text("x")
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to("loop")
    edgetl("keygen", folder / "k.pem")
    return folder


@pytest.mark.parametrize("case", CASES)
def test_a_name_that_cannot_be_used_is_one_sentence(
    case: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "stdin", None)  # closed
    words, names = CASES[case]
    for name in names:
        done = edgetl(*(word.replace("@", name) for word in words))
        assert done.returncode == 2, (name, done)
        assert "Traceback" not in done.stderr, name
        assert "Error" in done.stderr, name
        assert "[Errno" not in done.stderr, (name, done.stderr)


def test_every_command_is_walked() -> None:
    group = typer.main.get_command(app)
    names = set(group.commands) - {"doctor"}  # type: ignore[attr-defined]
    assert names <= {words[0] for words, _ in CASES.values()}


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize(
    "words",
    [
        ("init", "images", "-o", "out"),
        ("onnx", "b.edgetl", "-o", "out"),
        ("triton", "b.edgetl", "-o", "out"),
        ("sign", "b.edgetl", "--key", "k.pem", "-o", "out"),
        ("run", "r.toml", "--out", "out"),
    ],
    ids=lambda words: words[0],
)
def test_a_place_that_cannot_be_written(
    words: tuple[str, ...], number: int, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.chdir(place)
    monkeypatch.setattr("tempfile.mkstemp", refuse)
    done = edgetl(*words)
    assert done.returncode == 2
    assert "Error: Cannot write out" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_user_without_a_home(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.chdir(place)
    monkeypatch.delenv("EDGETL_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    for words in (
        ("doctor",),
        ("info", "b.edgetl"),
        ("predict", "b.edgetl", "images"),
    ):
        assert edgetl(*words).returncode == 0
    for words in (("tune", "b.edgetl"), ("data", "check", "digits")):
        done = edgetl(*words)
        assert done.returncode == 2
        assert "This user has no home folder. Set EDGETL_CACHE" in done.stderr
