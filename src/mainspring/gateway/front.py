"""The face of one system: what its endpoints do with a request that came whole."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from itertools import chain, repeat
from typing import Any

import msgspec

from mainspring.errors import MainspringError, RequestError
from mainspring.gateway import describe
from mainspring.gateway.http import Reply, check_json_type, decode_json, flag, json_reply
from mainspring.gateway.service import Service
from mainspring.gateway.shelf import Shelf
from mainspring.ingestion import Contract
from mainspring.serving.answer import Ask, Mark
from mainspring.serving.batching import Batcher, Held
from mainspring.serving.pending import Pending
from mainspring.spec.aggregate import Value

MOST_ROWS = 10_000
_log = logging.getLogger(__name__)


class Request(msgspec.Struct, frozen=True):
    """One request: its id, headers with lower-case names, query and body.

    ``arrived_ns`` is what ``time.perf_counter_ns`` said when its head was there, ``deadline_ns`` when its client stops waiting, infinite
    where it does not say; ``may_explain`` whether its client may be given reasons; ``marks`` are for a trace, None where there is none;
    ``open_part`` is what stands in the part of the path that its route leaves open.
    """

    id: str
    headers: Mapping[bytes, bytes]
    query: bytes
    body: bytes
    arrived_ns: int
    deadline_ns: float
    may_explain: bool
    marks: list[Mark] | None = None
    open_part: str = ""


Handler = Callable[[Request], Reply | Pending[Reply] | Coroutine[Any, Any, Reply]]


class Front:
    """Checks requests against the contract of ``system.request``, gathers them, and says what was answered."""

    def __init__(self, service: Service, held: Held, shelf: Shelf) -> None:
        """``held`` is told from when to when a batch had the event loop to itself; ``shelf`` has the versions that are not live."""
        self.service = service
        self.shelf = shelf
        self.system = service.system
        self.home = f"/v1/{self.system.name}"
        self.contract = Contract(self.system.request)
        self._decoder = msgspec.json.Decoder()
        self._encode = msgspec.json.Encoder().encode
        self._batcher = Batcher(self._answered, service.answer_late, held)
        self._deadline_ns = self.system.policy.deadline_us * 1_000

    def routes(self) -> dict[str, dict[str, Handler]]:
        """Handlers by path and method."""
        paths: dict[str, dict[str, Handler]] = {
            self.home: {"GET": self._metadata, "POST": self._answer},
            f"{self.home}/rows": {"POST": self._rows},
            f"{self.home}/predictions": {"POST": self._take},
        }
        for source in {source.name: source for source in (self.system.request, *self.system.sources)}:
            paths[f"{self.home}/events/{source}"] = {"POST": self._events(source)}
        return paths

    def counts(self) -> dict[str, float]:
        """What its service has counted, and what its versions on the shelf take."""
        return {**self.service.counts(), "asked_versions_bytes": self.shelf.size(self.system.name)}

    def ask(
        self, request: Request, rows: Sequence[Mapping[str, Value]], *, explain: bool, version: Batcher | None = None
    ) -> Pending[list[msgspec.Struct | Exception]]:
        """Answers to valid rows, or the errors that stand in their places; a row of several has the request's id and its number.

        What is live answers, or a ``version`` of the shelf.

        Raises:
            RequestError: the client may not be given reasons.
        """
        if explain and not request.may_explain:
            raise RequestError("explain", "needs the role explain. Ask with explain=false, or for another key.", 403)
        deadline_ns = int(min(request.deadline_ns, request.arrived_ns + self._deadline_ns))
        ids = [request.id] if len(rows) == 1 else [f"{request.id}:{number}" for number in range(len(rows))]
        marks = chain([request.marks], repeat(None))
        asks = [Ask(id_, row, explain, request.arrived_ns, deadline_ns, own) for id_, row, own in zip(ids, rows, marks, strict=False)]
        return (version or self._batcher).submit(asks)

    def _answered(self, asks: Sequence[Ask]) -> Sequence[msgspec.Struct | Exception]:
        """Shadow scores are the first that a server that is behind does without."""
        return self.service.answer_many(asks, shadow=not self._batcher.behind)

    def _answer(self, request: Request) -> Pending[Reply]:
        check_json_type(request.headers)
        explain = flag(request.query, "explain", request.may_explain)
        row = self.contract.decode(request.body)
        if row is None:
            body = decode_json(request.body, self._decoder)
            if not isinstance(body, dict):
                raise RequestError("", "The body must be one JSON object with the request's columns.", 400)
            row = self.contract.check(body)
        return self.ask(request, [row], explain=explain).then(self._replied)

    def _replied(self, answers: Sequence[Any]) -> Reply:
        (answer,) = answers
        if isinstance(answer, Exception):
            raise answer
        return Reply(200, self._encode(answer), **counted(answer))

    async def _rows(self, request: Request) -> Reply:
        """Answers to many rows, each an answer or an error of its own; what all rows share is given once."""
        check_json_type(request.headers)
        explain = flag(request.query, "explain", False)
        checked: Sequence[Mapping[str, Value] | Exception] | None = self.contract.decode_rows(request.body)
        if checked is None or len(checked) > MOST_ROWS:
            checked = self._checked(decode_json(request.body, self._decoder))
        valid = [row for row in checked if not isinstance(row, Exception)]
        answers = iter(await self.ask(request, valid, explain=explain) if valid else [])
        done = [one if isinstance(one, Exception) else next(answers) for one in checked]
        first = next((one for one in done if not isinstance(one, Exception)), None)
        told = [_told(one) if isinstance(one, Exception) else one for one in done]
        return Reply(200, self._encode({"request_id": request.id, "answers": told}), **counted(first))

    def _checked(self, body: Any) -> list[Mapping[str, Value] | Exception]:
        """The rows of a body, or what is wrong with each."""
        rows, given = _parts(body)
        try:
            shared = self.contract.check_shared(given)
        except RequestError as error:
            raise RequestError(f"shared.{error.field}", error.reason, error.status) from error
        return [self._checked_row(row, shared) for row in rows]

    def _checked_row(self, row: Mapping[str, Any], shared: Mapping[str, Value]) -> Mapping[str, Value] | Exception:
        try:
            return self.contract.check(row, shared)
        except RequestError as error:
            return error

    def _events(self, source: str) -> Handler:
        def handle(request: Request) -> Reply:
            check_json_type(request.headers)
            body = decode_json(request.body, self._decoder)
            rows = body if isinstance(body, list) else [body]
            for number, row in enumerate(rows):
                if not isinstance(row, dict):
                    where = f"[{number}]" if isinstance(body, list) else ""
                    raise RequestError(where, "The body must be a JSON object or an array of objects.", 400)
            return json_reply(self.service.ingest(source, rows))

        return handle

    def _take(self, request: Request) -> Reply:
        check_json_type(request.headers)
        body = decode_json(request.body, self._decoder)
        if not isinstance(body, list):
            raise RequestError("", "The body must be an array of answers.", 400)
        return json_reply(self.service.take(body))

    def _metadata(self, _: Request) -> Reply:
        return json_reply({**describe.metadata(self.system), **self.service.metadata()})


def counted(answer: Any) -> dict[str, Any]:
    """What the metrics are told of an answer."""
    return {name: getattr(answer, name, None) or "" for name in ("answered_by", "version", "variant")}


def _parts(body: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of ``{"shared": {...}, "rows": [{...}, ...]}``, and what they share."""
    if not isinstance(body, dict) or not body.keys() <= {"shared", "rows"} or not isinstance(body.get("rows"), list):
        raise RequestError(
            "rows", 'The body must be {"rows": [{...}, ...], "shared": {...}}, with the columns that all rows share once.', 400
        )
    rows, shared = body["rows"], body.get("shared", {})
    if not isinstance(shared, dict):
        raise RequestError("shared", "must be an object of columns", 400)
    if not 1 <= len(rows) <= MOST_ROWS:
        raise RequestError("rows", f"must be 1 to {MOST_ROWS} rows; these are {len(rows)}", 422)
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise RequestError(f"rows[{number}]", "must be an object of columns", 400)
    return rows, shared


def _told(error: Exception) -> dict[str, Any]:
    """An error in the place of an answer."""
    if isinstance(error, RequestError):
        return {"error": {"field": error.field or None, "message": error.reason}}
    if isinstance(error, MainspringError):
        return {"error": {"field": None, "message": str(error)}}
    _log.error("A row of a request failed", exc_info=error)
    return {"error": {"field": None, "message": "The row failed for a reason of ours."}}
