"""The Open Inference Protocol, version 2, over gRPC: another face of the systems of an `App`, in its event loop and behind its door."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from mainspring.errors import MissingExtraError, RequestError, ServingError, did_you_mean
from mainspring.gateway.app import App
from mainspring.gateway.door.visit import Visit
from mainspring.gateway.front import counted
from mainspring.gateway.http import Head, Reply
from mainspring.gateway.inference import home_of, server
from mainspring.gateway.settings import Tls
from mainspring.gateway.tensors import Model, Tensor, output, packed, text_of
from mainspring.serving.pending import Pending

_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "RESOURCE_EXHAUSTED",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_LONGEST_MS = 999_999_999
_GONE = 499
_NOT_OF_GRPC = "connection"


class GrpcInference:
    """A gRPC server beside the HTTP one. A call is checked, limited, counted and logged as the HTTP request of the same meaning.

    A call's deadline is that of its answer. Its metadata are the headers; ``x-request-id`` comes back with its status. The limits
    of bodies hold for messages, those of heads for metadata.

    Raises:
        MissingExtraError: the package ``grpcio`` is not installed.
    """

    def __init__(self, app: App, host: str, port: int) -> None:
        try:
            import grpc.aio
            from google.protobuf.message import DecodeError
        except ImportError as error:
            raise MissingExtraError("Serving over gRPC", "grpcio", "grpc") from error
        from mainspring.gateway.adapters.inference_messages import messages

        self._grpc: Any = grpc
        self._broken = DecodeError
        self._messages = messages()
        self._app = app
        self._models = {front.system.name: Model(front) for front in app.fronts}
        self._address = f"{host}:{port}"
        self._server: Any = None
        self._ending: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to answer, in the event loop that runs.

        Raises:
            ServingError: the address cannot be bound.
        """
        from mainspring.gateway.adapters.inference_messages import METHODS, SERVICE

        settings = self._app.door.settings
        options = {
            "grpc.max_receive_message_length": max([settings.limits.body, *settings.limits.bodies.values()]),
            "grpc.max_metadata_size": settings.limits.head,
            "grpc.max_connection_idle_ms": int(1000 * settings.timeouts.idle),
            "grpc.so_reuseport": 1,
        }
        self._server = self._grpc.aio.server(options=list(options.items()))
        handlers = {name: self._grpc.unary_unary_rpc_method_handler(partial(self._call, name)) for name in METHODS}
        self._server.add_generic_rpc_handlers([self._grpc.method_handlers_generic_handler(SERVICE, handlers)])
        try:
            if settings.tls is None:
                self._server.add_insecure_port(self._address)
            else:
                self._server.add_secure_port(self._address, self._credentials(settings.tls))
        except RuntimeError as error:
            raise ServingError(f"Server, {self._address}: the address cannot be bound for gRPC ({error}). Choose another port.") from error
        await self._server.start()

    def drain(self, seconds: float) -> None:
        """Let in no call any more; those that have begun have so many seconds, those on their way come back CANCELLED or UNAVAILABLE."""
        self._ending = asyncio.get_running_loop().create_task(self._server.stop(seconds))

    async def ended(self) -> None:
        """Once the last call has its answer."""
        await (self._server.stop(0) if self._ending is None else self._ending)

    async def _call(self, method: str, data: bytes, context: Any) -> bytes:
        """One call from its bytes to the bytes of its answer."""
        door = self._app.door
        message, wrong = self._decoded(method, data)
        handler, verb, path = self._handler(method, message)
        head = Head(verb, path, _headers(context), certificate=_certificate(context))
        visit = door.enter(head, None if handler is None else path)
        answer = b""
        try:
            checked = door.check(visit)
            reply = await checked if isinstance(checked, Pending) else checked
            if reply is None:
                _check_whole(wrong, len(data), door.body_limit(path))
                made, reply = await self._answered(handler, message, visit)
                answer = made.SerializeToString()
        except asyncio.CancelledError:
            door.leave(visit, Reply(_GONE, b""))
            raise
        except Exception as error:
            reply = self._app.refuse(error, visit)
        await self._end(reply, visit, context)
        return answer

    async def _end(self, reply: Reply, visit: Visit, context: Any) -> None:
        """Count the call, and end it as refused if it was."""
        more = {name.decode(): text.decode() for name, text in self._app.door.leave(visit, reply)}
        told = {**(reply.headers or {}), **more}
        context.set_trailing_metadata([(name, text) for name, text in told.items() if name != _NOT_OF_GRPC])
        if reply.status != 200:
            await context.abort(getattr(self._grpc.StatusCode, _CODES.get(reply.status, "INTERNAL")), _reason(reply))

    def _decoded(self, method: str, data: bytes) -> tuple[Any, RequestError | None]:
        kind = self._messages[f"{method}Request"]
        try:
            return kind.FromString(data), None
        except self._broken as error:
            return kind(), RequestError("", f"The message is no {method}Request: {error}.", 400)

    def _handler(self, method: str, message: Any) -> tuple[Callable[..., Any] | None, str, str]:
        """What answers, with method and path of the HTTP request that means the same; nothing for a system that is not here."""
        if method.startswith("Server"):
            handlers = {"ServerLive": self._live, "ServerReady": self._ready, "ServerMetadata": self._describe}
            return handlers[method], "GET", {"ServerLive": "/v2/health/live", "ServerReady": "/v2/health/ready"}.get(method, "/v2")
        name = message.model_name if method == "ModelInfer" else message.name
        verb, end = ("POST", "/infer") if method == "ModelInfer" else ("GET", "/ready" if method == "ModelReady" else "")
        of_model = {"ModelReady": self._model_ready, "ModelMetadata": self._describe_model, "ModelInfer": self._infer}[method]
        model = self._models.get(name)
        return None if model is None else partial(of_model, model), verb, f"{home_of(name)}{end}"

    async def _answered(self, handler: Callable[..., Any] | None, message: Any, visit: Visit) -> tuple[Any, Reply]:
        if handler is None:
            name = str(getattr(message, "model_name", "") or getattr(message, "name", ""))[:64]
            raise RequestError("", f"There is no model '{name}'.{did_you_mean(name, self._models)}", 404)
        done = handler(message, visit)
        return await done if isinstance(done, Awaitable) else (done, Reply(200, b""))

    def _live(self, *_: Any) -> Any:
        return self._messages["ServerLiveResponse"](live=True)

    def _ready(self, *_: Any) -> Any:
        return self._messages["ServerReadyResponse"](ready=not self._app.unready())

    def _describe(self, *_: Any) -> Any:
        return self._messages["ServerMetadataResponse"](**server())

    def _model_ready(self, model: Model, message: Any, _: Visit) -> Any:
        _check_version(model, message.version)
        return self._messages["ModelReadyResponse"](ready=model.front.service.ready() is None)

    def _describe_model(self, model: Model, message: Any, _: Visit) -> Any:
        _check_version(model, message.version)
        made = self._messages["ModelMetadataResponse"](name=model.name, versions=model.versions, platform="mainspring")
        for tensors, known in ((made.inputs, model.inputs), (made.outputs, model.outputs)):
            for name, datatype in known.items():
                tensors.add(name=name, datatype=datatype, shape=[-1])
        return made

    async def _infer(self, model: Model, message: Any, visit: Visit) -> tuple[Any, Reply]:
        """Answers in the form that the question has: typed contents, or raw ones."""
        _check_version(model, message.model_version)
        inputs, wanted = _tensors(message), model.wanted([one.name for one in message.outputs])
        request = visit.request()
        if message.id:
            request = msgspec.structs.replace(request, id=message.id)
        answers = await model.answer(request, inputs, explain=message.parameters["explain"].bool_param)
        made = self._messages["ModelInferResponse"](model_name=model.name, model_version=answers[0].version or "", id=request.id)
        for name, datatype in wanted.items():
            tensor = made.outputs.add(name=name, datatype=datatype, shape=[len(answers)])
            values = [output(answer, name) for answer in answers]
            if message.raw_input_contents:
                made.raw_output_contents.append(packed(values, datatype))
            elif datatype == "BYTES":
                tensor.contents.bytes_contents.extend([(value or "").encode() for value in values])
            else:
                tensor.contents.fp64_contents.extend([float("nan") if value is None else value for value in values])
        return made, Reply(200, b"", **counted(answers[0]))

    def _credentials(self, tls: Tls) -> Any:
        """The certificate that is in its files, read again for every connection; one that cannot be read leaves the last."""

        def read() -> Any:
            root = None if tls.client_ca is None else tls.client_ca.read_bytes()
            pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
            return self._grpc.ssl_server_certificate_configuration([pair], root_certificates=root)

        def renewed() -> Any:
            try:
                return read()
            except OSError:
                return None

        return self._grpc.dynamic_ssl_server_credentials(read(), renewed, require_client_authentication=tls.client_ca is not None)


def _check_whole(wrong: RequestError | None, size: int, limit: int) -> None:
    if wrong is not None:
        raise wrong
    if size > limit:
        raise RequestError("", f"The message is larger than {limit} bytes. Send fewer rows.", 413)


def _check_version(model: Model, version: str) -> None:
    if version and version not in model.versions:
        live = ", ".join(model.versions) or "none"
        raise RequestError("model_version", f"'{version[:64]}' does not answer; live is {live}. Leave it out for what is live.", 404)


def _tensors(message: Any) -> list[Tensor]:
    """Every input with its values, or with its own of the raw contents."""
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise RequestError("raw_input_contents", f"holds {len(raw)} tensors, and inputs {len(message.inputs)}", 400)
    if raw:
        return [Tensor(one.name, one.datatype, one.shape, memoryview(data)) for one, data in zip(message.inputs, raw, strict=True)]
    return [Tensor(one.name, one.datatype, one.shape, _contents(one)) for one in message.inputs]


def _contents(tensor: Any) -> list[Any]:
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        raise RequestError(tensor.name, f"has the datatype {tensor.datatype[:16]}, which has no typed contents. Send raw_input_contents.")
    values = list(getattr(tensor.contents, field))
    return [text_of(tensor.name, value) for value in values] if tensor.datatype == "BYTES" else values


def _headers(context: Any) -> Mapping[bytes, bytes]:
    """A call's metadata as headers, with its deadline among them."""
    found = {name.encode(): text if isinstance(text, bytes) else text.encode("latin-1") for name, text in context.invocation_metadata()}
    remaining = context.time_remaining()
    if remaining is not None:
        found[b"x-deadline-ms"] = b"%d" % min(1000 * remaining, _LONGEST_MS)
    return found


def _certificate(context: Any) -> str:
    names = context.auth_context().get("x509_common_name", ())
    return names[0].decode() if names else ""


def _reason(reply: Reply) -> str:
    error = msgspec.json.decode(reply.body)["error"]
    return f"{error['field']}: {error['message']}" if error["field"] else str(error["message"])
