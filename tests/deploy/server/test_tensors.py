"""The Open Inference Protocol: metadata, tensors in JSON and in bytes, and every way in which they can be wrong."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgetl
from edgetl.inputs.image import load_pixels, normalise
from tests.bundles import SPEC, picture
from tests.deploy.server.serving import Running

INFER = "/v2/models/flowers/infer"
PIXELS = np.stack([load_pixels(picture(seed), SPEC) for seed in range(3)])


@pytest.fixture(scope="module")
def wanted(bundles: Path) -> np.ndarray:
    with edgetl.load(bundles / "flowers.edgetl", threads=1) as session:
        return session.run(PIXELS)["logits"]


def tensor(array: np.ndarray, kind: str = "UINT8", **more: Any) -> dict[str, Any]:
    return {
        "name": "images",
        "datatype": kind,
        "shape": list(array.shape),
        "data": array.ravel().tolist(),
        **more,
    }


def binary(
    server: Running, array: np.ndarray, kind: str, content: bytes | None = None, **request: Any
) -> Any:
    content = array.tobytes() if content is None else content
    described = {
        "name": "images",
        "datatype": kind,
        "shape": list(array.shape),
        "parameters": {"binary_data_size": len(content)},
    }
    head = json.dumps({"inputs": [described], **request}).encode()
    return server.post(INFER, head + content, {"Inference-Header-Content-Length": str(len(head))})


def test_the_server_and_its_models_describe_themselves(server: Running) -> None:
    assert server.get("/v2").json == {
        "name": "edgetl",
        "version": edgetl.__version__,
        "extensions": ["binary_tensor_data"],
    }
    assert server.get("/v2/health/live").status == server.get("/v2/health/ready").status == 200
    told = server.get("/v2/models/flowers").json
    (version,) = told["versions"]
    assert told["name"] == "flowers"
    assert told["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}]
    assert told["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 3]}]
    assert server.get(f"/v2/models/flowers/versions/{version}").json == told
    assert server.get("/v2/models/flowers/ready").json == {"name": "flowers", "ready": True}
    boxes = server.get("/v2/models/squares").json["outputs"]
    assert [one["name"] for one in boxes] == ["boxes", "scores"]
    assert [len(one["shape"]) for one in boxes] == [3, 3]


def test_tensors_in_json_give_the_session_s_outputs(server: Running, wanted: np.ndarray) -> None:
    got = server.post(INFER, {"id": "a1", "inputs": [tensor(PIXELS)]})
    assert got.status == 200, got.body
    (output,) = got.json["outputs"]
    assert (got.json["id"], got.json["model_name"]) == ("a1", "flowers")
    assert (output["name"], output["datatype"], output["shape"]) == ("logits", "FP32", [3, 3])
    assert np.array(output["data"]).reshape(3, 3) == pytest.approx(wanted, abs=1e-5)
    nested = {**tensor(PIXELS), "data": PIXELS.tolist()}
    assert server.post(INFER, {"inputs": [nested]}).json["outputs"] == [output]
    floats = tensor(normalise(PIXELS, SPEC), "FP32")
    found = server.post(INFER, {"inputs": [floats], "outputs": [{"name": "logits"}]}).json["outputs"][0]
    assert np.array(found["data"]).reshape(3, 3) == pytest.approx(wanted, abs=1e-4)


def test_tensors_in_bytes_give_the_same(server: Running, wanted: np.ndarray) -> None:
    got = binary(server, PIXELS, "UINT8", parameters={"binary_data_output": True})
    assert got.status == 200, got.body
    length = int(got.headers["inference-header-content-length"])
    (output,) = json.loads(got.body[:length])["outputs"]
    assert "data" not in output
    assert output["parameters"] == {"binary_data_size": 36}
    assert np.frombuffer(got.body[length:], "<f4").reshape(3, 3) == pytest.approx(wanted, abs=1e-5)
    floats = normalise(PIXELS, SPEC)
    found = binary(server, floats, "FP32").json["outputs"][0]["data"]
    assert np.array(found).reshape(3, 3) == pytest.approx(wanted, abs=1e-4)


def test_encoded_pictures_are_tensors_too(server: Running, wanted: np.ndarray) -> None:
    pictures = [picture(seed) for seed in range(3)]
    content = b"".join(len(one).to_bytes(4, "little") + one for one in pictures)
    found = binary(server, np.zeros(3), "BYTES", content).json["outputs"][0]["data"]
    assert np.array(found).reshape(3, 3) == pytest.approx(wanted, abs=1e-5)
    text = {
        "name": "images",
        "datatype": "BYTES",
        "shape": [3],
        "data": [base64.b64encode(one).decode() for one in pictures],
    }
    found = server.post(INFER, {"inputs": [text]}).json["outputs"][0]["data"]
    assert np.array(found).reshape(3, 3) == pytest.approx(wanted, abs=1e-5)


ONE = PIXELS[:1]
WRONG: dict[str, tuple[Any, str]] = {
    "no JSON": (b"{", "The request is no JSON"),
    "deep JSON": (b"[" * 200_000, "The request is no JSON"),
    "no object": ([], "The request is no JSON object"),
    "no inputs": ({}, "The request has no list of inputs"),
    "two inputs": ({"inputs": [tensor(ONE)] * 2}, "has 2 inputs, expected 1"),
    "another name": ({"inputs": [tensor(ONE, name="x")]}, "The model's input is 'images', got 'x'"),
    "another type": ({"inputs": [tensor(ONE, "INT64")]}, "The input is 'INT64' [1, 32, 32, 3], expected"),
    "another size": ({"inputs": [tensor(ONE[:, :8])]}, "The input is 'UINT8' [1, 8, 32, 3], expected"),
    "no shape": ({"inputs": [{**tensor(ONE), "shape": None}]}, "shape is None, expected"),
    "a shape of texts": ({"inputs": [{**tensor(ONE), "shape": ["1"]}]}, "shape is ['1'], expected"),
    "a shape below 1": (
        {"inputs": [{**tensor(ONE), "shape": [0, 32, 32, 3]}]},
        "expected a list of positive",
    ),
    "a huge shape": ({"inputs": [{**tensor(ONE), "shape": [1 << 40, 32, 32, 3]}]}, "expected a list of"),
    "many images": ({"inputs": [{**tensor(ONE), "shape": [5000, 32, 32, 3]}]}, "send at most 1024"),
    "too few numbers": ({"inputs": [{**tensor(ONE), "data": [1, 2]}]}, "is of the shape [2], expected"),
    "no numbers": ({"inputs": [{**tensor(ONE), "data": None}]}, "has no list of data"),
    "texts": (
        {"inputs": [{**tensor(ONE), "data": ["a" * 1000] + ["b"] * 3071}]},
        "not all whole numbers 0 to 255",
    ),
    "truths": ({"inputs": [{**tensor(ONE), "data": [True] * 3072}]}, "not all whole numbers"),
    "beyond a byte": ({"inputs": [{**tensor(ONE), "data": [256] * 3072}]}, "is beyond 0 to 255"),
    "ragged": ({"inputs": [{**tensor(ONE), "data": [[1], [1, 2]]}]}, "not nested alike"),
    "too deep": ({"inputs": [{**tensor(ONE), "data": [[[[[1]]]]]}]}, "is of the shape"),
    "huge floats": (
        {"inputs": [{**tensor(ONE, "FP32"), "shape": [1, 3, 32, 32], "data": [10**400] + [0] * 3071}]},
        "not finite",
    ),
    "floats beyond 32 bits": (
        {"inputs": [{**tensor(ONE, "FP32"), "shape": [1, 3, 32, 32], "data": [1e300] * 3072}]},
        "not finite",
    ),
    "NaN": (b'{"inputs":[{"name":"images","data":[NaN]}]}', "it holds the figure NaN"),
    "no such output": (
        {"inputs": [tensor(ONE)], "outputs": [{"name": "boxes"}]},
        "The model has no output 'boxes'; it has logits",
    ),
    "an output twice": (
        {"inputs": [tensor(ONE)], "outputs": [{"name": "logits"}, {"name": "logits"}]},
        "An output is asked for twice",
    ),
    "classification": (
        {"inputs": [tensor(ONE)], "outputs": [{"name": "logits", "parameters": {"classification": 2}}]},
        "ask :predict for labels",
    ),
    "no base64": (
        {"inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "data": ["?"]}]},
        "The input's data is not base64",
    ),
    "no picture": (
        {"inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "data": ["aGVsbG8="]}]},
        "The picture",
    ),
    "bytes of another shape": (
        {"inputs": [{"name": "images", "datatype": "BYTES", "shape": [1, 1], "data": ["aGVsbG8="]}]},
        "The input is 'BYTES' [1, 1], expected [N]",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_request_that_is_wrong_says_what_is(case: str, server: Running) -> None:
    body, message = WRONG[case]
    got = server.post(INFER, body)
    assert got.status == 400, got.body
    assert message in got.error, got.error


def test_bytes_that_do_not_fit_are_told(server: Running) -> None:
    assert "its shape wants 3072" in binary(server, ONE, "UINT8", b"x" * 7).error
    cut = binary(server, np.zeros(1), "BYTES", (9).to_bytes(4, "little") + b"abc")
    assert "do not end where its last element does" in cut.error
    assert "has 0 pictures, its shape says 2" in binary(server, np.zeros(2), "BYTES", b"").error
    head = json.dumps({"inputs": [tensor(ONE)]}).encode()
    for length, message in (
        ("x", "Inference-Header-Content-Length is 'x'"),
        ("-1", "Length is '-1'"),
        ("99999999", "the body has"),
        ("7", "The request is no JSON"),
    ):
        got = server.post(INFER, head, {"Inference-Header-Content-Length": length})
        assert got.status == 400
        assert message in got.error
    got = server.post(INFER, head + b"more", {"Inference-Header-Content-Length": str(len(head))})
    assert "4 bytes follow the JSON, and no input has a binary_data_size" in got.error


def test_names_methods_and_compression_that_are_not_served(server: Running) -> None:
    unknown = server.post("/v2/models/roses/infer", {})
    assert unknown.status == 404
    assert unknown.error == "There is no model 'roses'; there is flowers, squares."
    assert server.get("/v2/models/flowers/versions/7").status == 404
    assert server.get("/v2/models/flowers/infer").status == 405
    assert server.get("/v3").status == 404
    got = server.post(INFER, b"x", {"content-encoding": "gzip"})
    assert (got.status, got.error) == (415, "Compressed requests are not taken; leave the compression out.")


def test_tritonclient_is_served(server: Running, wanted: np.ndarray) -> None:
    triton = pytest.importorskip("tritonclient.http", reason="needs: pip install tritonclient[http]")
    client = triton.InferenceServerClient("{}:{}".format(*server.address))
    try:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("flowers")
        assert client.get_server_metadata()["name"] == "edgetl"
        described = client.get_model_metadata("flowers")["inputs"][0]
        for as_bytes in (True, False):
            asked = triton.InferInput(described["name"], list(PIXELS.shape), described["datatype"])
            asked.set_data_from_numpy(PIXELS, binary_data=as_bytes)
            output = triton.InferRequestedOutput("logits", binary_data=as_bytes)
            got = client.infer("flowers", [asked], outputs=[output], request_id="7")
            assert got.as_numpy("logits") == pytest.approx(wanted, abs=1e-5)
            assert got.get_response()["id"] == "7"
        with pytest.raises(triton.InferenceServerException, match="There is no model 'roses'"):
            client.infer("roses", [asked])
    finally:
        client.close()
