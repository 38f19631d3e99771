"""Signatures of bundles: Ed25519 (RFC 8032), through the `cryptography` package.

A signed bundle holds `signature.json` next to the manifest: the signer's public key and a signature over `PREFIX` and
the manifest's bytes. The manifest lists every other file with its SHA-256, so it stands for the whole bundle. Keys
are PEM files: PKCS #8 for the private one, SubjectPublicKeyInfo for the public one, as OpenSSL writes them.

The key inside the bundle only says who claims to have signed. Trust comes from the public key that the user gives.
"""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgetl.bundle import manifest
from edgetl.bundle.archive import SIGNATURE, Bundle, check_writable, open_bundle, write_archive
from edgetl.bundle.layout import is_layout
from edgetl.errors import BundleIntegrityError, ConfigError
from edgetl.files import storage_errors, write_bytes
from edgetl.packages import missing
from edgetl.shell import command
from edgetl.text import first_line

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PREFIX = b"edgetl bundle signature 1\n"
"""Stands before the manifest in what is signed, so that the signature means nothing elsewhere."""


@dataclass(frozen=True, kw_only=True)
class KeyPair:
    """Files of a new key pair, and the public key as 64 hex digits."""

    private: str
    public: str
    public_hex: str


@dataclass(frozen=True, kw_only=True)
class Signed:
    """A signed bundle and whose key signed it, as 64 hex digits."""

    path: str
    public_hex: str


def make_keys(private: Path) -> KeyPair:
    """Write a new private key to `private`, readable only by its owner, and the public one to `private`.pub.

    Raises:
        ConfigError: one of the files exists; keys are never overwritten.
        MissingDependencyError: `cryptography` is not installed.
        StorageError: they cannot be written.
    """
    if not private.name:
        raise ConfigError(f"{private} is a folder; name the file of the private key.")
    serialization, ed25519 = _library()
    public = private.with_name(private.name + ".pub")
    for path in (private, public):
        if path.exists():
            raise ConfigError(f"{path} exists; keys are never overwritten, so choose another name.")
    key = ed25519.Ed25519PrivateKey.generate()
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with storage_errors(private):
        private.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
    pem = serialization.PublicFormat.SubjectPublicKeyInfo
    write_bytes(public, key.public_key().public_bytes(serialization.Encoding.PEM, pem))
    return KeyPair(private=str(private), public=str(public), public_hex=_hex(key.public_key()))


def sign(bundle: Path, key: Path, out: Path | None = None) -> Signed:
    """Sign a bundle, in place or to `out`; every file in it is checked first. A former signature is replaced.

    Raises:
        BundleError: the bundle cannot be used.
        ConfigError: the key cannot be read, or is no Ed25519 private key.
        MissingDependencyError: `cryptography` is not installed.
        StorageError: it cannot be written.
    """
    from edgetl.locks import turn_at

    private = _private_key(key)
    open_bundle(bundle)  # What is wrong with it is said in the bundle's own words.
    check_writable(out or bundle)
    with nullcontext() if is_layout(bundle) else turn_at(bundle):
        opened = open_bundle(bundle)
        public = _hex(private.public_key())
        written = manifest.encode(
            opened.manifest
        )  # Not its old bytes, which another version may have laid out.
        content = {"public_key": public, "signature": private.sign(PREFIX + written).hex()}
        text = (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
        files: dict[str, bytes | Path] = {m.file: opened.read(m) for m in opened.manifest.members()}
        write_archive(opened.manifest, files, out or bundle, signature=text)
    return Signed(path=str(out or bundle), public_hex=public)


def require_signature(bundle: Bundle, key: Path) -> None:
    """Check that the holder of the private half of `key` signed the bundle.

    Raises:
        BundleIntegrityError: it is unsigned, signed with another key, or was altered since.
        ConfigError: the key cannot be read, or is no Ed25519 public key.
        MissingDependencyError: `cryptography` is not installed.
    """
    public = _public_key(key)
    if bundle.signature is None:
        raise BundleIntegrityError(
            f"{bundle.path} is not signed, and a signature of {key} is required. "
            f"Sign it with: {command('sign', bundle.path, '--key', 'PRIVATE_KEY')}"
        )
    signer, signature = claimed(bundle)
    if signer != _hex(public):
        raise BundleIntegrityError(
            f"{bundle.path} is signed with the key {signer[:16]}..., not with {key} ({_hex(public)[:16]}...)."
        )
    from cryptography.exceptions import InvalidSignature

    try:
        public.verify(signature, PREFIX + bundle.manifest_bytes)
    except InvalidSignature:
        raise BundleIntegrityError(
            f"{bundle.path}: the signature is not that of its content; it was altered. Get a fresh copy."
        ) from None


def claimed(bundle: Bundle) -> tuple[str, bytes]:
    """Whose key a signed bundle says it is signed with, as 64 hex digits, and the signature; nothing is proven by it.

    Raises:
        BundleIntegrityError: `signature.json` is broken.
    """
    try:
        values = json.loads((bundle.signature or b"").decode())
        return str(values["public_key"]), bytes.fromhex(values["signature"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleIntegrityError(f"{bundle.path} has a broken {SIGNATURE}: {error}.") from error


def _private_key(path: Path) -> Ed25519PrivateKey:
    serialization, ed25519 = _library()
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError) as error:  # TypeError: it is encrypted
        raise ConfigError(f"{path} is not an unencrypted PEM private key ({first_line(error)}).") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ConfigError(f"{path} is not an Ed25519 private key; make one with: edgetl keygen FILE")
    return cast("Ed25519PrivateKey", key)


def _public_key(path: Path) -> Ed25519PublicKey:
    serialization, ed25519 = _library()
    try:
        key = serialization.load_pem_public_key(_read(path))
    except ValueError as error:
        raise ConfigError(f"{path} is not a PEM public key ({first_line(error)}).") from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise ConfigError(f"{path} is not an Ed25519 public key.")
    return cast("Ed25519PublicKey", key)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"Cannot read the key {path}: {error.strerror}.") from error


def _hex(public: Ed25519PublicKey) -> str:
    return public.public_bytes_raw().hex()


def _library() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise missing("cryptography") from error
    return serialization, ed25519
