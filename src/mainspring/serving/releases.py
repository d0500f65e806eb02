"""What is live: a deployment with all of its versions in memory, replaced whole while requests go on."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mainspring.model_registry.deployment import Deployment
from mainspring.model_registry.registry import Registry
from mainspring.serving.versions import LoadedVersion, load, unloaded
from mainspring.spec import PREVIOUS, System

STALE_SECONDS = 30.0
"""How long requests may be answered by the deployment before, while versions of the one that is decided are being loaded."""

Chain = list[tuple[str, LoadedVersion]]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Live:
    """What one batch is answered by, from its first row to its last; ``chains`` by variant say who may answer, in order."""

    deployment: Deployment
    versions: Mapping[str, LoadedVersion]
    chains: Mapping[str, Chain]

    def answers(self) -> bool:
        """Whether a model or a rule can answer."""
        return any(version.model is not None or name in version.rules for name, version in self.chains["champion"])


class Releases:
    """Follows the registry's deployment of one System.

    One whose versions are all in memory, as when a rollout goes on or back, is live for the request that sees it. Other versions are
    loaded, and asked once, in a thread, while requests are answered as before. What could not be loaded by `STALE_SECONDS` is live all
    the same, without its models. Safe to use from several threads.
    """

    def __init__(self, system: System, registry: Registry, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._system, self._registry, self._monotonic = system, registry, monotonic
        self._lock = threading.Lock()
        self._loaded: dict[str, LoadedVersion] = {}
        self._loading = False
        self._until = math.inf
        self._token = -1
        self._live = self._made(Deployment())
        self._look()

    def current(self) -> Live:
        """What is live now; asks the registry whether anything was decided."""
        if (self._registry.token() != self._token or self._monotonic() > self._until) and self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._lock.release()
        return self._live

    def _look(self) -> None:
        token, deployment = self._registry.token(), self._registry.deployment(self._system.name)
        missing = [id for id in _ids(deployment) if id not in self._loaded]
        if missing and not self._live.answers():
            self._loaded |= {id: load(self._system, self._registry, id) for id in missing}
        elif missing and self._monotonic() <= self._until:
            self._until = min(self._until, self._monotonic() + STALE_SECONDS)
            self._load_beside(missing)
            self._token = token
            return
        elif missing:
            _log.error("%s: %s are still being loaded after %g s and go live without", self._system.name, missing, STALE_SECONDS)
        self._loaded = {id: version for id, version in self._loaded.items() if id in _ids(deployment)}
        self._live, self._token, self._until = self._made(deployment), token, math.inf

    def _load_beside(self, ids: list[str]) -> None:
        if not self._loading:
            self._loading = True
            threading.Thread(target=self._load, args=(ids,), name="releases", daemon=True).start()

    def _load(self, ids: list[str]) -> None:
        loaded = {id: load(self._system, self._registry, id) for id in ids}
        with self._lock:
            self._loaded |= loaded
            self._loading = False
            self._look()

    def _made(self, deployment: Deployment) -> Live:
        versions = {id: self._loaded.get(id) or unloaded(self._system, id, "it is still being loaded") for id in _ids(deployment)}
        chains = {variant: self._chain(deployment, variant, versions) for variant in ("champion", "challenger")}
        return Live(deployment, versions, chains)

    def _chain(self, deployment: Deployment, variant: str, versions: Mapping[str, LoadedVersion]) -> Chain:
        """The version that is due, then what the policy names; one that is not loaded never stands in the way of the one before it."""
        due = deployment.challenger if variant == "challenger" else deployment.champion
        live = [id for id in dict.fromkeys((due, deployment.champion, deployment.previous)) if id is not None]
        names = self._system.policy.fallback
        if live and versions[live[0]].model is None and PREVIOUS not in names:
            names = (PREVIOUS, *names)
        chain = [("model", versions[live[0]])] if live else []
        for name in names:
            chain += [(name, versions[id]) for id in (live[1:] if name == PREVIOUS else live)]
        return chain


def _ids(deployment: Deployment) -> list[str]:
    live = (deployment.champion, deployment.previous, deployment.challenger)
    return [id for id in dict.fromkeys(live) if id is not None]
