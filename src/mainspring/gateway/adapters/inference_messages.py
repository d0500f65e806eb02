"""The messages of the Open Inference Protocol over gRPC, built when they are needed: no generated file, no compiler.

Source: https://github.com/kserve/open-inference-protocol, ``grpc_predict_v2.proto``; names, numbers and types are the protocol's.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

SERVICE = "inference.GRPCInferenceService"
METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")

_TENSOR = "string name = 1; string datatype = 2; repeated int64 shape = 3"
_FILLED = f"{_TENSOR}; map InferParameter parameters = 4; InferTensorContents contents = 5"
_MODEL = "string model_name = 1; string model_version = 2; string id = 3; map InferParameter parameters = 4"
_MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live = 1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready = 1",
    "ModelReadyRequest": "string name = 1; string version = 2",
    "ModelReadyResponse": "bool ready = 1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name = 1; string version = 2; repeated string extensions = 3",
    "ModelMetadataRequest": "string name = 1; string version = 2",
    "ModelMetadataResponse": "string name = 1; repeated string versions = 2; string platform = 3; "
    "repeated ModelMetadataResponse.TensorMetadata inputs = 4; repeated ModelMetadataResponse.TensorMetadata outputs = 5",
    "ModelMetadataResponse.TensorMetadata": _TENSOR,
    "ModelInferRequest": f"{_MODEL}; repeated ModelInferRequest.InferInputTensor inputs = 5; "
    "repeated ModelInferRequest.InferRequestedOutputTensor outputs = 6; repeated bytes raw_input_contents = 7",
    "ModelInferRequest.InferInputTensor": _FILLED,
    "ModelInferRequest.InferRequestedOutputTensor": "string name = 1; map InferParameter parameters = 2",
    "ModelInferResponse": f"{_MODEL}; repeated ModelInferResponse.InferOutputTensor outputs = 5; repeated bytes raw_output_contents = 6",
    "ModelInferResponse.InferOutputTensor": _FILLED,
    "InferParameter": "choice bool bool_param = 1; choice int64 int64_param = 2; choice string string_param = 3; "
    "choice double double_param = 4; choice uint64 uint64_param = 5",
    "InferTensorContents": "repeated bool bool_contents = 1; repeated int32 int_contents = 2; repeated int64 int64_contents = 3; "
    "repeated uint32 uint_contents = 4; repeated uint64 uint64_contents = 5; repeated float fp32_contents = 6; "
    "repeated double fp64_contents = 7; repeated bytes bytes_contents = 8",
}
_FIELD = re.compile(r"(?:(repeated|map|choice) )?([\w.]+) (\w+) = (\d+)")


@cache
def messages() -> dict[str, Any]:
    """Every message's class by its name, in a pool of their own: another library in the process may know them too."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="mainspring/inference.proto", package="inference", syntax="proto3")
    made: dict[str, Any] = {}
    for name in sorted(_MESSAGES):
        outer, _, inner = name.rpartition(".")
        made[name] = made[outer].nested_type.add(name=inner) if outer else file.message_type.add(name=inner)
        for found in _FIELD.finditer(_MESSAGES[name]):
            _add(made[name], f".inference.{name}", *found.groups())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}")) for name in _MESSAGES}


def _add(message: Any, path: str, kind: str | None, type_: str, name: str, number: str) -> None:
    """A field of ``type_``, a scalar or another message; a map goes from texts, and is a message of its own."""
    field = message.field.add(name=name, number=int(number), label=3 if kind in ("repeated", "map") else 1)
    if kind == "map":
        entry = message.nested_type.add(name=f"{name.capitalize()}Entry")
        entry.options.map_entry = True
        _add(entry, "", None, "string", "key", "1")
        _add(entry, "", None, type_, "value", "2")
        type_ = f"{path}.{entry.name}".removeprefix(".inference.")
    if kind == "choice":
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    number_of_type = getattr(type(field), f"TYPE_{type_.upper()}", None)
    field.type = type(field).TYPE_MESSAGE if number_of_type is None else number_of_type
    if number_of_type is None:
        field.type_name = f".inference.{type_}"
