"""What a version in shadow, which scores every request unseen, costs those who wait for the champion."""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness import Bar, bar, unmeasured
from processes import Served
from serving_systems import PAYMENTS

from mainspring.clock import SystemClock
from mainspring.loop.load.recorder import Load
from mainspring.model_registry.registry import Registry, open_registry
from mainspring.storage.workspace import Workspace

ROUNDS, RATE, TAKEN_UP_SECONDS = 9, 1_000.0, 10.0


def shadow_bars(space: Workspace, server: Served, load: Callable[[float, int], Load]) -> list[Bar]:
    """One server, with and without a challenger in shadow by turns; ``load`` sends requests at a rate, drawn by a seed."""
    print("A version in shadow", file=sys.stderr)
    name = f"shadow, {RATE:.0f} requests/s: p99 over that without"
    alone, behind = list[Load](), list[Load]()
    with _challenger(space) as challenger:
        for seed in range(ROUNDS):
            for shadowed in (True, False) if seed % 2 else (False, True):
                _decide(space, challenger, shadowed)
                _taken_up(server, challenger if shadowed else None)
                (behind if shadowed else alone).append(load(RATE, seed))
    if any(one.failed for one in (*alone, *behind)):
        return [unmeasured(name, "x", "requests failed", bar=1.05)]
    pairs = [after.percentile(0.99) / before.percentile(0.99) for before, after in zip(alone, behind, strict=True)]
    halves = [after.percentile(0.5) / before.percentile(0.5) for before, after in zip(alone, behind, strict=True)]
    return [bar("shadow: p50 over that without", "x", halves), bar(name, "x", pairs, bar=1.05)]


@contextmanager
def _challenger(space: Workspace) -> Iterator[str]:
    """The champion once more, as another version."""
    registry = open_registry(space.registry_url)
    try:
        champion = registry.version(str(registry.deployment(PAYMENTS.name).champion))
        artifacts = {name: registry.artifact(champion, name) for name in champion.artifacts}
        yield registry.register("model", PAYMENTS.name, champion.manifest, artifacts, at=SystemClock().now()).id
    finally:
        registry.close()


def _decide(space: Workspace, challenger: str, shadowed: bool) -> None:
    registry: Registry = open_registry(space.registry_url)
    try:
        has = registry.deployment(PAYMENTS.name).challenger is not None
        if has != shadowed:
            action = "shadow" if shadowed else "roll_back"
            registry.decide(PAYMENTS.name, action, challenger, at=SystemClock().now(), by="benchmark", reason="by turns", evidence={})
    finally:
        registry.close()


def _taken_up(server: Served, challenger: str | None) -> None:
    """Wait until the server has it; it looks when it is asked."""
    home, ends = server.url.split("?")[0], time.monotonic() + TAKEN_UP_SECONDS
    while time.monotonic() < ends:
        with urllib.request.urlopen(home) as response:
            if json.load(response)["challenger"] == challenger:
                return
        time.sleep(0.02)
    raise SystemExit(f"The server did not take up {challenger or 'that there is no challenger'}.")
