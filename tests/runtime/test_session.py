from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import edgetl
from edgetl.bundle.golden import GoldenSet
from edgetl.bundle.manifest import InputForm
from edgetl.bundle.pack import VariantSource, pack
from edgetl.errors import (
    BundleError,
    BundleIntegrityError,
    EdgetlError,
    ForkError,
    ImageError,
    ModelError,
    TensorError,
)
from edgetl.export.bake import bake_preprocess
from edgetl.inputs.image import Resize, load_batch, load_pixels, normalise
from edgetl.runtime import Prediction, Session, load
from tests.bundles import LABELS, SPEC, contents, picture
from tests.deep_images import png16
from tests.onnx_models import classifier


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("session")
    pack(contents(folder), folder / "flowers.edgetl")
    return folder / "flowers.edgetl"


@pytest.fixture(scope="module")
def session(bundle: Path) -> Iterator[Session]:
    with load(bundle, threads=1) as opened:
        yield opened


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "été photo.png"
    path.write_bytes(picture(5))
    return path


def test_the_public_door(bundle: Path) -> None:
    with edgetl.load(str(bundle)) as opened:
        assert isinstance(opened, edgetl.Session)
        assert isinstance(opened.predict(picture()), edgetl.Prediction)
        assert opened.labels == LABELS
        assert opened.variant.name == "fp32"
        assert opened.manifest.name == "flowers"


@pytest.mark.parametrize("sent", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_session_is_not_sent_to_another_process(
    session: Session, sent: Callable[[Session], object]
) -> None:
    with pytest.raises(ForkError, match=r"^A Session cannot be pickled or copied, .* load it there\.$"):
        sent(session)


def test_run_takes_floats_and_bytes_alike(session: Session) -> None:
    pixels = np.stack([load_pixels(picture(i), SPEC) for i in range(5)])
    logits = session.run(normalise(pixels, SPEC))["logits"]
    assert logits.shape == (5, 3)
    assert logits.dtype == np.float32
    assert np.array_equal(session.run(pixels)["logits"], logits)


def test_a_variant_that_normalises_inside_takes_bytes_alone(bundle: Path, tmp_path: Path) -> None:
    parts = contents(tmp_path)
    path = tmp_path / "model-fp32-uint8.onnx"
    path.write_bytes(bake_preprocess(onnx.load(parts.variants[0].model), SPEC).SerializeToString())
    baked = VariantSource(
        name="fp32-uint8", precision="fp32", target="any", model=path, input=InputForm.UINT8
    )
    outputs = parts.golden.outputs
    golden = replace(parts.golden, outputs={**outputs, "fp32-uint8": outputs["fp32"]})
    pack(replace(parts, variants=[*parts.variants, baked], golden=golden), tmp_path / "baked.edgetl")
    pixels = np.stack([load_pixels(picture(i), SPEC) for i in range(3)])
    with load(tmp_path / "baked.edgetl", variant="fp32-uint8", threads=1) as inside, load(bundle) as outside:
        assert inside.verify().passed
        first, second = (opened_.run(pixels)["logits"] for opened_ in (inside, outside))
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)
        with pytest.raises(
            TensorError, match=r"got \(3, 3, 32, 32\) float32, expected \(N, 32, 32, 3\) uint8"
        ):
            inside.run(normalise(pixels, SPEC))


def test_a_model_that_takes_another_form_than_the_manifest_says_is_refused(tmp_path: Path) -> None:
    parts = contents(tmp_path)
    wrong = replace(parts.variants[0], input=InputForm.UINT8)
    pack(replace(parts, variants=[wrong, parts.variants[1]]), tmp_path / "wrong.edgetl")
    with pytest.raises(ModelError, match=r"float32, the manifest says \(N, 32, 32, 3\) uint8\."):
        load(tmp_path / "wrong.edgetl")


def test_variants_are_chosen_by_name(bundle: Path) -> None:
    with load(bundle, variant="int8-cpu-x86", threads=1) as chosen:
        assert chosen.variant.name == "int8-cpu-x86"
    with pytest.raises(BundleError, match=r"has no variant 'int4'; it has fp32 \(made for any\), int8"):
        load(bundle, variant="int4")


def test_threads_must_be_positive(bundle: Path) -> None:
    with pytest.raises(ValueError, match="threads is 0"):
        load(bundle, threads=0)


@pytest.mark.parametrize(
    ("batch", "came"),
    [
        (np.zeros((2, 3, 32, 32)), r"\(2, 3, 32, 32\) float64"),
        (np.zeros((3, 32, 32), np.float32), r"\(3, 32, 32\) float32"),
        (np.zeros((2, 3, 32, 16), np.float32), r"\(2, 3, 32, 16\) float32"),
        (np.zeros((2, 32, 32, 3), np.float32), r"\(2, 32, 32, 3\) float32"),
        (np.zeros((2, 3, 32, 32), np.uint8), r"\(2, 3, 32, 32\) uint8"),
        (np.zeros((32, 32, 3), np.uint8), r"\(32, 32, 3\) uint8"),
        ("batch", "a str"),
    ],
)
def test_wrong_batches_name_the_tensor_what_came_and_what_was_expected(
    session: Session, batch: np.ndarray, came: str
) -> None:
    expected = r"expected \(N, 3, 32, 32\) float32 or \(N, 32, 32, 3\) uint8"
    with pytest.raises(TensorError, match=rf"^images: got {came}, {expected}\.$"):
        session.run(batch)


def test_every_form_of_one_picture_gives_the_same_prediction(session: Session, photo: Path) -> None:
    with Image.open(photo) as opened:
        image = opened.convert("RGB")
    forms = [photo, str(photo), photo.read_bytes(), image, np.array(image)]
    found = [session.predict(form) for form in forms]
    assert len(set(found)) == 1
    logits = session.run(load_batch([photo], SPEC))["logits"][0].astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum()
    assert found[0].index == int(logits.argmax())
    assert found[0].label == LABELS[found[0].index]
    assert found[0].score == pytest.approx(probabilities.max(), rel=1e-6)
    assert session.predict(forms) == found


def test_top_k_is_sorted_and_cut_at_the_number_of_classes(session: Session) -> None:
    found = session.predict(picture(), top_k=9)
    assert isinstance(found, Prediction)
    assert len(found.top) == 3
    assert [s.score for s in found.top] == sorted((s.score for s in found.top), reverse=True)
    assert sum(s.score for s in found.top) == pytest.approx(1.0)
    assert (found.top[0].label, found.top[0].index, found.top[0].score) == (
        found.label,
        found.index,
        found.score,
    )
    assert {s.label for s in found.top} == set(LABELS)
    with pytest.raises(ValueError, match="top_k is 0"):
        session.predict(picture(), top_k=0)


def test_lists_are_batched_and_keep_their_order(session: Session) -> None:
    pictures = [picture(i) for i in range(70)]
    assert session.predict(pictures) == [session.predict(p) for p in pictures]
    assert session.predict([]) == []
    frames = np.random.default_rng(0).integers(0, 255, (3, 40, 48, 3), dtype=np.uint8)
    assert session.predict(frames) == [session.predict(frame) for frame in frames]


@pytest.mark.parametrize(
    ("image", "kind", "message"),
    [
        ("missing.jpg", ImageError, r"missing\.jpg: there is no such file"),
        (b"", ImageError, "the file is empty"),
        (b"not an image", ImageError, "is not an image"),
        (Path("clip.MP4"), ImageError, r"clip\.MP4 is a video; .*edgetl predict BUNDLE clip\.MP4"),
        (np.zeros((32, 32, 3)), TensorError, r"\(32, 32, 3\) float64"),
        (np.zeros((2, 2, 3), np.uint8), ImageError, "is 2x2 pixels"),
        (3, TensorError, r"image: got a int, expected a path, bytes, a Pillow image or an array \(H, W, 3\)"),
    ],
)
def test_what_cannot_be_predicted_is_named(
    session: Session, image: object, kind: type[EdgetlError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        session.predict(image)  # type: ignore[call-overload]
    with pytest.raises(kind, match=message):
        session.predict([picture(), image])  # type: ignore[list-item]


def test_a_truncated_picture_in_a_list_is_named(session: Session, photo: Path) -> None:
    broken = photo.with_name("broken.png")
    broken.write_bytes(picture()[:200])
    with pytest.raises(ImageError, match=r"broken\.png"):
        session.predict([photo, broken])


# --- proof --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["fp32", "int8-cpu-x86"])
def test_a_good_bundle_verifies(bundle: Path, variant: str) -> None:
    with load(bundle, variant=variant) as opened:
        check = opened.verify()
    assert check.passed
    assert check.pixels_identical
    assert check.images == 3
    assert check.same == 1.0
    assert check.max_difference <= check.allowed_difference


def repacked(folder: Path, golden: GoldenSet) -> Path:
    out = folder / "b.edgetl"
    pack(replace(contents(folder), golden=golden), out)
    return out


def test_another_engine_is_found(tmp_path: Path) -> None:
    golden = contents(tmp_path).golden
    off = {name: {"logits": out["logits"] + 0.01} for name, out in golden.outputs.items()}
    with load(repacked(tmp_path, replace(golden, outputs=off))) as opened:
        check = opened.verify()
    assert not check.passed
    assert check.pixels_identical
    assert "so the inference engine computes something else" in check.reason


def test_other_preprocessing_is_found(tmp_path: Path) -> None:
    """The golden logits came from pictures that were shifted by two pixels."""
    golden = contents(tmp_path).golden
    shifted = np.roll(golden.pixels, 2, axis=1)
    with load(repacked(tmp_path, golden)) as opened:
        outputs = opened.run(shifted)
    other = replace(golden, pixels=shifted, outputs={**golden.outputs, "fp32": outputs})
    with load(repacked(tmp_path, other)) as opened:
        check = opened.verify()
    assert not check.passed
    assert not check.pixels_identical
    assert "look at the version of Pillow first" in check.reason


def test_verify_reads_every_file(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.edgetl"
    content = bytearray(bundle.read_bytes())
    with load(bundle) as opened:
        other = opened.bundle.model("int8-cpu-x86")
    content[bytes(content).index(other) + 20] ^= 1
    path.write_bytes(content)
    with (
        load(path) as opened,
        pytest.raises(BundleIntegrityError, match=r"models/int8-cpu-x86\.onnx was altered"),
    ):
        opened.verify()


def test_a_model_that_does_not_fit_the_manifest_is_refused(tmp_path: Path) -> None:
    parts = contents(tmp_path)
    out = tmp_path / "b.edgetl"
    pack(replace(parts, preprocess=replace(SPEC, size=48)), out)
    with pytest.raises(
        ModelError, match=r"tensor images of variant fp32 is .*the manifest says \(N, 3, 48, 48\)"
    ):
        load(out)


# --- overhead -----------------------------------------------------------------------------------------------


def test_run_adds_little_to_the_engine(session: Session) -> None:
    batch = normalise(load_pixels(picture(), SPEC)[None], SPEC)
    engine = session.backend._session  # type: ignore[attr-defined]
    calls = {
        "engine": lambda: engine.run(["logits"], {"images": batch}),
        "session": lambda: session.run(batch),
    }
    times: dict[str, list[int]] = {name: [] for name in calls}
    for _ in range(2000):
        for name, call in calls.items():
            start = time.perf_counter_ns()
            call()
            times[name].append(time.perf_counter_ns() - start)
    added = (np.median(times["session"]) - np.median(times["engine"])) / 1e3
    assert added < 20.0


def test_grey_and_transparent_files_work(session: Session) -> None:
    for mode in ("L", "LA", "RGBA", "P", "CMYK"):
        buffer = io.BytesIO()
        Image.new(mode, (40, 40)).save(buffer, "TIFF" if mode == "CMYK" else "PNG")
        assert isinstance(session.predict(buffer.getvalue()), Prediction)


# --- buffers, threads, closing ------------------------------------------------------------------------------


def test_bgr_arrays_give_what_rgb_ones_give(session: Session) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 50, 70, 3), dtype=np.uint8)
    turned = frames[..., ::-1]
    assert session.predict(turned, channels="bgr") == session.predict(frames)
    assert session.predict(turned[0], channels="bgr") == session.predict(frames[0])
    assert session.predict(turned[0]) != session.predict(frames[0])
    assert session.predict(picture(), channels="bgr") == session.predict(picture())
    with pytest.raises(ValueError, match="channels is 'grb', expected 'rgb' or 'bgr'"):
        session.predict(frames, channels="grb")  # type: ignore[call-overload]


def test_bgr_holds_where_padding_has_a_colour(tmp_path: Path) -> None:
    parts = contents(tmp_path)
    pack(replace(parts, preprocess=replace(SPEC, resize=Resize.PAD)), tmp_path / "pad.edgetl")
    frame = np.random.default_rng(0).integers(0, 256, (30, 70, 3), dtype=np.uint8)
    with load(tmp_path / "pad.edgetl", threads=1) as opened:
        assert np.array_equal(opened.pixels(frame[..., ::-1], channels="bgr"), opened.pixels(frame))


def test_a_prediction_makes_no_copy_that_it_could_do_without(tmp_path: Path) -> None:
    """What Python and numpy allocate for one image in steady state: Pillow's bytes, then the planes, no floats."""
    parts, model = contents(tmp_path), tmp_path / "large.onnx"
    model.write_bytes(classifier(size=160))
    large = replace(parts.variants[0], model=model)
    spec = replace(SPEC, size=160)
    pack(replace(parts, variants=[large, *parts.variants[1:]], preprocess=spec), tmp_path / "b.edgetl")
    image = Image.open(io.BytesIO(picture(size=(600, 500)))).convert("RGB")
    with load(tmp_path / "b.edgetl", threads=1) as opened:
        opened.predict(image)
        tracemalloc.start()
        try:
            opened.predict(image)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            opened.predict(image)
            peak = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
    pixels = 160 * 160 * 3
    # Pillow joins its bytes from pieces: twice their size and a buffer of 64 KiB. The planes come when those are gone.
    assert pixels <= peak < 2 * pixels + 80_000
    assert peak < 4 * pixels, "float32 images are four times as large: their buffer is reused"


def test_a_thread_s_buffers_are_its_own_and_reused(session: Session) -> None:
    session.predict(picture())
    own = session._own_buffers()
    assert session._own_buffers() is own
    others = []
    thread = threading.Thread(target=lambda: others.append(session._own_buffers()))
    thread.start()
    thread.join()
    assert others[0] is not own


def test_eight_threads_get_their_own_answers(bundle: Path) -> None:
    pictures = [picture(i) for i in range(8)]
    wrong: list[int] = []
    with load(bundle, threads=2) as opened:
        expected = [opened.predict(p) for p in pictures]

        def work(at: int) -> None:
            for _ in range(40):
                if opened.predict(pictures[at]) != expected[at] or opened.predict(pictures) != expected:
                    wrong.append(at)

        threads = [threading.Thread(target=work, args=(at,)) for at in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_workers_give_what_one_thread_gives(bundle: Path) -> None:
    pictures = [picture(i) for i in range(20)]
    with load(bundle, threads=3) as many, load(bundle, threads=1) as one:
        assert many.predict(pictures) == one.predict(pictures)
        assert many._shared is not many.backend
        assert one._shared is one.backend


def test_a_broken_image_in_a_list_is_named_and_the_threads_end(bundle: Path) -> None:
    with load(bundle, threads=2) as opened:
        with pytest.raises(ImageError, match="the file is empty"):
            opened.predict([picture(0), b"", picture(1)])
        for thread in [t for t in threading.enumerate() if t.name.startswith("edgetl")]:
            thread.join(timeout=10)
            assert not thread.is_alive()


def test_closing_twice_is_fine_and_use_after_it_is_refused(bundle: Path) -> None:
    opened = load(bundle, threads=2)
    opened.predict([picture(0), picture(1)])
    opened.close()
    opened.close()
    for use in (lambda: opened.predict(picture()), lambda: opened.predict([picture()])):
        with pytest.raises(ValueError, match="the session is closed"):
            use()
    with pytest.raises(ValueError, match="the session is closed"):
        opened.run(np.zeros((1, 3, 32, 32), np.float32))


def test_every_byte_of_the_model_is_checked_before_the_engine_sees_it(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with load(bundle) as opened:
        model = opened.bundle.model()
    path, content = tmp_path / "b.edgetl", bundle.read_bytes()
    start = content.index(model)
    seen: list[object] = []
    monkeypatch.setattr(
        "edgetl.runtime.engines.onnxruntime.OnnxBackend.__init__", lambda *a, **k: seen.append(a)
    )
    for offset in range(0, len(model), 97):
        changed = bytearray(content)
        changed[start + offset] ^= 1
        path.write_bytes(changed)
        with pytest.raises(BundleIntegrityError, match=r"models/fp32\.onnx was altered"):
            load(path)
    assert seen == []


def test_numbers_beyond_8_bits_go_through_the_bundle_s_window(tmp_path: Path) -> None:
    parts = contents(tmp_path)
    spec = replace(SPEC, window=(20_000.0, 24_000.0), guess_floats=False)
    pack(replace(parts, preprocess=spec), tmp_path / "w.edgetl")
    values = np.random.default_rng(0).integers(19_000, 25_000, (40, 48)).astype(np.uint16)
    (tmp_path / "frame.png").write_bytes(png16(values))
    grey = np.rint(np.clip((values - 20_000.0) / 4_000, 0, 1) * 255).astype(np.uint8)
    with load(tmp_path / "w.edgetl", threads=1) as opened:
        expected = opened.predict(grey)
        frames = [
            values,
            values.astype(np.float32),
            Image.fromarray(values),
            png16(values),
            tmp_path / "frame.png",
        ]
        assert [opened.predict(frame) for frame in frames] == [expected] * len(frames)
        assert opened.predict(frames) == [expected] * len(frames)
        assert opened.predict(np.repeat(values[..., None], 3, 2), channels="bgr") == expected


def test_a_model_whose_outputs_do_not_fit_the_task_is_refused(tmp_path: Path) -> None:
    parts = contents(tmp_path)
    other = tmp_path / "other.onnx"
    other.write_bytes(classifier(names=("images", "scores")))
    first, second = parts.variants
    out = tmp_path / "b.edgetl"
    pack(replace(parts, variants=[replace(first, model=other), second]), out)
    with pytest.raises(
        ModelError,
        match=r"b\.edgetl: variant fp32 gives scores \(N, 3\) float32; the manifest's task, classification, asks for "
        r"logits \(N, 3\) float32\.$",
    ):
        load(out, variant="fp32")


def test_a_session_that_outlives_the_interpreter_says_nothing(bundle: Path) -> None:
    """A function of the program that a module of the library's keeps, keeps the session to the very end."""
    program = "import edgetl, sys, warnings; warnings.keep = lambda: 0; session = edgetl.load(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", program, bundle], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
