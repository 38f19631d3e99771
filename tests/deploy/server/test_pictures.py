"""A picture in, an answer out: every task, options, forms, maps, and pictures that cannot be used."""

from __future__ import annotations

import dataclasses
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgetl
from edgetl.bundle.confidence import ConfidenceSource
from edgetl.bundle.golden import GoldenSet
from edgetl.bundle.pack import Contents, VariantSource, pack
from edgetl.inputs.image import PreprocessSpec, Resize, load_pixels, normalise
from edgetl.inputs.wave import wave_file
from edgetl.records.codec import to_json
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.tasks.base import LOGITS, MultiHead, MultiLabel, TaskSpec
from edgetl.tasks.conformal import Conformity
from tests import squares
from tests.bundles import SPEC, contents, picture
from tests.deploy.server.serving import Running, serving
from tests.deploy.server.test_tensors import tensor
from tests.runtime.test_explain import PEAKS
from tests.runtime.test_explain import bundle_of as colours_bundle
from tests.runtime.test_explain import squares as coloured
from tests.runtime.test_tasks import TASKS, linear_bundle
from tests.sounds import SPEC as SOUND
from tests.sounds import tone

FLOWERS = "/v1/models/flowers:predict"


def test_a_picture_is_answered_as_the_session_does(server: Running, bundles: Path) -> None:
    with edgetl.load(bundles / "flowers.edgetl", threads=1) as session:
        wanted = session.predict(picture(5), top_k=3)
    got = server.post(f"{FLOWERS}?top=3", picture(5))
    assert got.status == 200, got.body
    assert got.json["prediction"] == json.loads(json.dumps(to_json(wanted)))
    assert (got.json["text"], got.json["task"]) == (wanted.text, "classification")
    assert (got.json["model"], got.json["variant"]) == ("flowers", "fp32")
    assert got.headers["server-timing"].startswith("all;dur=")


def test_boxes_are_in_the_picture_s_pixels(server: Running, bundles: Path) -> None:
    content = squares.encoded(squares.drawn(squares.squares(5)))
    with edgetl.load(bundles / "squares.edgetl", threads=1) as session:
        wanted = session.predict(content)
    got = server.post("/v1/models/squares:predict", content)
    assert got.json["prediction"] == json.loads(json.dumps(to_json(wanted)))
    assert len(wanted.items) > 1


@pytest.mark.parametrize("quoted", ['"', ""])
def test_a_form_s_file_is_taken(quoted: str, server: Running) -> None:
    mark = "----mark7"
    body = (
        f'--{mark}\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
        f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    ).encode()
    body += picture(5) + f"\r\n--{mark}--\r\n".encode()
    kind = f"multipart/form-data; boundary={quoted}{mark}{quoted}"
    got = server.post(FLOWERS, body, {"content-type": kind})
    assert got.json["prediction"] == server.post(FLOWERS, picture(5)).json["prediction"]


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        ("multipart/form-data", b"x", "The form has no boundary"),
        ("multipart/form-data; boundary=a", b"--a--\r\n", "The form has no file"),
        ("multipart/form-data; boundary=a", b"--a\r\nfilename\r\n\r\nxx", "The form has no file"),
        ("multipart/form-data; boundary=a", b"--a\r\nfilename\r\n\r\n\r\n--a--", "The body is empty"),
        ("application/json", b"{}", "The body is JSON; send an encoded picture"),
        ("image/png", b"", "The body is empty"),
        ("image/png", b"hello", "The picture"),
        ("image/png", picture()[:-200], "The picture"),
    ],
)
def test_a_body_without_a_picture_is_told(kind: str, body: bytes, message: str, server: Running) -> None:
    got = server.post(FLOWERS, body, {"content-type": kind})
    assert got.status in (400, 415)
    assert message in got.error


def test_a_picture_too_large_is_refused_before_it_is_decoded(server: Running) -> None:
    header = struct.pack(">IIBBBBB", 40_000, 30_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    bomb += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    got = server.post(FLOWERS, bomb)
    assert got.status == 413
    assert "The picture has 40000 x 30000 pixels; at most 1 million are taken. Send it smaller." in got.error
    large = squares.encoded(Image.new("RGB", (1200, 1000)))
    assert server.post(FLOWERS, large).status == 413
    got = server.post(FLOWERS, b"\0" * ((1 << 20) + 1))
    assert got.status == 413
    assert "The request is too large: at most 1048576 bytes are taken." in got.error


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("flowers:predict?topp=3", "There is no option 'topp'; there are top, explain"),
        ("flowers:predict?top=0", "top: got '0', expected a number of labels"),
        ("flowers:predict?top=many", "top: got 'many'"),
        ("flowers:predict?explain=maybe", "explain: got 'maybe', expected 0 or 1"),
        ("flowers:predict?sure=high", "sure: got 'high', expected a share"),
        ("flowers:predict?sure=0.9", "knows no tree of its classes"),
        ("flowers:predict?coverage=0.9", "was made before bundles knew how sure"),
        ("flowers:predict?unknown=0.1", "was made before bundles could tell"),
        ("squares:predict?explain=1", "explain: the bundle is of the task detection"),
        ("squares:predict?coverage=0.9", "coverage"),
    ],
)
def test_what_a_bundle_cannot_answer_is_told(path: str, message: str, server: Running) -> None:
    got = server.post(f"/v1/models/{path}", picture())
    assert got.status == 400, got.body
    assert message in got.error
    assert str(server.post(FLOWERS, picture()).status) == "200"


def test_a_name_that_is_not_served(server: Running) -> None:
    got = server.post("/v1/models/roses:predict", picture())
    assert (got.status, got.error) == (404, "There is no model 'roses'; there is flowers, squares.")


def test_maps_lie_over_the_picture_and_other_tasks_answer(tmp_path: Path) -> None:
    colours = colours_bundle(tmp_path, MultiLabel(labels=tuple(PEAKS)), Resize.PAD)
    # Its golden outputs are not its own: what a server verifies.
    with edgetl.load(colours, threads=1) as session:
        pixels = np.stack([session.pixels(image) for image in session.bundle.golden_images()])
        outputs = session.run(pixels)
        parts = contents(tmp_path)
        spec: PreprocessSpec = session.manifest.preprocess
        model = session.bundle.model()
    pack(
        Contents(
            name="colours",
            task=MultiLabel(labels=tuple(PEAKS)),
            preprocess=spec,
            variants=[VariantSource(name="fp32", precision="fp32", target="any", model=model)],
            default="fp32",
            golden=type(parts.golden)(images=parts.golden.images, pixels=pixels, outputs={"fp32": outputs}),
            provenance=parts.provenance,
        ),
        colours,
    )
    with serving({"colours": colours}) as running:
        got = running.post("/v1/models/colours:predict?explain=1&top=3", squares.encoded(coloured(["green"])))
        assert got.status == 200, got.body
        assert got.json["task"] == "multilabel"
        shown = next(one for one in got.json["maps"] if one["label"] == "green")
        assert np.abs(np.subtract(shown["peak"], PEAKS["green"])).max() <= 12
        strength = np.array(shown["strength"])
        assert (shown["size"], strength.shape) == ([180, 120], (43, 64))
        row, column = np.unravel_index(strength.argmax(), strength.shape)
        assert np.abs(np.subtract((column * 180 / 64, row * 120 / 43), PEAKS["green"])).max() <= 14
        assert (strength.min(), strength.max()) == (0, 255)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_every_task_is_answered_as_the_session_does(task: TaskSpec, tmp_path: Path) -> None:
    outputs = tuple(task.heads) if isinstance(task, MultiHead) else (LOGITS,)
    ranked = np.linspace(1.0, 0.1, 40, dtype=np.float32)
    confidence = ConfidenceSource(
        temperatures=dict.fromkeys(outputs, 1.5),
        conformities={name: Conformity(images=40, ranked=ranked) for name in outputs},
    )
    path = linear_bundle(tmp_path, task, confidence=confidence)
    options = {"top_k": 2, "coverage": 0.8}
    with edgetl.load(path, threads=1) as session:
        wanted = [to_json(session.predict(picture(5), **more)) for more in ({}, options)]
    with serving({"m": path}) as running:
        got = [
            running.post(f"/v1/models/m:predict{more}", picture(5)) for more in ("", "?top=2&coverage=0.8")
        ]
        assert [one.status for one in got] == [200, 200], got[-1].body
        assert [one.json["prediction"] for one in got] == json.loads(json.dumps(wanted))
        assert wanted[0] != wanted[1]
        assert [one["name"] for one in running.get("/v2/models/m").json["outputs"]] == list(outputs)
        pixels = tensor(np.zeros((1, SPEC.size, SPEC.size, 3), np.uint8))
        raw = running.post("/v2/models/m/infer", {"inputs": [pixels]}).json["outputs"]
        assert [one["name"] for one in raw] == list(outputs)


def test_a_recording_is_answered_by_a_model_that_listens_and_refused_by_one_that_looks(
    server: Running, tmp_path: Path
) -> None:
    path, parts = tmp_path / "words.edgetl", contents(tmp_path)
    sound = wave_file(tone(440.0), SOUND.rate)
    listens = dataclasses.replace(SPEC, sound=SOUND)
    pixels, outputs = load_pixels(sound, listens)[None], {}
    for source in parts.variants:
        with OnnxBackend(source.model, threads=1) as backend:
            outputs[source.name] = backend.run(normalise(pixels, listens))
    golden = GoldenSet(images=(sound,), pixels=pixels, outputs=outputs)
    pack(dataclasses.replace(parts, preprocess=listens, golden=golden), path)
    with edgetl.load(path, threads=1) as session:
        wanted = session.predict(sound)
    with serving({"words": path}) as listening:
        got = listening.post("/v1/models/words:predict", sound)
    assert got.json["prediction"] == json.loads(json.dumps(to_json(wanted)))
    assert server.post(FLOWERS, sound).status == 400
