"""The Open Inference Protocol, JSON and binary, and many rows at once, against a real service over HTTP."""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from delivery import build
from mainspring.loop.server_process import ServerProcess
from mainspring.storage.prediction_log import PredictionLog
from mainspring.storage.workspace import Workspace

KM = [12.5, 3.0, 30.25]
AT = "2025-02-10T12:00:00Z"
INFER = "/v2/models/delivery/infer"


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return build(tmp_path_factory.mktemp("inference") / "space")


@pytest.fixture(scope="module")
def client(space: Workspace) -> Iterator[httpx.Client]:
    os.environ["PYTHONPATH"] = os.pathsep.join([part for part in sys.path if part])
    with ServerProcess(space.path) as server, httpx.Client(base_url=server.url) as client:
        yield client


def tensors(**changes: Any) -> list[dict[str, Any]]:
    inputs = {
        "drive": ("BYTES", ["a", "b", "c"]),
        "sent_at": ("BYTES", [AT] * 3),
        "depot": ("BYTES", ["north", "south", "west"]),
        "km": ("FP64", KM),
    }
    inputs |= changes
    return [{"name": name, "shape": [len(data)], "datatype": datatype, "data": data} for name, (datatype, data) in inputs.items()]


def one_by_one(client: httpx.Client) -> list[float]:
    rows = zip(["a", "b", "c"], ["north", "south", "west"], KM, strict=True)
    bodies = [{"drive": drive, "sent_at": AT, "depot": depot, "km": km} for drive, depot, km in rows]
    return [client.post("/v1/delivery?explain=false", json=body).json()["minutes"] for body in bodies]


def outputs(body: dict[str, Any]) -> dict[str, list[Any]]:
    return {tensor["name"]: tensor["data"] for tensor in body["outputs"]}


def test_rows_as_tensors_are_answered_like_single_requests(client: httpx.Client) -> None:
    reply = client.post(INFER, json={"id": "t1", "inputs": tensors()})
    assert reply.status_code == 200, reply.text
    body = reply.json()
    assert (body["id"], body["model_name"], body["model_version"]) == ("t1", "delivery", "model:delivery:1")
    found = outputs(body)
    assert found["minutes"] == one_by_one(client)
    assert all(low < value < high for low, value, high in zip(found["low"], found["minutes"], found["high"], strict=True))
    assert set(found["answered_by"]) == {"model"}


def test_every_row_of_a_request_is_in_the_log(client: httpx.Client, space: Workspace) -> None:
    client.post(INFER, json={"id": "logged", "inputs": tensors()})
    ids = PredictionLog(space.predictions).read()[0].column("request_id").to_pylist()
    assert [one for one in ids if one.startswith("logged")] == ["logged:0", "logged:1", "logged:2"]


def packed(texts: list[str]) -> bytes:
    return b"".join([struct.pack("<I", len(text.encode())) + text.encode() for text in texts])


def binary_request(parts: dict[str, tuple[str, bytes]], parameters: dict[str, Any], rows: int = 3) -> tuple[bytes, dict[str, str]]:
    inputs = [
        {"name": name, "shape": [rows, 1], "datatype": datatype, "parameters": {"binary_data_size": len(data)}}
        for name, (datatype, data) in parts.items()
    ]
    head = json.dumps({"inputs": inputs, "parameters": parameters}).encode()
    body = head + b"".join([data for _, data in parts.values()])
    return body, {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}


PARTS = {
    "drive": ("BYTES", packed(["a", "b", "c"])),
    "sent_at": ("INT64", np.array([1739188800000000] * 3, dtype="<i8").tobytes()),
    "depot": ("BYTES", packed(["north", "south", "west"])),
    "km": ("FP64", np.array(KM, dtype="<f8").tobytes()),
}


def test_binary_tensors_in_and_out(client: httpx.Client) -> None:
    body, headers = binary_request(PARTS, {"binary_data_output": True})
    reply = client.post(INFER, content=body, headers=headers)
    assert reply.status_code == 200, reply.text
    length = int(reply.headers["inference-header-content-length"])
    head = json.loads(reply.content[:length])
    minutes = next(tensor for tensor in head["outputs"] if tensor["name"] == "minutes")
    values = np.frombuffer(reply.content[length : length + minutes["parameters"]["binary_data_size"]], "<f8")
    assert values.tolist() == one_by_one(client)


def test_nan_in_a_tensor_is_null_where_a_null_may_be(client: httpx.Client) -> None:
    body, headers = binary_request(PARTS | {"km": ("FP64", np.array([np.nan] * 3).tobytes())}, {})
    assert client.post(INFER, content=body, headers=headers).status_code == 200


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown tensor": ({"miles": ("FP64", KM)}, "miles"),
    "another length": ({"km": ("FP64", KM[:2])}, "km"),
    "another datatype": ({"km": ("BYTES", ["1", "2", "3"])}, "km"),
    "text for a number": ({"km": ("FP64", [1, "two", 3])}, "km[1]"),
    "out of range": ({"km": ("FP64", [1, 2, -3])}, "km[2]"),
    "an unknown key": ({"depot": ("BYTES", ["north", "moon", "west"])}, "depot[1]"),
    "null where none may be": ({"drive": ("BYTES", ["a", None, "c"])}, "drive[1]"),
}


@pytest.mark.parametrize(("change", "field"), WRONG.values(), ids=WRONG.keys())
def test_what_does_not_fit_is_refused_by_name_and_row(client: httpx.Client, change: dict[str, Any], field: str) -> None:
    reply = client.post(INFER, json={"inputs": tensors(**change)})
    assert reply.status_code == 422, reply.text
    assert reply.json()["error"]["field"] == field


WHOLE = json.dumps({"inputs": tensors()}).encode()
MALFORMED = {
    "no JSON": (b"{", {}),
    "no inputs": (b"{}", {}),
    "a length beyond the body": (b"{}", {"inference-header-content-length": "9"}),
    "a length that is none": (b"{}", {"inference-header-content-length": "-1"}),
    "bytes left over": (WHOLE + b"xx", {"inference-header-content-length": str(len(WHOLE))}),
    "half a string": binary_request(PARTS | {"drive": ("BYTES", packed(["a", "b", "c"])[:-1])}, {}),
    "half a number": binary_request(PARTS | {"km": ("FP64", b"\0" * 23)}, {}),
}  # fmt: skip


@pytest.mark.parametrize(("body", "headers"), MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_malformed_is_refused(client: httpx.Client, body: bytes, headers: dict[str, str]) -> None:
    reply = client.post(INFER, content=body, headers=headers)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["message"]


def test_only_the_outputs_asked_for(client: httpx.Client) -> None:
    body = client.post(INFER, json={"inputs": tensors(), "outputs": [{"name": "minutes"}]}).json()
    assert list(outputs(body)) == ["minutes"]
    refused = client.post(INFER, json={"inputs": tensors(), "outputs": [{"name": "minuts"}]})
    assert refused.status_code == 422
    assert "Did you mean 'minutes'" in refused.text


def test_the_server_and_the_model_describe_themselves(client: httpx.Client) -> None:
    assert "binary_tensor_data" in client.get("/v2").json()["extensions"]
    assert client.get("/v2/health/ready").json() == {"ready": True}
    model = client.get("/v2/models/delivery").json()
    assert {"name": "km", "datatype": "FP64", "shape": [-1]} in model["inputs"]
    assert model["versions"] == ["model:delivery:1"]
    assert client.get("/v2/models/delivery/ready").json()["ready"]
    assert client.post("/v2/repository/index").json()[0]["state"] == "READY"


def test_many_rows_share_columns_and_fail_alone(client: httpx.Client) -> None:
    rows = [{"drive": drive, "depot": depot, "km": km} for drive, depot, km in zip("abc", ["north", "south", "west"], KM, strict=True)]
    rows[1:1] = [{"drive": "x", "depot": "moon", "km": 1.0}, {"drive": "y", "depot": "north", "km": -1}]
    reply = client.post("/v1/delivery/rows", json={"shared": {"sent_at": AT}, "rows": rows})
    answers = reply.json()["answers"]
    assert [answers[place]["minutes"] for place in (0, 3, 4)] == one_by_one(client)
    assert [answers[place]["error"]["field"] for place in (1, 2)] == ["depot", "km"]


def test_rows_that_are_all_wrong_are_each_told_so(client: httpx.Client) -> None:
    reply = client.post("/v1/delivery/rows", json={"rows": [{"km": 1}, {"drive": "x"}]})
    assert reply.status_code == 200
    assert [answer["error"]["field"] for answer in reply.json()["answers"]] == ["drive", "sent_at"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "rows"),
        ({"rows": []}, "rows"),
        ({"rows": [1]}, "rows[0]"),
        ({"rows": [{}], "shared": 1}, "shared"),
        ({"rows": [{}], "shared": {"km": -1}}, "shared.km"),
        ({"rows": [{}], "shared": {"kms": 1}}, "shared.kms"),
        ({"rows": [{}], "other": 1}, "rows"),
    ],
)
def test_what_is_no_set_of_rows_is_refused(client: httpx.Client, body: Any, field: str) -> None:
    reply = client.post("/v1/delivery/rows", json=body)
    assert reply.status_code in (400, 422)
    assert reply.json()["error"]["field"] == field
