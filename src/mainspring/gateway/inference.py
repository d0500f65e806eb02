"""The Open Inference Protocol, version 2: rows as tensors, in JSON or in the binary extension; a model is a system, a column a tensor.

Source: https://github.com/kserve/open-inference-protocol, with the binary tensor data extension and the model repository extension.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from mainspring.clock import format_instant
from mainspring.errors import MainspringError, RequestError, did_you_mean
from mainspring.gateway.describe import TENSORS
from mainspring.gateway.front import MOST_ROWS, Front, Handler, Request, counted
from mainspring.gateway.http import Reply, json_reply
from mainspring.schema import Type
from mainspring.serving.batching import Batcher

BINARY = "application/octet-stream"
LENGTH = "inference-header-content-length"

OPEN = "{version}"
"""The part of a route that is open."""
_NUMPY = {
    "BOOL": np.dtype(np.bool_),
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
_FITTING = {
    Type.BOOL: {"BOOL"},
    Type.STR: {"BYTES"},
    Type.INSTANT: {"BYTES", "INT64"},
    Type.INT: {name for name in _NUMPY if "INT" in name},
    Type.FLOAT: {name for name in _NUMPY if name != "BOOL"},
}
_STRING = struct.Struct("<I")


class Tensor(msgspec.Struct, omit_defaults=True):
    """A tensor of a request or a response; its values are ``data``, or ``parameters.binary_data_size`` bytes after the JSON."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class Output(msgspec.Struct):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] | None = None


class Inference(msgspec.Struct):
    """A request. ``parameters.explain`` asks for reasons, ``parameters.binary_data_output`` for binary outputs."""

    inputs: list[Tensor]
    id: str | None = None
    outputs: list[Output] | None = None
    parameters: dict[str, Any] | None = None


class Named(msgspec.Struct):
    """A request to load or unload: ``parameters.version`` is the number of a version."""

    parameters: dict[str, Any] = {}


def routes(fronts: Sequence[Front]) -> dict[str, dict[str, Handler]]:
    """The protocol's endpoints for some systems."""
    from mainspring import __version__

    server = {"name": "mainspring", "version": __version__, "extensions": ["binary_tensor_data", "model_repository"]}
    paths: dict[str, dict[str, Handler]] = {
        "/v2": {"GET": lambda _: json_reply(server)},
        "/v2/health/live": {"GET": lambda _: json_reply({"live": True})},
        "/v2/health/ready": {"GET": lambda _: _readiness(fronts)},
        "/v2/repository/index": {"POST": lambda _: json_reply([state for front in fronts for state in _states(front)])},
    }
    for front in fronts:
        endpoint, home = Endpoint(front), f"/v2/models/{front.system.name}"
        paths[home] = {"GET": endpoint.metadata}
        paths[f"{home}/ready"] = {"GET": endpoint.ready}
        paths[f"{home}/infer"] = {"POST": endpoint.infer}
        versions = VersionEndpoint(front, endpoint)
        paths[f"{home}/versions/{OPEN}"] = {"GET": versions.metadata}
        paths[f"{home}/versions/{OPEN}/ready"] = {"GET": versions.ready}
        paths[f"{home}/versions/{OPEN}/infer"] = {"POST": versions.infer}
        for verb, handler in (("load", versions.load), ("unload", versions.unload)):
            paths[f"/v2/repository/models/{front.system.name}/{verb}"] = {"POST": handler}
    return paths


class Endpoint:
    """One system behind the protocol."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._decoder = msgspec.json.Decoder(Inference)
        self._columns = {field.name: field for field in front.system.request.schema.fields}
        self._label = front.system.label.column

    def metadata(self, _: Request) -> Reply:
        """The tensors in and out, and the version that is live."""
        champion = self._front.service.metadata().get("champion")
        return json_reply(self.described([str(champion)] if champion else []))

    def described(self, versions: Sequence[str]) -> dict[str, Any]:
        """The model as the protocol describes one."""
        inputs = [{"name": name, "datatype": TENSORS[field.type], "shape": [-1]} for name, field in self._columns.items()]
        outputs = [{"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in self._outputs().items()]
        return {"name": self._front.system.name, "versions": versions, "platform": "mainspring", "inputs": inputs, "outputs": outputs}

    def ready(self, _: Request) -> Reply:
        """Whether the system can answer."""
        reason = self._front.service.ready()
        return json_reply({"name": self._front.system.name, "ready": reason is None}, 200 if reason is None else 503)

    async def infer(self, request: Request, version: Batcher | None = None) -> Reply:
        """Answers to the rows of the input tensors, by what is live or a ``version`` of the shelf.

        Raises:
            RequestError: a tensor or a value in it does not fit; the field is ``column`` or ``column[row]``.
        """
        asked, binary = self._read(request)
        parameters = asked.parameters or {}
        rows = [self._checked(number, row) for number, row in enumerate(self._rows(asked.inputs, binary))]
        if asked.id:
            request = replace(request, id=asked.id)
        answers = await self._front.ask(request, rows, explain=bool(parameters.get("explain", False)), version=version)
        for number, answer in enumerate(answers):
            if isinstance(answer, RequestError) and len(rows) > 1:
                raise RequestError(f"{answer.field}[{number}]", answer.reason, answer.status)
            if isinstance(answer, Exception):
                raise answer
        return self._reply(request, asked, answers)

    def _read(self, request: Request) -> tuple[Inference, memoryview]:
        given = request.headers.get(LENGTH.encode())
        length = len(request.body) if given is None else int(given) if given.isdigit() else -1
        if not 0 <= length <= len(request.body):
            raise RequestError(LENGTH, f"must be the length of the JSON, at most that of the body, which is {len(request.body)}", 400)
        body = memoryview(request.body)
        try:
            return self._decoder.decode(body[:length]), body[length:]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RequestError("", f"The body is no inference request of the Open Inference Protocol: {error}.", 400) from error

    def _rows(self, inputs: Sequence[Tensor], binary: memoryview) -> list[dict[str, Any]]:
        columns: dict[str, list[Any]] = {}
        for tensor in inputs:
            if tensor.name not in self._columns:
                raise RequestError(tensor.name[:64], f"is not an input.{did_you_mean(tensor.name[:64], self._columns)}")
            if tensor.name in columns:
                raise RequestError(tensor.name, "is given twice")
            columns[tensor.name], binary = self._values(tensor, binary)
        if len(binary):
            raise RequestError("", f"{len(binary)} bytes are left after the last tensor. Give binary_data_size for each.", 400)
        lengths = {name: len(values) for name, values in columns.items()}
        n = max(lengths.values(), default=0)
        for name, length in lengths.items():
            if length != n:
                raise RequestError(name, f"has {length} rows, another tensor {n}")
        if not 1 <= n <= MOST_ROWS:
            raise RequestError("inputs", f"must hold 1 to {MOST_ROWS} rows; these are {n}")
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def _values(self, tensor: Tensor, binary: memoryview) -> tuple[list[Any], memoryview]:
        name, type_ = tensor.name, self._columns[tensor.name].type
        if tensor.datatype not in _FITTING[type_]:
            wanted = ", ".join(sorted(_FITTING[type_]))
            raise RequestError(name, f"has the datatype {tensor.datatype[:16]}, and must have one of {wanted}")
        if not (len(tensor.shape) == 1 or (len(tensor.shape) == 2 and tensor.shape[1] == 1)) or min(tensor.shape) < 0:
            raise RequestError(name, f"has the shape {tensor.shape[:4]}, and must have [rows] or [rows, 1]")
        size = (tensor.parameters or {}).get("binary_data_size")
        if size is not None:
            values, binary = _unpacked(tensor, size, binary)
        elif tensor.data is None:
            raise RequestError(name, "has neither data nor parameters.binary_data_size")
        else:
            values = [one[0] if isinstance(one, list) and len(one) == 1 else one for one in tensor.data]
        if len(values) != tensor.shape[0]:
            raise RequestError(name, f"has {len(values)} values, and the shape {tensor.shape}")
        return _as_json(name, values, type_, tensor.datatype), binary

    def _checked(self, number: int, row: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            return self._front.contract.check(row)
        except RequestError as error:
            raise RequestError(f"{error.field}[{number}]", error.reason, error.status) from error

    def _outputs(self) -> dict[str, str]:
        interval = {} if self._front.system.model.interval is None else {"low": "FP64", "high": "FP64"}
        return {self._label: "FP64", **interval, "answered_by": "BYTES", "version": "BYTES", "variant": "BYTES"}

    def _reply(self, request: Request, asked: Inference, answers: Sequence[Any]) -> Reply:
        known = self._outputs()
        wanted = asked.outputs or [Output(name) for name in known]
        all_binary = (asked.parameters or {}).get("binary_data_output", False)
        outputs, parts = [], []
        for output in wanted:
            if output.name not in known:
                raise RequestError("outputs", f"'{output.name[:64]}' is not an output.{did_you_mean(output.name[:64], known)}")
            values, datatype = [_output(answer, output.name) for answer in answers], known[output.name]
            tensor = Tensor(output.name, [len(values)], datatype)
            if (output.parameters or {}).get("binary_data", all_binary):
                packed = _packed(values, datatype)
                tensor.parameters = {"binary_data_size": len(packed)}
                parts.append(packed)
            else:
                tensor.data = values
            outputs.append(tensor)
        body = {"model_name": self._front.system.name, "model_version": answers[0].version, "id": request.id, "outputs": outputs}
        head = msgspec.json.encode(body)
        told = counted(answers[0])
        if not parts:
            return Reply(200, head, **told)
        return Reply(200, b"".join([head, *parts]), BINARY, {LENGTH: str(len(head))}, **told)


class VersionEndpoint:
    """The versions of one system by their numbers: live or not, loaded when first asked for, in the process that is asked."""

    def __init__(self, front: Front, endpoint: Endpoint) -> None:
        self._front, self._endpoint = front, endpoint
        self._decoder = msgspec.json.Decoder(Named)

    def metadata(self, request: Request) -> Reply:
        """The tensors in and out."""
        return json_reply(self._endpoint.described([str(_number(request.open_part))]))

    def ready(self, request: Request) -> Reply:
        """Whether the version is loaded, so that it answers at once."""
        number = _number(request.open_part)
        loaded = number in self._front.shelf.numbers(self._front.system.name)
        return json_reply({"name": self._front.system.name, "version": str(number), "ready": loaded}, 200 if loaded else 503)

    async def infer(self, request: Request) -> Reply:
        """Answers of the version; errors as in `Endpoint.infer` and `Shelf.get`."""
        return await self._endpoint.infer(request, await self._front.shelf.get(self._front.service, _number(request.open_part)))

    async def load(self, request: Request) -> Reply:
        """Load the version that ``parameters.version`` names; errors as in `Shelf.get`."""
        number = self._named(request)
        if number is None:
            raise RequestError("parameters.version", "is missing. What is live is loaded by itself.")
        await self._front.shelf.get(self._front.service, number)
        return json_reply({})

    def unload(self, request: Request) -> Reply:
        """Let go of the version that ``parameters.version`` names, or of all; what is live stays."""
        self._front.shelf.drop(self._front.system.name, self._named(request))
        return json_reply({})

    def _named(self, request: Request) -> int | None:
        try:
            parameters = self._decoder.decode(request.body or b"{}").parameters
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RequestError("", f"The body is no request of the model repository extension: {error}.", 400) from error
        return None if "version" not in parameters else _number(str(parameters["version"]))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise RequestError("version", f"{text[:32]!r} is no number of a version.", 404)
    return int(text)


def _output(answer: Any, name: str) -> Any:
    if name in ("low", "high"):
        return None if answer.interval is None else getattr(answer.interval, name)
    return getattr(answer, name, None) if name in ("answered_by", "version", "variant") else answer.prediction


def _unpacked(tensor: Tensor, size: Any, binary: memoryview) -> tuple[list[Any], memoryview]:
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(binary):
        raise RequestError(tensor.name, f"has the binary_data_size {size!r:.20}; {len(binary)} bytes are left in the body", 400)
    own, rest = binary[:size], binary[size:]
    if tensor.datatype == "BYTES":
        return _strings(tensor.name, own), rest
    dtype = _NUMPY[tensor.datatype]
    if size % dtype.itemsize:
        raise RequestError(tensor.name, f"has {size} bytes, which are no whole number of {tensor.datatype}", 400)
    return np.frombuffer(own, dtype).tolist(), rest


def _strings(name: str, data: memoryview) -> list[str]:
    texts, place = [], 0
    while place < len(data):
        end = place + _STRING.size
        end += _STRING.unpack_from(data, place)[0] if end <= len(data) else 1
        if end > len(data):
            raise RequestError(name, "ends in the middle of a string. Each is its length in 4 bytes, little-endian, and its bytes.", 400)
        try:
            texts.append(str(data[place + _STRING.size : end], "utf-8"))
        except UnicodeDecodeError as error:
            raise RequestError(name, "holds bytes that are not UTF-8") from error
        place = end
    return texts


def _as_json(name: str, values: list[Any], type_: Type, datatype: str) -> list[Any]:
    """Values as the contract's checks take them; NaN, which JSON cannot say, is null."""
    if type_ == Type.FLOAT:
        return [None if isinstance(value, float) and value != value else value for value in values]
    if type_ != Type.INSTANT or datatype == "BYTES":
        return values
    try:
        return [format_instant(value) if isinstance(value, int) and not isinstance(value, bool) else value for value in values]
    except OverflowError as error:
        raise RequestError(name, "holds microseconds beyond the year 9999") from error


def _packed(values: Sequence[Any], datatype: str) -> bytes:
    if datatype == "BYTES":
        encoded = ["" if value is None else str(value) for value in values]
        return b"".join([_STRING.pack(len(text)) + text for text in (one.encode() for one in encoded)])
    return np.array([np.nan if value is None else value for value in values], dtype=_NUMPY[datatype]).tobytes()


def _readiness(fronts: Sequence[Front]) -> Reply:
    ready = all(front.service.ready() is None for front in fronts)
    return json_reply({"ready": ready}, 200 if ready else 503)


def _states(front: Front) -> list[dict[str, Any]]:
    """A system, and after it those of its versions that were asked for and are loaded."""
    name = front.system.name
    asked = [{"name": name, "version": str(one), "state": "READY", "reason": "asked for"} for one in front.shelf.numbers(name)]
    return [_state(front), *asked]


def _state(front: Front) -> dict[str, Any]:
    try:
        reason = front.service.ready() or ""
    except MainspringError as error:
        reason = str(error)
    return {"name": front.system.name, "state": "UNAVAILABLE" if reason else "READY", "reason": reason}
