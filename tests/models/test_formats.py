"""Files that are no weights: what they are is said in our own words, and nothing in them is run."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgetl.errors import WeightsError
from edgetl.models import checkpoint
from edgetl.models.weights import read_state


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("pwned"),))


def _safetensors(path: Path, keep: float = 1.0) -> None:
    save_file({"a": torch.zeros(4096)}, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])


def _torch(path: Path, value: object, keep: float = 1.0, **options: bool) -> None:
    torch.save(value, path, **options)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])


JUNK: dict[str, tuple[Callable[[Path], object], str]] = {
    "random": (lambda p: p.write_bytes(bytes(range(255, 0, -1)) * 9), "is neither a .safetensors file nor"),
    "empty": (lambda p: p.write_bytes(b""), "is empty. Get a fresh copy."),
    "text": (lambda p: p.write_text("hello, wörld\n" * 99), "is a text file."),
    "page": (lambda p: p.write_text("\n<!DOCTYPE html><html>"), "is a web page: the download gave a page"),
    "lfs": (
        lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"),
        "is a pointer of Git LFS",
    ),
    "cut": (lambda p: _safetensors(p, 0.5), r"is cut short: \d+ of \d+ bytes are there."),
    "cut in its header": (lambda p: _safetensors(p, 0.002), r"is cut short: \d+ of \d+ bytes are there."),
    "bad header": (lambda p: p.write_bytes(b"\x05\0\0\0\0\0\0\0{xxxx"), "is a damaged .safetensors file."),
    "code": (
        lambda p: p.write_bytes(pickle.dumps(_Evil())),
        "holds more than tensors; code in it is never run",
    ),
    "code in a zip": (
        lambda p: _torch(p, {"a": _Evil()}),
        "holds more than tensors; code in it is never run",
    ),
    "cut zip": (lambda p: _torch(p, {"a": torch.zeros(4096)}, 0.5), "is cut short or damaged."),
    "cut pickle": (
        lambda p: _torch(p, {"a": torch.zeros(4096)}, 0.5, _use_new_zipfile_serialization=False),
        "is damaged, or holds more than tensors",
    ),
    "another zip": (lambda p: p.write_bytes(b"PK\x05\x06" + bytes(18)), "is neither"),
    "a folder": (lambda p: p.mkdir(), "is a folder. Name the"),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
@pytest.mark.parametrize("kind", JUNK)
def test_junk_is_one_sentence_of_ours(
    kind: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"junk{suffix}"
    make, said = JUNK[kind]
    make(path)
    with pytest.raises(WeightsError, match=said) as caught:
        read_state(path)
    text = str(caught.value)
    assert text.startswith(f"{path} ")
    assert "weights_only" not in text
    assert "\n" not in text
    assert len(text) < 250 + len(str(path))
    with pytest.raises(WeightsError) as again:
        checkpoint.load(path)
    assert "weights_only" not in str(again.value)
    assert not (tmp_path / "pwned").exists()


def test_a_file_is_read_by_what_it_is_and_not_by_its_name(tmp_path: Path) -> None:
    state = {"module.a": torch.ones(3)}
    save_file(state, tmp_path / "a.pth")
    torch.save({"state_dict": state}, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("a.pth", "a.safetensors", "old.pt"):
        assert torch.equal(read_state(tmp_path / name)["a"], torch.ones(3))
