"""Verdicts: what was promised against what was measured. No data is never good news."""

from __future__ import annotations

from dataclasses import dataclass

MET, MISSED, UNMEASURED, STALE = "met", "missed", "unmeasured", "stale"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One requirement: met, missed, unmeasured or stale, with the value, its interval, and where it comes from.

    ``n`` counts the observations behind ``value``, ``at`` is the instant they reach to, ``bound`` what was promised.
    """

    requirement: str
    verdict: str
    value: float | None
    bound: str
    unit: str
    interval: tuple[float, float] | None
    n: int
    at: int
    machine: str
    commit: str
    evidence: str


def judge(
    requirement: str, value: float | None, *, low: float | None = None, high: float | None = None, unit: str = "",
    interval: tuple[float, float] | None = None, n: int = 0, at: int = 0, machine: str = "", commit: str = "", evidence: str = "",
    stale: bool = False,
) -> Verdict:  # fmt: skip
    """Hold ``value`` against ``[low, high]``, both ends inclusive, None for open.

    Without a value, or with ``n`` 0, the verdict is unmeasured; evidence of another declaration is stale.
    """
    if value is None or value != value or n == 0:
        verdict = UNMEASURED
    elif stale:
        verdict = STALE
    else:
        verdict = MET if (low is None or value >= low) and (high is None or value <= high) else MISSED
    return Verdict(requirement, verdict, value, _bound(low, high), unit, interval, n, at, machine, commit, evidence)


def _bound(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    if low is not None:
        return f"at least {low:g}"
    return "" if high is None else f"at most {high:g}"
