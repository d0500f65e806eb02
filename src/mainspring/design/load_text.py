"""A measurement of load for the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from mainspring.loop.load.recorder import CLOSED, SHOWN, Load

_CLOSED_NOTE = "closed loop: each connection waits for its answer, so these latencies are not what users would see"


def print_loads(loads: tuple[Load, ...], console: Console) -> None:
    """A row for each measurement, then what is to be known before believing it."""
    table = Table(title=f"{loads[0].mode} loop, latencies in ms", title_justify="left")
    for column in ("asked/s", "good/s", "connections", *(f"p{q * 100:g}" for q in SHOWN), "max", "failed", "generator's lag p99"):
        table.add_column(column, justify="right")
    for load in loads:
        asked = "" if load.asked_rate is None else f"{load.asked_rate:,.0f}"
        latencies = [f"{value * 1e3:.2f}" for value in load.latency.quantiles(SHOWN)]
        lag = f"{float(load.lag.quantiles(0.99)) * 1e3:.2f}" if load.lag.count else ""
        table.add_row(
            asked, f"{load.rate:,.0f}", str(load.connections), *latencies, f"{load.latency.longest / 1e6:.2f}", f"{load.failed:.2%}", lag
        )
    console.print(table)
    for load in loads:
        if load.failures:
            console.print("failed: " + ", ".join(f"{kind} {count:,}" for kind, count in sorted(load.failures.items())), highlight=False)
        if load.behind is not None:
            console.print(f"do not trust this: {load.behind}", style="red")
    if loads[0].mode == CLOSED:
        console.print(_CLOSED_NOTE, highlight=False)
