"""Answers on a device: by the embedded model where it is confident, else by the server in time, else by the embedded model after all."""

from __future__ import annotations

import http.client
import json
import random
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from mainspring.breaker import Breaker
from mainspring.clock import Clock, SystemClock, parse_duration
from mainspring.edge.answer_log import AnswerLog
from mainspring.edge.loading import loaded
from mainspring.edge.release import fetch, kept
from mainspring.errors import DeclarationError, RegistryError, RequestError, ServingError
from mainspring.model_registry.signatures import Verify

_ROWS = 200
_SYNC_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Outside:
    """Confident where the answer is below ``low`` or above ``high``: a probability outside of the band where people disagree."""

    low: float
    high: float

    def __call__(self, score: float, interval: Mapping[str, Any] | None) -> bool:  # noqa: ARG002
        """Whether it is."""
        return not self.low <= score <= self.high


@dataclass(frozen=True, slots=True)
class Narrower:
    """Confident where the interval is at most ``width`` wide, in the label's unit; never where there is none."""

    width: float

    def __call__(self, score: float, interval: Mapping[str, Any] | None) -> bool:  # noqa: ARG002
        """Whether it is."""
        return interval is not None and interval["high"] - interval["low"] <= self.width


@dataclass(frozen=True, slots=True)
class EdgeAnswer:
    """An ``answer`` as the service gives it, who gave it, and ``because``: why the device did although it was not confident."""

    request_id: str
    answered_by: Literal["edge", "server"]
    answer: Mapping[str, Any]
    because: str | None = None


@dataclass(frozen=True, slots=True)
class Synced:
    """What the server said of answers sent to it: newly ``taken``, ``known`` from before, and ``rejected`` with their reasons."""

    taken: int
    known: int
    rejected: tuple[Mapping[str, str], ...]


class EdgeClient:
    """One system on a device, from a file of ``mainspring export --target python`` and the ``url`` of a server.

    Every answer that the device gives is in ``log`` before it is returned; `sync` brings them to the server. A server that fails is left
    alone for a while, twice as long each time (see `Breaker`), so that a dead one costs nothing. Not for several threads at once.

    Raises:
        ExportError: the file is none of `mainspring export`.
        DeclarationError: the url or the deadline is none.
        StorageError: the log cannot be opened.
    """

    def __init__(
        self,
        model_file: Path | str,
        url: str,
        *,
        confident: Outside | Narrower,
        log: Path | str,
        deadline: str = "80ms",
        clock: Clock | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._file = Path(model_file)
        self._module: Any = loaded(self._file)
        self._before: Any = None
        self._url = urlsplit(url)
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            raise DeclarationError(f"EdgeClient: {url!r} is no address of a server. Write for example 'http://localhost:8000'.")
        self._confident, self._deadline = confident, parse_duration(deadline) / 1e6
        self._clock, self._monotonic = clock or SystemClock(), monotonic
        self._breaker = Breaker(monotonic, rng or random.Random())
        self._log = AnswerLog(Path(log))
        self._system, self._label = self._module.MODEL.document["system"], self._module.MODEL.document["label"]

    def answer(self, request: Mapping[str, Any], given: Mapping[str, Any] | None = None, *, request_id: str | None = None) -> EdgeAnswer:
        """Answer a request as the service takes it; ``given`` are values of features that the device has.

        Raises:
            RequestError: the request does not hold to the contract; the field is named.
            StorageError: the answer cannot be logged.
        """
        begin, id = self._monotonic(), request_id or secrets.token_hex(16)
        local, values = self._answered(request, given)
        because = None
        if not self._confident(local[self._label], local.get("interval")):
            try:
                return EdgeAnswer(id, "server", self._ask(request, id))
            except ServingError as error:
                because = f"the device is not confident, and {error}"
        self._log.append(self._record(id, request, given or {}, local, values, self._monotonic() - begin))
        return EdgeAnswer(id, "edge", local, because)

    def sync(self) -> Synced:
        """Send the answers in the log to the server, in order; each counts there once by its id, however often it is sent.

        Raises:
            ServingError: the server cannot be reached or does not take them; what it took is remembered, the rest waits.
        """
        taken, known = 0, 0
        rejected: list[Mapping[str, str]] = []
        while True:
            rows, position = self._log.next(_ROWS)
            if not rows:
                return Synced(taken, known, tuple(rejected))
            told = self._post(f"/v1/{self._system}/predictions", rows, _SYNC_SECONDS)
            self._log.take(position)
            taken, known, rejected = taken + told["taken"], known + told["known"], rejected + told["rejected"]

    def update(self, address: str, verify: Verify) -> str:
        """Answer with the file of a release from now on; the version it holds. See `mainspring.edge.release.fetch` for what is checked.

        The file before it stays at hand: `roll_back` returns to it, and so does the first answer that the new one fails to give.

        Raises:
            RegistryError: the release is not signed, or its file is another or answers otherwise; the present one goes on.
            StorageError: the release cannot be read or its file written; the present one goes on.
        """
        newer = fetch(address, self._file, loaded, verify)
        self._before, self._module = self._module, newer
        return str(newer.MODEL.document["version"])

    def roll_back(self) -> str:
        """Answer with the file before the last update again; its version.

        Raises:
            RegistryError: there was none.
        """
        previous = kept(self._file)
        if self._before is None and not previous.exists():
            raise RegistryError(f"{self._file}: there is no file before it. Export one.")
        self._module, self._before = self._before or loaded(previous), None
        previous.replace(self._file)
        return str(self._module.MODEL.document["version"])

    @property
    def version(self) -> str:
        """The version that answers on the device."""
        return str(self._module.MODEL.document["version"])

    @property
    def waiting(self) -> bool:
        """Whether there are answers that the server does not have."""
        return self._log.waiting > 0

    def close(self) -> None:
        """Let go of the log."""
        self._log.close()

    def _answered(self, request: Mapping[str, Any], given: Mapping[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
        try:
            found: tuple[dict[str, Any], dict[str, Any]] = self._module.MODEL.answered(request, given)
        except self._module.RequestError as error:
            raise RequestError(error.field, str(error).removeprefix(f"{error.field}: ")) from error
        except Exception:
            if self._before is None:
                raise
            self.roll_back()
            return self._answered(request, given)
        return found

    def _record(
        self,
        id: str,
        request: Mapping[str, Any],
        given: Mapping[str, Any],
        local: Mapping[str, Any],
        values: Mapping[str, Any],
        seconds: float,
    ) -> dict[str, Any]:
        interval, computed = local.get("interval") or {}, {one["name"] for one in self._module.MODEL.document["functions"]}
        known = {name: value for name, value in values.items() if name in given or name in computed}
        return {
            "request_id": id,
            "answered_at": self._clock.now(),
            "request": dict(request),
            "features": {name: value for name, value in known.items() if name not in (local.get("flags") or {})},
            "version": local["version"],
            "answered_by": local["answered_by"],
            "score": local[self._label],
            "low": interval.get("low"),
            "high": interval.get("high"),
            "latency_us": seconds * 1e6,
        }

    def _ask(self, request: Mapping[str, Any], id: str) -> Mapping[str, Any]:
        """The server's answer in time, or `ServingError`."""
        if not self._breaker.ready():
            raise ServingError("the server failed lately and is left alone for a while")
        try:
            answer = self._post(f"/v1/{self._system}?explain=false", request, self._deadline, id)
        except ServingError:
            self._breaker.failed()
            raise
        self._breaker.succeeded()
        return answer

    def _post(self, path: str, body: Any, seconds: float, id: str = "") -> dict[str, Any]:
        until = self._monotonic() + seconds
        made = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        connection = made(self._url.hostname or "", self._url.port, timeout=seconds)
        try:
            headers = {"content-type": "application/json", **({"x-request-id": id} if id else {})}
            connection.request("POST", self._url.path.rstrip("/") + path, json.dumps(body), headers)
            if connection.sock is not None:
                connection.sock.settimeout(max(until - self._monotonic(), 1e-3))
            reply = connection.getresponse()
            told: dict[str, Any] = json.loads(reply.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ServingError(f"the server at {self._url.netloc} did not answer within {seconds:g} s ({error})") from error
        finally:
            connection.close()
        if reply.status != http.HTTPStatus.OK:
            raise ServingError(f"the server at {self._url.netloc} answered {reply.status}: {told.get('error', told)}")
        return told
