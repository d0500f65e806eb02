"""A client that this project did not write, `tritonclient`: asks a server over HTTP (JSON, binary) and gRPC, and prints what it heard.

Run by an interpreter that has it: ``python foreign_client.py HTTP_PORT GRPC_PORT``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.grpc import service_pb2

COLUMNS = {
    "drive": ("BYTES", np.array([b"a", b"b", b"c"], dtype=object)),
    "sent_at": ("INT64", np.full(3, 1739188800000000, dtype=np.int64)),
    "depot": ("BYTES", np.array([b"north", b"south", b"west"], dtype=object)),
    "km": ("FP64", np.array([12.5, 3.0, 30.25])),
}


def ask(module: Any, client: Any, **options: Any) -> dict[str, Any]:
    inputs = []
    for name, (datatype, values) in COLUMNS.items():
        tensor = module.InferInput(name, [len(values)], datatype)
        tensor.set_data_from_numpy(values, **options)
        inputs.append(tensor)
    outputs = [module.InferRequestedOutput(name, **options) for name in ("minutes", "answered_by")]
    answer = client.infer("delivery", inputs, outputs=outputs, request_id="foreign")
    return {name: answer.as_numpy(name).tolist() for name in ("minutes", "answered_by")}


def shapes() -> dict[str, list[list[Any]]]:
    """Every field of every message of the protocol as the client has it: name, number, type, whether repeated."""
    found: dict[str, list[list[Any]]] = {}

    def walk(message: Any) -> None:
        found[message.full_name] = [[one.name, one.number, one.type] for one in message.fields]
        for inner in message.nested_types:
            walk(inner)

    for message in service_pb2.DESCRIPTOR.message_types_by_name.values():
        walk(message)
    return found


def main(http_port: str, grpc_port: str) -> None:
    http = tritonclient.http.InferenceServerClient(f"127.0.0.1:{http_port}")
    rpc = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{grpc_port}", channel_args=[("grpc.enable_http_proxy", 0)])
    heard: dict[str, Any] = {
        "json": ask(tritonclient.http, http, binary_data=False),
        "binary": ask(tritonclient.http, http, binary_data=True),
        "grpc": ask(tritonclient.grpc, rpc),
        "live": [one.is_server_live() and one.is_server_ready() and one.is_model_ready("delivery") for one in (http, rpc)],
        "metadata": [http.get_model_metadata("delivery"), rpc.get_model_metadata("delivery", as_json=True)],
        "server": [http.get_server_metadata()["name"], rpc.get_server_metadata().name],
        "shapes": shapes(),
    }
    try:
        rpc.get_model_metadata("nothing")
    except tritonclient.grpc.InferenceServerException as error:
        heard["refused"] = error.status()
    print(json.dumps(heard, default=lambda one: one.decode()))


if __name__ == "__main__":
    main(*sys.argv[1:])
