"""What every benchmark shares: interleaved rounds, medians with spread, a table, and a JSON file of bars."""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mainspring.loop.evidence import commit, machine

RESULTS = Path(__file__).parent / "results"
PEERS = Path(__file__).parent.parent / ".peers"
QUICK = os.environ.get("QUICK", "") not in ("", "0")


@dataclass(frozen=True)
class Bar:
    """A figure and what it must hold to.

    ``floor`` is what the machine allows at best, ``peer`` what another tool reaches, in the same unit; ``bar`` bounds ``value`` from
    above or below, and None only reports it. Where it is unmeasured, ``value`` is NaN, which
    holds to no bar, and ``why`` says what was in the way.
    """

    name: str
    value: float
    unit: str
    spread: tuple[float, float]
    floor: float | None = None
    peer: float | None = None
    bar: float | None = None
    above: bool = False
    why: str = ""

    @property
    def holds(self) -> bool:
        """Whether the value is on the right side of the bar."""
        return self.bar is None or (self.value >= self.bar if self.above else self.value <= self.bar)


def interleaved(rounds: int, sides: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Each side once a round, in turn, so that noise of the machine meets all of them alike."""
    measured: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            measured[name].append(side())
    return measured


def bar(name: str, unit: str, values: Sequence[float], **other: float | bool | None) -> Bar:
    """A bar on the median of rounds, with their range as its spread."""
    return Bar(name, statistics.median(values), unit, (min(values), max(values)), **other)  # type: ignore[arg-type]


def unmeasured(name: str, unit: str, why: str, **other: float | bool | None) -> Bar:
    """A bar that there is no value for."""
    return Bar(name, math.nan, unit, (math.nan, math.nan), why=why, **other)  # type: ignore[arg-type]


def peer(name: str) -> Path:
    """The Python of another tool's own environment, made on first use from ``peers/<name>.txt``."""
    python = PEERS / name / "bin" / "python"
    if not python.exists():
        print(f"Setting up {name} in {PEERS / name}", file=sys.stderr)
        uv = shutil.which("uv")
        make = [uv, "venv", "--quiet", "--python", sys.executable] if uv else [sys.executable, "-m", "venv"]
        install = [uv, "pip", "install", "--quiet", "--python", str(python)] if uv else [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*make, str(PEERS / name)], check=True)
        subprocess.run([*install, "-r", str(Path(__file__).parent / "peers" / f"{name}.txt")], check=True)
    return python


def write(area: str, bars: Sequence[Bar]) -> int:
    """Print the bars, write ``results/<area>.json``; 1 when one does not hold."""
    table = Table(title=f"{area}, {machine()}, {commit()}", title_justify="left")
    for column in ("what", "median", "range", "unit", "floor", "to floor", "peer", "to peer", "bar", "holds"):
        table.add_column(column, justify="left" if column in ("what", "unit") else "right")
    for one in bars:
        beside = [cell for other in (one.floor, one.peer) for cell in _beside(one.value, other)]
        bound = "" if one.bar is None else f"{'>=' if one.above else '<='} {one.bar:g}"
        low, high = one.spread
        table.add_row(one.name, f"{one.value:.3g}", one.why or f"{low:.3g} to {high:.3g}", one.unit, *beside, bound, _verdict(one))
    Console(width=180).print(table)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{area}.json"
    rows = [{**asdict(one), **({"value": None, "spread": None} if one.why else {}), "holds": one.holds} for one in bars]
    path.write_text(json.dumps({"machine": machine(), "commit": commit(), "quick": QUICK, "bars": rows}, indent=2) + "\n")
    print(f"Wrote {path}")
    return 0 if all(one.holds for one in bars) else 1


def _beside(value: float, other: float | None) -> tuple[str, str]:
    return ("", "") if other is None else (f"{other:.3g}", f"{value / other:.3g}")


def _verdict(one: Bar) -> str:
    if one.why:
        return "unmeasured"
    return "yes" if one.holds else "NO"
