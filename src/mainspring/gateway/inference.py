"""The Open Inference Protocol, version 2, over HTTP: rows as tensors, in JSON or in the binary extension.

Source: https://github.com/kserve/open-inference-protocol, with the binary tensor data extension and the model repository extension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mainspring.errors import MainspringError, RequestError
from mainspring.gateway.front import Front, Handler, Request, counted
from mainspring.gateway.http import Reply, json_reply
from mainspring.gateway.tensors import Model, Tensor, output, packed
from mainspring.serving.batching import Batcher

BINARY = "application/octet-stream"
LENGTH = "inference-header-content-length"

OPEN = "{version}"
"""The part of a route that is open."""


class JsonTensor(msgspec.Struct, omit_defaults=True):
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

    inputs: list[JsonTensor]
    id: str | None = None
    outputs: list[Output] | None = None
    parameters: dict[str, Any] | None = None


class Named(msgspec.Struct):
    """A request to load or unload: ``parameters.version`` is the number of a version."""

    parameters: dict[str, Any] = {}


def routes(fronts: Sequence[Front]) -> dict[str, dict[str, Handler]]:
    """The protocol's endpoints for some systems."""
    paths: dict[str, dict[str, Handler]] = {
        "/v2": {"GET": lambda _: json_reply(server())},
        "/v2/health/live": {"GET": lambda _: json_reply({"live": True})},
        "/v2/health/ready": {"GET": lambda _: _readiness(fronts)},
        "/v2/repository/index": {"POST": lambda _: json_reply([state for front in fronts for state in _states(front)])},
    }
    for front in fronts:
        endpoint, home = Endpoint(Model(front)), home_of(front.system.name)
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


def home_of(system: str) -> str:
    """The path under which a system's endpoints are."""
    return f"/v2/models/{system}"


def server() -> dict[str, Any]:
    """Name, version and extensions of the server."""
    from mainspring import __version__

    return {"name": "mainspring", "version": __version__, "extensions": ["binary_tensor_data", "model_repository"]}


class Endpoint:
    """One system behind the protocol."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._decoder = msgspec.json.Decoder(Inference)

    def metadata(self, _: Request) -> Reply:
        """The tensors in and out, and the version that is live."""
        return json_reply(self.described(self._model.versions))

    def described(self, versions: Sequence[str]) -> dict[str, Any]:
        """The model as the protocol describes one."""
        model = self._model
        inputs, outputs = (
            [{"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in tensors.items()]
            for tensors in (model.inputs, model.outputs)
        )
        return {"name": model.name, "versions": versions, "platform": "mainspring", "inputs": inputs, "outputs": outputs}

    def ready(self, _: Request) -> Reply:
        """Whether the system can answer."""
        reason = self._model.front.service.ready()
        return json_reply({"name": self._model.name, "ready": reason is None}, 200 if reason is None else 503)

    async def infer(self, request: Request, version: Batcher | None = None) -> Reply:
        """Answers to the rows of the input tensors, by what is live or a ``version`` of the shelf; raises as `Model.answer`."""
        asked, binary = self._read(request)
        parameters = asked.parameters or {}
        inputs, known = _tensors(asked.inputs, binary), self._model.wanted([one.name for one in asked.outputs or ()])
        if asked.id:
            request = msgspec.structs.replace(request, id=asked.id)
        answers = await self._model.answer(request, inputs, explain=bool(parameters.get("explain", False)), version=version)
        return self._reply(request, asked, known, answers)

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

    def _reply(self, request: Request, asked: Inference, known: Mapping[str, str], answers: Sequence[Any]) -> Reply:
        wanted = asked.outputs or [Output(name) for name in known]
        all_binary = (asked.parameters or {}).get("binary_data_output", False)
        outputs, parts = [], []
        for one in wanted:
            values, datatype = [output(answer, one.name) for answer in answers], known[one.name]
            tensor = JsonTensor(one.name, [len(values)], datatype)
            if (one.parameters or {}).get("binary_data", all_binary):
                data = packed(values, datatype)
                tensor.parameters = {"binary_data_size": len(data)}
                parts.append(data)
            else:
                tensor.data = values
            outputs.append(tensor)
        body = {"model_name": self._model.name, "model_version": answers[0].version, "id": request.id, "outputs": outputs}
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


def _tensors(inputs: Sequence[JsonTensor], binary: memoryview) -> list[Tensor]:
    """Every tensor with its values, or with its own of the bytes that follow the JSON."""
    tensors = []
    for one in inputs:
        size = (one.parameters or {}).get("binary_data_size")
        values: Sequence[Any] | memoryview
        if size is not None:
            if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(binary):
                raise RequestError(one.name, f"has the binary_data_size {size!r:.20}; {len(binary)} bytes are left in the body", 400)
            values, binary = binary[:size], binary[size:]
        elif one.data is None:
            raise RequestError(one.name, "has neither data nor parameters.binary_data_size")
        else:
            values = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in one.data]
        tensors.append(Tensor(one.name, one.datatype, one.shape, values))
    if len(binary):
        raise RequestError("", f"{len(binary)} bytes are left after the last tensor. Give binary_data_size for each.", 400)
    return tensors


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
