"""What a route is about, and what it asks of whoever sends a request to it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

_OPEN_PATHS = ("healthz", "readyz")


@dataclass(frozen=True, slots=True)
class Rule:
    """What a route asks of its client: a verb on a system; no verb where everybody may. ``guarded`` routes have limits."""

    system: str
    verb: str
    guarded: bool = False


@lru_cache(maxsize=1024)
def rule_of(method: str, path: str) -> Rule:
    """The rule of a route, by its path: health is open, what is not known is described to those who may read descriptions."""
    parts, system = path.split("/"), system_of(path)
    if parts[1] in _OPEN_PATHS:
        return Rule("", "")
    if path == "/metrics":
        return Rule("", "metrics")
    if parts[1:4] == ["v2", "repository", "models"]:
        return Rule(system, "admin")
    if not system or method != "POST":
        return Rule(system, "describe")
    takes_in = parts[1] == "v1" and parts[3:4] in (["events"], ["predictions"])
    return Rule(system, "events" if takes_in else "answer", guarded=True)


@lru_cache(maxsize=1024)
def system_of(path: str) -> str:
    """The system that a route is about; empty where it is about none."""
    parts = path.split("/")
    for home in (["v1"], ["v2", "repository", "models"], ["v2", "models"]):
        if parts[1 : 1 + len(home)] == home and len(parts) > 1 + len(home):
            return parts[1 + len(home)]
    return ""
