from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgetl.bench.statistics import summarise
from edgetl.bundle.archive import Bundle, open_bundle
from edgetl.bundle.manifest import Precision, encode
from edgetl.bundle.pack import Contents, add_engine, pack
from edgetl.errors import BundleError
from edgetl.files import sha256_bytes
from edgetl.records.scores import value
from edgetl.records.variants import EngineRecord
from edgetl.tasks.base import Classification
from edgetl.tasks.classification.scores import evaluate_predictions
from tests.bundles import contents


@pytest.fixture
def parts(tmp_path: Path) -> Contents:
    return contents(tmp_path)


def engine(content: bytes, gpu: str = "89") -> EngineRecord:
    return EngineRecord(
        target="tensorrt-rtx",
        compute_capabilities=(gpu,),
        tensorrt_version="1.2",
        batch=(1, 1, 8),
        size_bytes=len(content),
        sha256=sha256_bytes(content),
        seconds=1.0,
    )


def test_the_manifest_describes_the_parts(parts: Contents, tmp_path: Path) -> None:
    manifest = pack(parts, tmp_path / "b.edgetl")
    assert [v.name for v in manifest.variants] == ["fp32", "int8-cpu-x86"]
    assert manifest.variants[1].precision is Precision.INT8
    assert manifest.variants[0].size_bytes == parts.variants[0].model.stat().st_size
    assert manifest.provenance.seed == 7
    assert manifest.provenance.created_by.startswith("edgetl ")
    assert manifest.provenance.created == ""


def test_scores_in_a_bundle_do_not_grow_with_the_classes(parts: Contents, tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(400)]
    truth = np.arange(1200) % 400
    scored = evaluate_predictions(truth, (truth + (truth % 3 == 0)) % 400, names)
    latency = summarise([1.0, 2.0, 3.0], scenario="single-stream", batch=1, threads=1, warmup=0)
    first, second = parts.variants
    manifest = pack(
        replace(parts, variants=[replace(first, val=scored, test=scored, latency=latency), second]),
        tmp_path / "b.edgetl",
    )
    kept = manifest.variants[0]
    assert kept.test == kept.val == scored.summary()
    assert value(kept.test, "top1") == value(scored, "top1")
    assert kept.latency is not None
    assert (kept.latency.p50_ms, kept.latency.samples_ms) == (2.0, ())
    assert len(encode(manifest)) < 8000
    assert open_bundle(tmp_path / "b.edgetl").manifest == manifest


def test_parts_that_do_not_fit_are_refused(parts: Contents, tmp_path: Path) -> None:
    out = tmp_path / "b.edgetl"
    first, second = parts.variants
    with pytest.raises(BundleError, match=r"its default variant 'x' is not among fp32, int8-cpu-x86\.$"):
        pack(replace(parts, default="x"), out)
    with pytest.raises(BundleError, match="its golden set does not cover every variant"):
        pack(replace(parts, variants=[first]), out)
    with pytest.raises(
        BundleError,
        match=r"golden outputs of variant fp32: logits is \(3, 3\) float32, expected finite \(3, 2\) float32",
    ):
        pack(replace(parts, task=Classification(labels=("a", "b"))), out)
    with pytest.raises(BundleError, match=r"cannot be named '\.\./x'"):
        pack(replace(parts, variants=[replace(first, name="../x"), second]), out)
    with pytest.raises(BundleError, match="has the precision 'int3', expected fp32, fp16"):
        pack(replace(parts, variants=[replace(first, precision="int3"), second]), out)
    with pytest.raises(BundleError, match=r"Variant fp32: there is no model at .*gone\.onnx"):
        pack(replace(parts, variants=[replace(first, model=tmp_path / "gone.onnx"), second]), out)
    assert not out.exists()


def packed(parts: Contents, path: Path) -> Bundle:
    pack(parts, path)
    return open_bundle(path)


def test_an_engine_is_added_and_the_rest_stays(parts: Contents, tmp_path: Path) -> None:
    before = packed(parts, tmp_path / "b.edgetl")
    models = [before.model("fp32"), before.model("int8-cpu-x86")]
    after = add_engine(before, variant="fp32", content=b"engine" * 9, record=engine(b"engine" * 9))
    after.verify()
    [added] = after.manifest.engines
    assert added.file == "engines/fp32-tensorrt-rtx-sm89.engine"
    assert after.read(added.member) == b"engine" * 9
    assert (added.compute_capabilities, added.tensorrt_version, added.batch) == (("89",), "1.2", (1, 1, 8))
    assert [after.model("fp32"), after.model("int8-cpu-x86")] == models
    assert open_bundle(tmp_path / "b.edgetl").manifest == after.manifest


def test_engines_of_other_gpus_are_kept_and_the_same_is_replaced(parts: Contents, tmp_path: Path) -> None:
    bundle = packed(parts, tmp_path / "b.edgetl")
    bundle = add_engine(bundle, variant="fp32", content=b"one", record=engine(b"one"))
    bundle = add_engine(bundle, variant="fp32", content=b"two", record=engine(b"two", "120"))
    bundle = add_engine(bundle, variant="fp32", content=b"three", record=engine(b"three"))
    found = {e.compute_capabilities: bundle.read(e.member) for e in bundle.manifest.engines}
    assert found == {("89",): b"three", ("120",): b"two"}


def test_an_engine_may_go_into_a_new_bundle(parts: Contents, tmp_path: Path) -> None:
    bundle = packed(parts, tmp_path / "b.edgetl")
    added = add_engine(bundle, variant="fp32", content=b"e", record=engine(b"e"), out=tmp_path / "c.edgetl")
    assert added.path == tmp_path / "c.edgetl"
    assert open_bundle(tmp_path / "b.edgetl").manifest.engines == ()


def test_wrong_engines_are_refused_and_change_nothing(parts: Contents, tmp_path: Path) -> None:
    bundle = packed(parts, tmp_path / "b.edgetl")
    content = bundle.path.read_bytes()
    with pytest.raises(BundleError, match="has no variant 'fp8'"):
        add_engine(bundle, variant="fp8", content=b"e", record=engine(b"e"))
    with pytest.raises(BundleError, match="The engine for fp32 is not the one that its record describes"):
        add_engine(bundle, variant="fp32", content=b"x", record=engine(b"e"))
    assert bundle.path.read_bytes() == content


def test_logits_of_other_dtypes_are_stored_as_float32(parts: Contents, tmp_path: Path) -> None:
    wide = {k: {"logits": v["logits"].astype(np.float64)} for k, v in parts.golden.outputs.items()}
    golden = replace(parts.golden, outputs=wide)
    pack(replace(parts, golden=golden), tmp_path / "b.edgetl")
    found = open_bundle(tmp_path / "b.edgetl").golden_outputs()
    assert np.array_equal(found["logits"], parts.golden.outputs["fp32"]["logits"])
