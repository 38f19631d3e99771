import dataclasses

from edgetl.bench.tune import Trial, TrialOutcome, TuneRecord
from edgetl.bundle.golden import GoldenCheck
from edgetl.bundle.manifest import EngineFile, Golden, Manifest, Member, Precision, Provenance, Variant
from edgetl.bundle.signature import KeyPair, Signed
from edgetl.inputs.image import Interpolation, PreprocessSpec, Resize
from edgetl.records.bench import BenchRecord, Footprint
from edgetl.records.gate import Flip, Flips, GateCheck, GateReport, Verdict
from edgetl.records.variants import EngineRecord
from edgetl.report.terminal import device
from edgetl.runtime.doctor import Checkup, Difference, Package, Part
from edgetl.runtime.inputs import ImageResult
from edgetl.runtime.targets import EngineName
from edgetl.tasks.base import Classification
from edgetl.tasks.classification.answers import Candidate, Prediction
from tests.report.conftest import latency
from tests.report.test_terminal import rule, shown

MEMBER = Member(file="golden/0.jpg", size_bytes=10, sha256="0" * 64)


def manifest(report) -> Manifest:
    fp32, int8, _ = report.measure.variants
    variants = tuple(
        Variant(
            name=v.name,
            precision=Precision(v.precision),
            target=v.target,
            file=f"models/{v.name}.onnx",
            size_bytes=v.size_bytes,
            sha256=v.sha256,
            val=v.val,
            latency=v.latency,
            machine=report.measure.machine,
        )
        for v in (fp32, int8)
    )
    return Manifest(
        schema_version=2,
        name="flowers",
        task=report.task,
        preprocess=PreprocessSpec(
            size=160,
            resize=Resize.CROP,
            crop_fraction=0.9,
            interpolation=Interpolation.BICUBIC,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        variants=(variants[0], dataclasses.replace(variants[1], latency=None)),
        default="int8-cpu-x86",
        golden=Golden(images=(MEMBER,), outputs={}, pixels_sha256="0" * 64),
        provenance=Provenance(git_commit="778a7cb", created_by="edgetl 0.1.0"),
    )


def test_bundle_with_a_window_says_what_is_black_and_white(report):
    spec = dataclasses.replace(manifest(report).preprocess, window=(20967.0, 22022.5))
    shown_ = shown(device.bundle, dataclasses.replace(manifest(report), preprocess=spec), width=80)
    assert "more than 8 bits  20967 becomes black, 22022.5 white" in shown_


def test_bundle(report):
    assert (
        shown(device.bundle, manifest(report), width=80)
        == f"""\
flowers
task             classification
labels           12: bougainvillea, camellia, clematis, cyclamen, foxglove,
                 frangipani, hibiscus, lotus, morning glory, passion flower,
                 petunia, rose
input            160x160 pixels, crop, bicubic
default variant  int8-cpu-x86
golden images    1
measured on      Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz x2, Linux 6.1
                 x86_64
made by          edgetl 0.1.0
git commit       778a7cb
schema           2

                                            val   test   p50   p90
variant       precision  target     size  top-1  top-1    ms    ms
{rule(66)}
fp32          fp32       any      4.6 MB  96.9%      -  2.20  2.32
int8-cpu-x86  int8       cpu-x86  1.3 MB  96.9%      -     -     -

"""
    )


def test_bundle_with_an_engine_and_many_labels(report):
    engine = EngineFile(
        variant="fp32",
        target="tensorrt-rtx",
        compute_capabilities=("86", "89"),
        tensorrt_version="1.7.1",
        batch=(1, 1, 8),
        file="engines/fp32.engine",
        size_bytes=3_000_000,
        sha256="0" * 64,
    )
    labels = tuple(f"class {i}" for i in range(40))
    many = dataclasses.replace(manifest(report), engines=(engine,), task=Classification(labels=labels))
    stated = shown(device.bundle, many)
    assert "class 11 and 28 more" in stated
    assert "tensorrt-rtx  fp32     86, 89              1.7.1    1/1/8  3.0 MB\n" in stated


def test_verify():
    check = GoldenCheck(
        variant="fp32",
        precision=Precision.FP32,
        images=8,
        max_difference=1e-5,
        allowed_difference=1e-3,
        same=1.0,
        pixels_identical=True,
    )
    assert shown(device.verify, check, width=200) == f"OK: {check.reason}\n"
    bad = dataclasses.replace(check, max_difference=0.5)
    assert shown(device.verify, bad, width=300) == f"FAILED: {bad.reason}\n"


def _rose(top: tuple[Candidate, ...]) -> Prediction:
    return Prediction(label="rose", index=11, score=0.91, top=top)


def test_predictions():
    top = (Candidate(label="rose", index=11, score=0.91), Candidate(label="lily", index=3, score=0.05))
    results = (
        ImageResult(path="a b/ü.jpg", prediction=_rose(top)),
        ImageResult(path="one.jpg", prediction=_rose(top[:1])),
        ImageResult(path="bad.jpg", prediction=None, error="bad.jpg: truncated."),
    )
    assert (
        shown(device.predictions, results)
        == f"""\
image      label         score  2.    score
{rule(43)}
a b/ü.jpg  rose          0.910  lily  0.050
one.jpg    rose          0.910
bad.jpg    not readable

bad.jpg: truncated.
"""
    )


def bench_record(report) -> BenchRecord:
    timed = latency(1.17, seed=4)
    return BenchRecord(
        bundle="flowers.edgetl",
        bundle_sha256="0" * 64,
        variant="int8-cpu-x86",
        scenario="single-stream",
        metric="p90_ms",
        value=timed.p90_ms,
        latency=timed,
        end_to_end=latency(4.1, seed=5, runs=100),
        footprint=Footprint(
            load_ms=212.0, first_ms=3.1, peak_memory_bytes=121_000_000, base_memory_bytes=41_000_000
        ),
        machine=report.measure.machine,
    )


def test_bench(report):
    assert (
        shown(device.bench, bench_record(report), width=80)
        == f"""\
flowers.edgetl, variant int8-cpu-x86
scenario         single-stream, batch 1, 2 threads
p90 latency      1.23 ms
load             212 ms
first inference  3.10 ms
peak memory      121 MB, of which Python and numpy 41.0 MB
machine          Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz x2, Linux 6.1
                 x86_64

timed       p50 ms  p90 ms  p99 ms  mean ms  images/s  calls  warm-up
{rule(69)}
model         1.16    1.23    1.65     1.19       841    200       20
end to end    4.08    4.34    5.61     4.15       241    100       20

"""
    )


def test_bench_of_a_server(report):
    record = dataclasses.replace(
        bench_record(report), scenario="server", metric="p99_ms", rate=400.0, bound_ms=15.0, holds=False
    )
    assert "server           400 queries per second, p99 bound 15.0 ms NOT met\n" in shown(
        device.bench, record
    )
    throughput = dataclasses.replace(record, metric="throughput", value=1234.5, rate=None, end_to_end=None)
    stated = shown(device.bench, throughput)
    assert "throughput       1,234 images/s\n" in stated
    assert "end to end" not in stated


def gate_report(report, *, passed: bool) -> GateReport:
    checks = (
        GateCheck(
            name="accuracy",
            unit="top-1",
            baseline=0.968,
            current=0.968 if passed else 0.941,
            change=0.0 if passed else -0.027,
            interval=None,
            limit=0.01,
            judged=True,
            verdict=Verdict.PASS if passed else Verdict.FAIL,
            sentence="Top-1 fell.",
        ),
        GateCheck(
            name="latency",
            unit="ms",
            baseline=1.17,
            current=1.31,
            change=0.12,
            interval=(0.1, 0.14),
            limit=0.1,
            judged=False,
            verdict=Verdict.PASS,
            sentence="Latency is not judged.",
        ),
        GateCheck(
            name="size",
            unit="bytes",
            baseline=1_317_220,
            current=1_317_220,
            change=0.0,
            interval=None,
            limit=0.05,
            judged=True,
            verdict=Verdict.PASS,
            sentence="Size is the same.",
        ),
    )
    return GateReport(
        baseline="old.edgetl",
        current="new.edgetl",
        variant="int8-cpu-x86",
        target="openvino",
        checks=checks,
        machine=report.measure.machine,
    )


def test_tune(report):
    openvino, cpu = (dataclasses.replace(latency(1.0), p50_ms=p50, p90_ms=1.5) for p50 in (0.934, 1.21))
    missing = "cuda is not available. Check the driver."
    record = TuneRecord(
        bundle="flowers.edgetl",
        threads=2,
        best_threads=2,
        trials=(
            Trial(target=EngineName.CPU, variant="int8", outcome=TrialOutcome.TIMED, latency=cpu),
            Trial(target=EngineName.OPENVINO, variant="fp32", outcome=TrialOutcome.CHOSEN, latency=openvino),
            Trial(target=EngineName.CUDA, outcome=TrialOutcome.ABSENT, note=missing),
        ),
        variant="fp32",
        target=EngineName.OPENVINO,
        reason="fp32 on openvino was the fastest of 2",
        date="2026-11-24",
        saved="/cache/tuned/a.json",
        versions={},
        machine=report.measure.machine,
    )
    assert (
        shown(device.tune, record)
        == f"""\
flowers.edgetl, batch 1, 2 threads, from pixels to outputs
                     p50   p90
engine    variant     ms    ms  calls  result  why
{rule(87)}
openvino  fp32     0.934  1.50    200  chosen
cpu       int8      1.21  1.50    200  timed
cuda      -            -     -      -  absent  cuda is not available. Check the driver.

fp32 on openvino was the fastest of 2.
Saved in /cache/tuned/a.json: it runs from now on wherever no target or variant is named.
"""
    )

    both = dataclasses.replace(
        record,
        best_threads=1,
        trials=tuple(
            dataclasses.replace(
                t,
                latency=t.latency and dataclasses.replace(t.latency, threads=1),
                other_latency=t.latency and latency(2.0),
            )
            for t in record.trials
        ),
    )
    assert (
        shown(device.tune, both, width=120)
        == f"""\
flowers.edgetl, batch 1, 1 or 2 threads, from pixels to outputs
                              p50   p90         other
engine    variant  threads     ms    ms  calls     ms  result  why
{rule(103)}
openvino  fp32           1  0.934  1.50    200   1.99  chosen
cpu       int8           1   1.21  1.50    200   1.99  timed
cuda      -              -      -     -      -      -  absent  cuda is not available. Check the driver.

fp32 on openvino was the fastest of 2.
Saved in /cache/tuned/a.json: it runs from now on wherever no target or variant is named.
"""
    )


def test_gate_that_fails(report):
    assert (
        shown(device.gate, gate_report(report, passed=False), width=80)
        == f"""\
new.edgetl (variant int8-cpu-x86 on openvino) against old.edgetl
check     baseline      now       change      allowed  result
{rule(65)}
accuracy     96.8%    94.1%  -2.7 points  -1.0 points  FAILED
latency    1.17 ms  1.31 ms       +12.0%            -  not judged
size        1.3 MB   1.3 MB        +0.0%        +5.0%  passed

- Top-1 fell.
- Latency is not judged.
- Size is the same.
Gate FAILED: accuracy.
"""
    )


def test_gate_that_passes(report):
    stated = shown(device.gate, gate_report(report, passed=True), width=80)
    assert stated.endswith("Gate passed.\n")
    assert "accuracy     96.8%    96.8%  0.0 points  -1.0 points  passed\n" in stated


def test_gate_that_cannot_tell(report):
    made = gate_report(report, passed=True)
    [accuracy, latency, size] = made.checks
    unsure = dataclasses.replace(latency, judged=True, verdict=Verdict.UNSURE, sentence="It needs longer.")
    stated = shown(device.gate, dataclasses.replace(made, checks=(accuracy, unsure, size)), width=80)
    assert "latency    1.17 ms  1.31 ms      +12.0%       +10.0%  cannot tell\n" in stated
    assert stated.endswith(
        "- It needs longer.\n- Top-1 fell.\n- Size is the same.\nGate cannot tell: latency.\n"
    )


def test_gate_lists_the_first_images_that_flipped_lost_ones_first(report):
    lost = tuple(Flip(path=f"test/a/{i}.jpg", label="a", before="a", after="b") for i in range(7))
    won = tuple(Flip(path=f"test/b/{i}.jpg", label="b", before="a", after="b") for i in range(3))
    flips = Flips(lost=7, won=3, images=(*lost, *won))
    stated = shown(device.gate, dataclasses.replace(gate_report(report, passed=True), flips=flips), width=80)
    assert "7 right to wrong, 3 wrong to right; 8 of them:\n" in stated
    assert "test/a/6.jpg   a      a       b\ntest/b/0.jpg   b      a       b\n\nGate passed.\n" in stated


def test_doctor():
    checkup = Checkup(
        machine="x86_64, Linux, Python 3.11.2",
        parts=(
            Part(name="ONNX Runtime", available=True, detail="1.31.1"),
            Part(
                name="CUDA GPU",
                available=False,
                detail="nvidia-smi finds no GPU here",
                remedy="use a GPU machine",
            ),
        ),
    )
    assert (
        shown(device.doctor, checkup)
        == f"""\
x86_64, Linux, Python 3.11.2

     part          found                         to get it
{rule(66)}
yes  ONNX Runtime  1.31.1
no   CUDA GPU      nvidia-smi finds no GPU here  use a GPU machine

"""
    )


def test_doctor_lists_versions_that_were_not_tried():
    other = Difference(name="torch", installed="2.14.1", tried="2.15.0")
    shown_ = shown(device.doctor, Checkup(machine="x86_64", parts=(), differences=(other,)))
    assert (
        f"""\
Other versions than edgetl was tried with:
package  installed  tried
{rule(26)}
torch    2.14.1     2.15.0
"""
        in shown_
    )


def test_doctor_lists_sizes_with_their_sum():
    install = (
        Package(name="onnxruntime", version="1.32.0", size_bytes=75_000_000),
        Package(name="numpy", version="2.4.6", size_bytes=57_000_000),
    )
    stated = shown(device.doctor, Checkup(machine="x86_64", parts=(), install=install))
    assert "onnxruntime           1.32.0   75.0 MB\n" in stated
    assert "the device's install            132 MB\n" in stated


def test_keys_and_signatures():
    pair = KeyPair(private="k.pem", public="k.pem.pub", public_hex="ab" * 32)
    stated = shown(device.keys, pair)
    assert "private key, keep it secret          k.pem\n" in stated
    assert "public key, for --require-signature  k.pem.pub\n" in stated
    signed = shown(device.signed, Signed(path="b.edgetl", public_hex="ab" * 32))
    assert signed == f"b.edgetl is signed with the key {'ab' * 32}.\n"


def test_engine():
    record = EngineRecord(
        target="tensorrt-rtx",
        compute_capabilities=("86", "89"),
        tensorrt_version="1.7.1",
        batch=(1, 4, 8),
        size_bytes=3_141_000,
        sha256="ab" * 32,
        seconds=2.31,
        variant="fp16",
        precision="fp16",
        layers={"fp16": 20, "fp32": 1},
        exceptions=("stem/conv: fp32, it would overflow in fp16",),
        evidence="the types of the network",
        cached=True,
    )
    assert (
        shown(device.engine, record)
        == f"""\
target              tensorrt-rtx 1.7.1
compute capability  86, 89
variant             fp16
precision           fp16: 20 in fp16, 1 in fp32 (convolutions and matrix products)
other precision     stem/conv: fp32, it would overflow in fp16
proved by           the types of the network
batch               1 to 8, tuned for 4
size                3.1 MB
SHA-256             {"ab" * 32}
built in            2.3 s, earlier

"""
    )
