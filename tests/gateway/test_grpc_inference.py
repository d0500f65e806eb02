"""The Open Inference Protocol over gRPC: what HTTP answers, behind the same door; calls come from grpcio itself."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from authority import Authority
from gateway_service import TRIP, RuleService

from delivery import build
from mainspring.errors import ServingError
from mainspring.gateway import background
from mainspring.gateway.door.access import new_key
from mainspring.gateway.processes.listening import reserved
from mainspring.gateway.settings import Access, Grpc, Limits, Settings, Tls
from mainspring.loop.server_process import ServerProcess
from mainspring.storage.prediction_log import PredictionLog
from mainspring.storage.workspace import Workspace

grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
from mainspring.gateway.adapters.inference_messages import SERVICE, messages  # noqa: E402

KM = [12.5, 3.0, 30.25]
AT = "2025-02-10T12:00:00Z"
FIELDS = {"BYTES": "bytes_contents", "FP64": "fp64_contents", "INT64": "int64_contents"}
Made = dict[str, tuple[str, list[Any]]]
INPUTS: Made = {
    "drive": ("BYTES", [b"a", b"b", b"c"]),
    "sent_at": ("BYTES", [AT.encode()] * 3),
    "depot": ("BYTES", [b"north", b"south", b"west"]),
    "km": ("FP64", KM),
}


class Client:
    def __init__(self, port: int, credentials: Any = None) -> None:
        target = f"localhost:{port}"
        self.port = port
        options = [("grpc.enable_http_proxy", 0)]
        self.channel = grpc.insecure_channel(target, options) if credentials is None else grpc.secure_channel(target, credentials, options)

    def call(self, method: str, message: Any = None, *, timeout: float | None = 10, metadata: Any = None) -> tuple[Any, dict[str, str]]:
        reply = messages()[f"{method}Response"].FromString
        ask = self.channel.unary_unary(f"/{SERVICE}/{method}", lambda one: one.SerializeToString(), reply)
        sent = messages()[f"{method}Request"]() if message is None else message
        answer, done = ask.with_call(sent, timeout=timeout, metadata=metadata)
        return answer, dict(done.trailing_metadata())

    def refused(self, *arguments: Any, **options: Any) -> tuple[str, str]:
        with pytest.raises(grpc.RpcError) as caught:
            self.call(*arguments, **options)
        return caught.value.code().name, caught.value.details()


def asked(inputs: Made, model: str = "delivery", **fields: Any) -> Any:
    message = messages()["ModelInferRequest"](model_name=model, **fields)
    for name, (datatype, values) in inputs.items():
        tensor = message.inputs.add(name=name, datatype=datatype, shape=[len(values)])
        getattr(tensor.contents, FIELDS[datatype]).extend(values)
    return message


def trip(**changes: Any) -> Any:
    row = TRIP | changes
    made = {name: ("BYTES", [str(row[name]).encode()]) for name in ("trip_id", "starts_at", "zone")}
    return asked({**made, "miles": ("FP64", [float(row["miles"])])}, "eta")


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return build(tmp_path_factory.mktemp("rpc") / "space")


@pytest.fixture(scope="module")
def server(space: Workspace) -> Iterator[ServerProcess]:
    os.environ["PYTHONPATH"] = os.pathsep.join([part for part in sys.path if part])
    with ServerProcess(space.path, grpc_port=0, workers=2) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Client:
    return Client(server.grpc_port)


@contextlib.contextmanager
def rules(tmp_path: Any, **settings: Any) -> Iterator[tuple[Client, str, RuleService]]:
    service = RuleService(tmp_path)
    with reserved("127.0.0.1", 0) as port, background(service, settings=Settings(grpc=Grpc(port), **settings)) as url:
        assert port is not None
        yield Client(port), url, service


def over_http(server: ServerProcess) -> list[float]:
    inputs = [
        {"name": name, "shape": [3], "datatype": datatype, "data": [one.decode() if isinstance(one, bytes) else one for one in values]}
        for name, (datatype, values) in INPUTS.items()
    ]
    body = httpx.post(f"{server.url}/v2/models/delivery/infer", json={"inputs": inputs}, trust_env=False).json()
    return next(one["data"] for one in body["outputs"] if one["name"] == "minutes")


def test_typed_contents_are_answered_like_over_http(client: Client, server: ServerProcess) -> None:
    answer, told = client.call("ModelInfer", asked(INPUTS, id="t1"), metadata=[("x-request-id", "r1")])
    assert (answer.model_name, answer.model_version, answer.id, told["x-request-id"]) == ("delivery", "model:delivery:1", "t1", "r1")
    outputs = {one.name: one for one in answer.outputs}
    assert list(outputs["minutes"].contents.fp64_contents) == over_http(server)
    assert list(outputs["answered_by"].contents.bytes_contents) == [b"model"] * 3
    low, high = (outputs[name].contents.fp64_contents for name in ("low", "high"))
    assert all(one < other for one, other in zip(low, high, strict=True))


def test_raw_contents_are_answered_raw(client: Client, server: ServerProcess) -> None:
    message = asked(INPUTS)
    for tensor in message.inputs:
        if tensor.datatype == "BYTES":
            raw = b"".join(len(one).to_bytes(4, "little") + one for one in tensor.contents.bytes_contents)
        else:
            raw = np.array(tensor.contents.fp64_contents).tobytes()
        message.raw_input_contents.append(raw)
        tensor.ClearField("contents")
    message.outputs.add(name="minutes")
    answer, _ = client.call("ModelInfer", message)
    assert [one.name for one in answer.outputs] == ["minutes"]
    assert np.frombuffer(answer.raw_output_contents[0]).tolist() == over_http(server)


def test_every_row_is_in_the_log(client: Client, space: Workspace) -> None:
    client.call("ModelInfer", asked(INPUTS, id="rpc"))
    ids = PredictionLog(space.predictions).read()[0].column("request_id").to_pylist()
    assert [one for one in ids if one.startswith("rpc")] == ["rpc:0", "rpc:1", "rpc:2"]


def test_the_server_and_the_model_describe_themselves(client: Client) -> None:
    assert client.call("ServerLive")[0].live
    assert client.call("ServerReady")[0].ready
    assert client.call("ServerMetadata")[0].name == "mainspring"
    named = messages()["ModelMetadataRequest"](name="delivery", version="model:delivery:1")
    model = client.call("ModelMetadata", named)[0]
    assert {one.name: (one.datatype, list(one.shape)) for one in model.inputs}["km"] == ("FP64", [-1])
    assert list(model.versions) == ["model:delivery:1"]
    assert client.call("ModelReady", messages()["ModelReadyRequest"](name="delivery"))[0].ready


WRONG: dict[str, tuple[Any, str, str]] = {
    "an unknown tensor": (asked(INPUTS | {"miles": ("FP64", KM)}), "INVALID_ARGUMENT", "miles: is not an input"),
    "another length": (asked(INPUTS | {"km": ("FP64", KM[:2])}), "INVALID_ARGUMENT", "km: has 2 rows, another tensor 3"),
    "another datatype": (asked(INPUTS | {"km": ("BYTES", [b"1", b"2", b"3"])}), "INVALID_ARGUMENT", "km: has the datatype BYTES"),
    "out of range": (asked(INPUTS | {"km": ("FP64", [1, 2, -3])}), "INVALID_ARGUMENT", "km[2]: "),
    "no UTF-8": (asked(INPUTS | {"drive": ("BYTES", [b"\xff"] * 3)}), "INVALID_ARGUMENT", "drive: holds bytes that are not UTF-8"),
    "too few raw tensors": (asked(INPUTS, raw_input_contents=[b""]), "INVALID_ARGUMENT", "raw_input_contents: holds 1 tensors"),
    "no rows": (asked({}), "INVALID_ARGUMENT", "inputs: must hold 1 to 10000 rows"),
    "another model": (asked(INPUTS, model="delivry"), "NOT_FOUND", "There is no model 'delivry'. Did you mean 'delivery'?"),
    "another version": (asked(INPUTS, model_version="9"), "NOT_FOUND", "model_version: '9' does not answer; live is model:delivery:1"),
}  # fmt: skip


@pytest.mark.parametrize(("message", "code", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_does_not_fit_is_refused_by_name(client: Client, message: Any, code: str, said: str) -> None:
    found, details = client.refused("ModelInfer", message)
    assert found == code, details
    assert said in details


def test_what_is_no_message_is_refused(client: Client) -> None:
    ask = client.channel.unary_unary(f"/{SERVICE}/ModelInfer", lambda one: one, lambda one: one)
    with pytest.raises(grpc.RpcError) as caught:
        ask(b"\xff\xff", timeout=10)
    assert caught.value.code().name == "INVALID_ARGUMENT"
    assert "is no ModelInferRequest" in caught.value.details()


def test_what_fails_behind_the_door_has_its_own_code(tmp_path: Any) -> None:
    with rules(tmp_path) as (client, _, service):
        assert client.refused("ModelInfer", trip(zone="down"))[0] == "UNAVAILABLE"
        code, details = client.refused("ModelInfer", trip(zone="bug"))
        assert (code, "secret" in details) == ("INTERNAL", False)
        service.problem = "No version yet."
        assert not client.call("ServerReady")[0].ready
        assert not client.call("ModelReady", messages()["ModelReadyRequest"](name="eta"))[0].ready


def test_keys_roles_and_limits_are_those_of_http(tmp_path: Any) -> None:
    full, poor = new_key("full", ["*:answer", "*:describe"]), new_key("poor", ["*:describe"])
    with rules(tmp_path, access=Access(keys=[full.key, poor.key]), limits=Limits(rate=0.001, burst=2, body=500)) as (client, url, _):

        def by(secret: str) -> dict[str, Any]:
            return {"metadata": [("authorization", f"Bearer {secret}")]}

        assert client.refused("ModelInfer", trip())[0] == "UNAUTHENTICATED"
        assert client.refused("ModelInfer", trip(), **by("ms_x_y"))[0] == "UNAUTHENTICATED"
        assert client.refused("ModelInfer", trip(), **by(poor.secret)) == (
            "PERMISSION_DENIED",
            "Client 'poor' needs the role 'eta:answer' for this.",
        )
        assert client.call("ServerLive", **by(poor.secret))[0].live
        with_reasons = trip()
        with_reasons.parameters["explain"].bool_param = True
        assert client.refused("ModelInfer", with_reasons, **by(full.secret))[0] == "PERMISSION_DENIED"
        body = {"inputs": []}
        headers = {"authorization": f"Bearer {full.secret}"}
        assert httpx.post(f"{url}/v2/models/eta/infer", json=body, headers=headers, trust_env=False).status_code == 422
        code, details = client.refused("ModelInfer", trip(), **by(full.secret))
        assert (code, details.split(".")[0]) == ("RESOURCE_EXHAUSTED", "More than 2 requests at once")


def test_a_large_message_is_refused(tmp_path: Any) -> None:
    with rules(tmp_path, limits=Limits(body=500, bodies={"/v1/eta": 1000})) as (client, _, _):
        assert client.refused("ModelInfer", trip(zone="z" * 500))[0] == "RESOURCE_EXHAUSTED"
        assert client.refused("ModelInfer", trip(zone="z" * 1000))[0] == "RESOURCE_EXHAUSTED"


def test_the_deadline_of_a_call_is_that_of_its_answer(tmp_path: Any) -> None:
    with rules(tmp_path) as (client, url, _):
        client.call("ModelInfer", trip(), timeout=None)
        slow = threading.Thread(target=lambda: client.call("ModelInfer", trip(zone="slow")))
        slow.start()
        time.sleep(0.1)
        began = time.perf_counter()
        code, _ = client.refused("ModelInfer", trip(), timeout=0.2)
        assert code in ("DEADLINE_EXCEEDED", "UNAVAILABLE")
        assert time.perf_counter() - began < 0.5
        slow.join()
        text = httpx.get(f"{url}/metrics", trust_env=False).text
        assert 'mainspring_requests_total{route="/v2/models/eta/infer",system="eta",status="200"' in text


def test_a_call_that_has_begun_is_answered_at_the_end(tmp_path: Any) -> None:
    answers: list[Any] = []
    with rules(tmp_path) as (client, _, _):
        slow = threading.Thread(target=lambda: answers.append(client.call("ModelInfer", trip(zone="slow"))[0]))
        slow.start()
        time.sleep(0.2)
    slow.join()
    assert answers[0].outputs[0].name == "minutes"
    assert client.refused("ServerLive", timeout=1)[0] in ("UNAVAILABLE", "DEADLINE_EXCEEDED")


def test_a_certificate_of_a_client_is_its_name_and_a_renewed_one_is_taken_up(tmp_path: Any) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("localhost", "server")

    def by(*name: str) -> Client:
        pair = [file.read_bytes() for file in authority.issue(name[0], name[0])] if name else [None, None]
        return Client(port, grpc.ssl_channel_credentials(authority.file.read_bytes(), pair[1], pair[0]))

    access = Access(certificates={"shop": ["eta:*"]})
    with rules(tmp_path, tls=Tls(certificate, key, authority.file), access=access) as (client, _, _):
        port = client.port
        assert by("shop").call("ModelInfer", trip())[0].model_name == "eta"
        assert by("other").refused("ModelInfer", trip())[0] == "UNAUTHENTICATED"
        assert by().refused("ModelInfer", trip())[0] == "UNAVAILABLE"
        Authority(tmp_path).issue("localhost", "server")
        assert by("shop").refused("ModelInfer", trip())[0] == "UNAVAILABLE"


def test_workers_are_replaced_at_the_cost_of_one_call_a_connection_at_most(server: ServerProcess) -> None:
    stop, failed, done = threading.Event(), list[str](), [0]

    def ask() -> None:
        own = Client(server.grpc_port)
        while not stop.is_set():
            try:
                own.call("ModelInfer", asked(INPUTS))
                done[0] += 1
            except grpc.RpcError as error:
                failed.append(error.code().name)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    server.send(signal.SIGHUP)
    time.sleep(6)
    stop.set()
    for thread in threads:
        thread.join()
    assert done[0] > 100
    assert set(failed) <= {"CANCELLED", "UNAVAILABLE"}
    assert len(failed) <= 2 * len(threads)
    assert len(Client(server.grpc_port).call("ModelInfer", asked(INPUTS))[0].outputs) == 6


def test_a_taken_port_is_named(tmp_path: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ServingError, match=f"127.0.0.1:{port}: the address cannot be bound"),
            background(RuleService(tmp_path), settings=Settings(grpc=Grpc(port))),
        ):
            pass
