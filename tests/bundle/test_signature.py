from __future__ import annotations

import json
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import edgetl
from edgetl.bundle.archive import SIGNATURE, open_bundle, write_archive
from edgetl.bundle.pack import add_engine, pack
from edgetl.bundle.signature import make_keys, require_signature, sign
from edgetl.errors import BundleIntegrityError, ConfigError, MissingDependencyError
from edgetl.files import sha256_bytes
from edgetl.records.variants import EngineRecord
from edgetl.tasks.base import Classification
from tests.bundles import contents, picture

pytest.importorskip("cryptography", reason="signatures need: pip install cryptography")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    pack(contents(tmp_path), tmp_path / "b.edgetl")
    return tmp_path / "b.edgetl"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    make_keys(tmp_path / "a.pem")
    return tmp_path / "a.pem"


def public(key: Path) -> Path:
    return key.with_name(key.name + ".pub")


def test_a_signed_bundle_is_accepted_with_its_key(bundle: Path, key: Path) -> None:
    before = open_bundle(bundle)
    signed = sign(bundle, key)
    after = open_bundle(bundle)
    assert after.manifest == before.manifest
    assert signed.public_hex == json.loads(after.signature or b"")["public_key"]
    require_signature(after, public(key))
    with edgetl.load(bundle, require_signature=public(key)) as session:
        assert session.predict(picture()).label
        assert session.verify().passed


def test_signing_again_gives_the_same_file(bundle: Path, key: Path) -> None:
    sign(bundle, key)
    first = bundle.read_bytes()
    sign(bundle, key)
    assert bundle.read_bytes() == first


def test_an_unsigned_bundle_is_refused_with_the_remedy(bundle: Path, key: Path) -> None:
    with pytest.raises(BundleIntegrityError, match=rf"is not signed.*edgetl sign {bundle} --key PRIVATE_KEY"):
        edgetl.load(bundle, require_signature=public(key))


def test_another_key_is_refused(bundle: Path, key: Path, tmp_path: Path) -> None:
    make_keys(tmp_path / "other.pem")
    sign(bundle, tmp_path / "other.pem")
    with pytest.raises(BundleIntegrityError, match=r"is signed with the key [0-9a-f]{16}\.\.\., not with"):
        require_signature(open_bundle(bundle), public(key))


def test_a_bundle_that_was_resealed_after_a_change_is_refused(bundle: Path, key: Path) -> None:
    """An attacker may write a whole new valid bundle, but not sign it."""
    sign(bundle, key)
    opened = open_bundle(bundle)
    changed = replace(opened.manifest, task=Classification(labels=("daisy", "rose", "tulip")))
    files = {m.file: opened.read(m) for m in changed.members()}
    write_archive(changed, files, bundle, signature=opened.signature)
    with pytest.raises(BundleIntegrityError, match="the signature is not that of its content"):
        require_signature(open_bundle(bundle), public(key))


def test_a_claimed_key_is_not_believed(bundle: Path, key: Path, tmp_path: Path) -> None:
    """The signature of another key with the trusted key's name on it."""
    make_keys(tmp_path / "other.pem")
    trusted = json.loads(_signature(bundle, key))["public_key"]
    forged = json.loads(_signature(bundle, tmp_path / "other.pem")) | {"public_key": trusted}
    _write(bundle, json.dumps(forged).encode())
    with pytest.raises(BundleIntegrityError, match="the signature is not that of its content"):
        require_signature(open_bundle(bundle), public(key))


@pytest.mark.parametrize("broken", [b"", b"{}", b"[]", b'{"public_key": 1, "signature": "zz"}', b"\xff"])
def test_a_broken_signature_is_refused(bundle: Path, key: Path, broken: bytes) -> None:
    _write(bundle, broken)
    with pytest.raises(BundleIntegrityError, match=r"broken signature\.json"):
        require_signature(open_bundle(bundle), public(key))


def test_every_byte_of_a_signed_bundle_is_covered(bundle: Path, key: Path) -> None:
    sign(bundle, key)
    content = bundle.read_bytes()
    start = content.index(SIGNATURE.encode())
    for offset in range(start - 40, start + 260, 7):
        changed = bytearray(content)
        changed[offset] ^= 1
        bundle.write_bytes(changed)
        with pytest.raises(BundleIntegrityError):
            require_signature(open_bundle(bundle), public(key))


def test_an_engine_that_is_added_drops_the_signature(bundle: Path, key: Path) -> None:
    sign(bundle, key)
    record = EngineRecord(
        target="tensorrt",
        compute_capabilities=(),
        tensorrt_version="11",
        batch=(1, 1, 1),
        size_bytes=3,
        sha256=sha256_bytes(b"eng"),
        seconds=1.0,
    )
    assert add_engine(open_bundle(bundle), variant="fp32", content=b"eng", record=record).signature is None


def test_keys_are_private_and_never_overwritten(key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert b"PUBLIC KEY" in public(key).read_bytes()
    with pytest.raises(ConfigError, match="keys are never overwritten"):
        make_keys(key)


def test_files_that_are_no_such_key_are_named(bundle: Path, key: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ConfigError, match="text is not an unencrypted PEM private key"):
        sign(bundle, tmp_path / "text")
    with pytest.raises(ConfigError, match="is not an unencrypted PEM private key"):
        sign(bundle, public(key))
    with pytest.raises(ConfigError, match="text is not a PEM public key"):
        require_signature(open_bundle(bundle), tmp_path / "text")
    with pytest.raises(ConfigError, match=r"Cannot read the key .*gone: No such file"):
        sign(bundle, tmp_path / "gone")


def test_keys_of_openssl_work(bundle: Path, tmp_path: Path) -> None:
    try:
        subprocess.run(
            ["openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / "o.pem"], check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("openssl with Ed25519 is not here")
    with (tmp_path / "o.pub").open("wb") as out:
        subprocess.run(["openssl", "pkey", "-in", tmp_path / "o.pem", "-pubout"], check=True, stdout=out)
    sign(bundle, tmp_path / "o.pem")
    require_signature(open_bundle(bundle), tmp_path / "o.pub")


def test_a_signed_bundle_unpacks_with_its_signature(bundle: Path, key: Path, tmp_path: Path) -> None:
    sign(bundle, key)
    open_bundle(bundle).unpack(tmp_path / "out")
    assert json.loads((tmp_path / "out" / SIGNATURE).read_text())["signature"]


def test_without_cryptography_the_remedy_is_named(
    bundle: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(
        MissingDependencyError, match=r"cryptography is not available.*pip install cryptography"
    ):
        require_signature(open_bundle(bundle), public(key))


def _signature(bundle: Path, key: Path) -> bytes:
    out = bundle.with_name("signed.edgetl")
    sign(bundle, key, out)
    return open_bundle(out).signature or b""


def _write(bundle: Path, signature: bytes) -> None:
    opened = open_bundle(bundle)
    files = {m.file: opened.read(m) for m in opened.manifest.members()}
    write_archive(opened.manifest, files, bundle, signature=signature)
