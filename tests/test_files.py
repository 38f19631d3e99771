from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgetl import files
from edgetl.errors import ConfigError, StorageError
from edgetl.files import StageCache
from edgetl.records.measured import Machine


@dataclass(frozen=True)
class Done:
    """A stage's record."""

    file: str
    figure: float


def _leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]


# --- atomic writes --------------------------------------------------------------------------------------------


def test_a_write_makes_folders_and_keeps_non_ascii_names(tmp_path: Path) -> None:
    path = tmp_path / "a b" / "größe.json"
    files.write_text(path, "ünïcode\n")
    assert path.read_bytes() == "ünïcode\n".encode()
    assert _leftovers(path.parent) == []


def test_a_file_gets_the_mode_that_the_umask_asks_for(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        files.write_bytes(tmp_path / "file", b"x")
    finally:
        os.umask(previous)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_failed_write_leaves_the_old_file_and_no_leftovers(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    files.write_bytes(path, b"old")

    def write() -> None:
        with files.atomic_path(path) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write()
    assert path.read_bytes() == b"old"
    assert _leftovers(tmp_path) == []


def test_the_new_file_appears_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    files.write_bytes(path, b"old")
    with files.atomic_path(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert temporary.parent == path.parent
    assert path.read_bytes() == b"new"


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.bin"
    files.write_bytes(path, b"old")

    def full(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError) as caught:
        files.write_bytes(path, b"new")
    assert str(caught.value) == (
        f"Cannot write {path}: no space left on the device. Nothing was changed there. "
        "Free some space there, or choose another folder."
    )
    assert path.read_bytes() == b"old"
    assert _leftovers(tmp_path) == []


def test_a_disk_that_fills_up_at_the_last_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems say so only at fsync."""

    def full(handle: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="the quota of this user is used up"):
        files.write_bytes(tmp_path / "model.bin", b"new")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path):
    """A real file system of 64 KiB; skipped where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_really_full_disk(small_disk: Path) -> None:
    path = small_disk / "model.bin"
    files.write_bytes(path, b"old")
    with pytest.raises(StorageError, match=r"model\.bin: no space left on the device"):
        files.write_bytes(path, os.urandom(1 << 20))
    assert path.read_bytes() == b"old"
    assert _leftovers(small_disk) == []
    with pytest.raises(StorageError, match=r"stage.json: no space left"):
        StageCache(small_disk).run(
            "train",
            config={},
            inputs="x" * 100,
            kind=Done,
            outputs=lambda record: [],
            work=lambda folder: Done(file="y" * 200_000, figure=1.0),
        )


@pytest.mark.parametrize(
    ("number", "cause"), [(errno.EACCES, "permission denied"), (errno.EROFS, "the file system is read-only")]
)
def test_a_place_that_may_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, cause: str
) -> None:
    def refuse(**_: object) -> tuple[int, str]:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(StorageError, match=rf"Cannot write .*model\.bin: {cause}"):
        files.write_bytes(tmp_path / "model.bin", b"x")


def test_an_error_about_another_file_is_not_taken_for_one_of_writing(tmp_path: Path) -> None:
    source = tmp_path / "elsewhere" / "photo.png"
    with (
        pytest.raises(FileNotFoundError, match=r"photo\.png"),
        files.storage_errors(tmp_path / "out" / "model.bin"),
    ):
        source.read_bytes()
    with pytest.raises(OSError, match="no number"), files.storage_errors(tmp_path):
        raise OSError("no number: a library's own")


def test_a_cache_that_cannot_be_written_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file in its place")
    monkeypatch.setenv("EDGETL_CACHE", str(tmp_path / "cache"))
    remedy = r"Set EDGETL_CACHE to a folder for the cache that can be written\.$"
    with pytest.raises(StorageError, match=remedy):
        files.write_text(files.cache_dir() / "tuned" / "a.json", "x")


def test_a_file_in_a_folders_place_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"Cannot write .*: a file stands where a folder was expected"):
        files.write_text(tmp_path / "file" / "inner.json", "x")


# --- hashes and JSON ------------------------------------------------------------------------------------------


def test_hashes_are_sha256(tmp_path: Path) -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert files.sha256_bytes(b"") == empty
    content = os.urandom(3 * 2**20 + 17)
    (tmp_path / "file").write_bytes(content)
    assert files.sha256_file(tmp_path / "file") == files.sha256_bytes(content)


def test_equal_values_hash_equally() -> None:
    assert files.sha256_json({"a": 1, "b": [2, 3]}) == files.sha256_json({"b": (2, 3), "a": 1})
    assert files.sha256_json(Done("f", 1.0)) == files.sha256_json({"figure": 1.0, "file": "f"})
    assert files.sha256_json({"a": 1}) != files.sha256_json({"a": 2})


def test_json_comes_back_and_nan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "done.json"
    files.write_json(path, Done(file="größe", figure=0.1))
    assert files.read_json(path, Done) == Done(file="größe", figure=0.1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, Done(file="x", figure=float("nan")))
    assert files.read_json(path, Done).figure == 0.1
    path.write_text("{")
    with pytest.raises(ValueError):
        files.read_json(path, Done)


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGETL_CACHE", "/own")
    assert files.cache_dir() == Path("/own")
    monkeypatch.delenv("EDGETL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert files.cache_dir() == Path("/xdg/edgetl")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert files.cache_dir() == Path.home() / ".cache" / "edgetl"


# --- the stage cache ------------------------------------------------------------------------------------------


class Run:
    """A run folder with one stage, counting how often its work is done."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.done = folder, 0

    def __call__(self, config: object = 1, inputs: object = "data", fail: bool = False) -> tuple[Done, bool]:
        def work(out: Path) -> Done:
            self.done += 1
            (out / "state").write_text(f"{self.done}")
            if fail:
                raise RuntimeError("killed")
            (out / "weights.bin").write_bytes(b"weights")
            return Done(file=f"{out.name}/weights.bin", figure=0.5)

        return StageCache(self.folder).run(
            "train",
            config=config,
            inputs=inputs,
            kind=Done,
            outputs=lambda record: [record.file],
            work=work,
        )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "runs" / "flowers")


def test_a_finished_stage_is_not_redone(run: Run) -> None:
    first, cached = run()
    assert (first, cached) == (Done("train/weights.bin", 0.5), False)
    assert run() == (first, True)
    assert run.done == 1


@pytest.mark.parametrize("change", [{"config": 2}, {"inputs": "other data"}])
def test_another_config_or_input_makes_it_stale_and_clears_the_folder(run: Run, change: dict) -> None:
    run()
    nested = run.folder / "train" / "deep" / "er"
    nested.mkdir(parents=True)
    (nested / "old").write_text("")
    _, cached = run(**change)
    assert (cached, run.done) == (False, 2)
    assert not (run.folder / "train" / "deep").exists()
    assert run(**change)[1]
    assert run()[1] is False


def test_other_code_of_edgetl_makes_it_stale(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    monkeypatch.setattr(files, "sources", lambda: "other")
    assert run()[1] is False


def test_altered_or_missing_output_makes_it_stale(run: Run) -> None:
    run()
    weights = run.folder / "train" / "weights.bin"
    weights.write_bytes(b"Weights")
    assert run()[1] is False
    assert weights.read_bytes() == b"weights"
    weights.unlink()
    assert run()[1] is False
    assert run.done == 3


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": 1}', "null"])
def test_a_broken_record_makes_it_stale(run: Run, content: str) -> None:
    run()
    (run.folder / "train" / "stage.json").write_text(content)
    assert run()[1] is False
    assert run()[1] is True


def test_a_stage_that_failed_counts_as_not_done_and_finds_its_state_again(run: Run) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        run(fail=True)
    state = run.folder / "train" / "state"
    assert not (run.folder / "train" / "stage.json").exists()
    assert state.read_text() == "1"
    (run.folder / "train" / "epoch-3").write_text("kept")
    assert run()[1] is False
    assert (run.folder / "train" / "epoch-3").read_text() == "kept"


def test_the_state_of_another_config_is_not_resumed(run: Run) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        run(config=1, fail=True)
    (run.folder / "train" / "epoch-3").write_text("of config 1")
    run(config=2)
    assert not (run.folder / "train" / "epoch-3").exists()


def test_a_stale_stage_that_fails_does_not_pass_for_the_old_one(run: Run) -> None:
    run(config=1)
    with pytest.raises(RuntimeError, match="killed"):
        run(config=2, fail=True)
    assert run(config=1)[1] is False


def test_a_moved_run_folder_keeps_its_stages(run: Run, tmp_path: Path) -> None:
    run()
    run.folder.rename(tmp_path / "elsewhere")
    assert Run(tmp_path / "elsewhere")()[1] is True


KILLED = """
import sys, time
from pathlib import Path
from edgetl.files import StageCache
from tests.test_files import Done

def work(out):
    (out / "epoch-1").write_text("state")
    print("working", flush=True)
    if sys.argv[2] == "hang":
        time.sleep(60)
    assert (out / "epoch-1").read_text() == "state"
    (out / "weights.bin").write_bytes(b"w")
    return Done(file="train/weights.bin", figure=1.0)

cache = StageCache(Path(sys.argv[1]))
print(cache.run("train", config=1, inputs=1, kind=Done, outputs=lambda r: [r.file], work=work)[1])
"""


def test_a_killed_process_leaves_a_stage_that_is_done_again(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    root = Path(__file__).parents[1]
    process = subprocess.Popen([*command, "hang"], cwd=root, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert (tmp_path / "train" / "epoch-1").exists()
    assert not (tmp_path / "train" / "stage.json").exists()
    for expected in ("working\nFalse\n", "True\n"):
        done = subprocess.run([*command, "go"], cwd=root, check=True, capture_output=True, text=True)
        assert done.stdout == expected


def test_the_seconds_of_a_stage_are_kept(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)

    def work(out: Path) -> Done:
        time.sleep(0.02)
        return Done(file="", figure=0.0)

    for _ in range(2):
        cache.run("s", config=1, inputs=1, kind=Done, outputs=lambda record: [], work=work)
        assert cache.seconds("s") >= 0.02
    assert cache.seconds("other") == 0.0


@pytest.mark.parametrize(
    ("config", "inputs", "stated"),
    [
        ({"lr": 0.3, "epochs": 5}, [1], "train.lr: 0.1, now 0.3"),
        ({"lr": 0.1, "epochs": 5}, [2], "the data, an earlier stage or edgetl's code differs"),
    ],
)
def test_finished_epochs_of_other_settings_are_not_thrown_away(
    tmp_path: Path, config: dict[str, float], inputs: list[int], stated: str
) -> None:
    cache = StageCache(tmp_path)

    def run(config: dict[str, float], inputs: list[int], state: bool) -> None:
        def work(out: Path) -> Machine:
            if state:
                (out / "full.state").write_text("an epoch")
            raise KeyboardInterrupt

        cache.run("train", config=config, inputs=inputs, kind=Machine, outputs=lambda r: [], work=work)

    first = {"lr": 0.1, "epochs": 5}
    with pytest.raises(KeyboardInterrupt):
        run(first, [1], True)
    with pytest.raises(ConfigError) as caught:
        run(config, inputs, True)
    folder = tmp_path / "train"
    assert str(caught.value) == (
        f"{folder} holds unfinished training under other settings ({stated}). Take the change back to go on,"
        f" delete {folder} to start afresh, or choose another folder with --out."
    )
    with pytest.raises(KeyboardInterrupt):
        run(first, [1], False)
    assert (folder / "full.state").exists()


def test_a_name_that_is_not_utf8_passes_every_sink_and_comes_back_from_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    assert files.encode(f"é {name}") == "é ".encode() + b"caf\\udce9.png"
    files.write_json(tmp_path / "x.json", {"name": name, "plain": "é"})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"name": name, "plain": "é"}
    files.write_text(tmp_path / "x.html", name)
    assert (tmp_path / "x.html").read_text(encoding="utf-8") == "caf\\udce9.png"
    assert files.sha256_json([name]) != files.sha256_json(["caf\\udce9.png"])


def test_a_file_of_the_longest_name_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".txt")
    files.write_text(path, "fits")
    assert path.read_text(encoding="utf-8") == "fits"
