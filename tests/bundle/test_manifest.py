from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgetl.bundle.manifest import SCHEMA_VERSION, Manifest, decode, encode
from edgetl.bundle.pack import pack
from edgetl.errors import BundleIntegrityError, BundleSchemaError
from edgetl.inputs.spec import Decoding
from edgetl.records.measured import Latency, Machine
from edgetl.tasks.base import Classification
from tests.bundles import contents


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return pack(contents(tmp_path), tmp_path / "m.edgetl")


def changed(manifest: Manifest, **values: object) -> bytes:
    return json.dumps({**json.loads(encode(manifest)), **values}).encode()


def test_round_trip_keeps_every_field(manifest: Manifest) -> None:
    latency = Latency(
        scenario="single-stream",
        batch=1,
        threads=2,
        warmup=1,
        runs=2,
        mean_ms=1.5,
        p50_ms=1.5,
        p90_ms=2.0,
        p99_ms=2.0,
        throughput=666.7,
        samples_ms=(1.0, 2.0),
    )
    machine = Machine(cpu="Arm", cores=4, memory_bytes=1 << 30, system="Linux", python="3.11")
    measured = replace(manifest.variants[0], latency=latency, machine=machine)
    full = replace(
        manifest, variants=(measured, *manifest.variants[1:]), task=Classification(labels=("rosé", "日", "c"))
    )
    assert decode(encode(full), "x") == full
    assert encode(full) == encode(decode(encode(full), "x"))


def test_unknown_keys_of_a_later_minor_version_are_ignored(manifest: Manifest) -> None:
    assert decode(changed(manifest, mood="good"), "x") == manifest


def test_a_newer_schema_says_who_wrote_it_and_what_to_do(manifest: Manifest) -> None:
    content = changed(
        manifest,
        schema_version=SCHEMA_VERSION + 1,
        provenance={"created_by": "edgetl 9.1"},
        variants="a shape of then",
    )
    with pytest.raises(BundleSchemaError) as caught:
        decode(content, "m.edgetl")
    assert str(caught.value).startswith("m.edgetl was written by edgetl 9.1 with schema 3; edgetl ")
    assert str(caught.value).endswith("reads up to schema 2. Install a wheel of that version of edgetl.")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"schema_version": "1"}, "schema_version is '1', expected a positive integer"),
        ({"schema_version": True}, "schema_version is True"),
        ({"task": {"kind": "classification", "labels": []}}, "its labels are empty or not unique"),
        ({"task": {"kind": "classification", "labels": ["a", "a"]}}, "its labels are empty or not unique"),
        ({"task": {"kind": "classification", "labels": 3}}, "Manifest.task.labels is 3, expected a list"),
        ({"task": {"labels": ["a"]}}, "expected an object with a kind"),
        ({"task": "image-classification"}, "Manifest.task is 'image-classification', expected an object"),
        ({"schema_version": 1, "task": "detection"}, "its task is 'detection', schema 1 has only"),
        ({"schema_version": 1, "task": "image-classification", "variants": 3}, "its variants are not a list"),
        ({"default": "fp64"}, "its default variant 'fp64' is not among fp32, int8-cpu-x86"),
        ({"variants": []}, "is not among none"),
    ],
)
def test_contradictions_are_named(manifest: Manifest, values: dict[str, object], reason: str) -> None:
    with pytest.raises(BundleIntegrityError, match=r"^m\.edgetl has a broken manifest\.json: ") as caught:
        decode(changed(manifest, **values), "m.edgetl")
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"3",
        b'{"schema_version": NaN}',
        b"[" * 100_000,
        b'{"schema_version": ' + b"9" * 5000,
    ],
)
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(BundleIntegrityError, match=r"broken manifest\.json"):
        decode(content, "m.edgetl")


def test_an_unknown_task_is_named(manifest: Manifest) -> None:
    with pytest.raises(
        BundleSchemaError, match=r"^m\.edgetl is of the task 'poetry', which edgetl \S+ does not know"
    ):
        decode(changed(manifest, task={"kind": "poetry", "labels": ["a"]}), "m.edgetl")


def test_figures_that_are_not_finite_cannot_be_written(manifest: Manifest) -> None:
    spec = replace(manifest.preprocess, crop_fraction=1.0)
    object.__setattr__(spec, "crop_fraction", float("nan"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode(replace(manifest, preprocess=spec))


def test_a_window_asks_for_readers_that_know_it(tmp_path: Path) -> None:
    parts = contents(tmp_path)
    windowed = replace(parts, preprocess=replace(parts.preprocess, window=(20_000.0, 24_000.0)))
    packed = pack(windowed, tmp_path / "windowed.edgetl")
    assert packed.schema_version == 2
    assert decode(encode(packed), "x").preprocess.window == (20_000.0, 24_000.0)


def test_only_fast_decoding_is_written(manifest: Manifest) -> None:
    assert "decoding" not in json.loads(encode(manifest))["preprocess"]
    fast = replace(manifest, preprocess=replace(manifest.preprocess, decoding=Decoding.FAST))
    assert decode(encode(fast), "x") == fast


def test_a_manifest_from_before_there_were_windows_guesses_as_then(manifest: Manifest) -> None:
    saved = json.loads(encode(manifest))
    del saved["preprocess"]["window"], saved["preprocess"]["guess_floats"]
    found = decode(json.dumps(saved).encode(), "x").preprocess
    assert (found.window, found.guess_floats) == (None, True)
