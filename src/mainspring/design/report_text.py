"""The report on a terminal."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table

from mainspring.clock import format_instant
from mainspring.design.report import Moment, Report
from mainspring.design.verify import Verdict

COLOURS = {"met": "green", "missed": "red", "unmeasured": "yellow", "stale": "yellow"}
KINDS = {
    "run_started": "started", "promote": "promoted", "roll_back": "rolled back", "gate_passed": "gate passed",
    "gate_refused": "gate refused", "retrain": "retrained", "run_completed": "completed",
}  # fmt: skip


def print_report(report: Report, console: Console) -> None:
    """Requirement table, comparison, what the loop did, where everything lies, what to try next."""
    span = f"{format_instant(report.started)[:10]} to {format_instant(report.finished)[:10]}"
    console.print(f"\n[bold]{report.system}[/bold]: {report.question}")
    console.print(
        f"{report.requests:,} requests of {span} answered over HTTP, in {report.wall_seconds:.0f} s and "
        f"{report.peak_memory_bytes / 2**30:.2f} GiB; answered by " + ", ".join(f"{name} {count:,}" for name, count in report.answered_by)
    )
    console.print(_verdicts(report))
    console.print(_comparison(report))
    console.print(_moments(report.moments))
    requests, values, differences = report.skew
    console.print(f"Skew: {values:,} served values of {requests:,} requests recomputed offline as known then: {differences} differ.")
    for source, reason, count in report.quarantined[:8]:
        console.print(f"Quarantined: {count:,} of {source}, {reason}")
    console.print("\n[bold]Where everything lies[/bold]")
    for what, path in report.places:
        console.print(f"  {what:<30} {path}", soft_wrap=True)
    console.print("\n[bold]Next[/bold]")
    for command, what in report.next_commands:
        console.print(f"  {command}\n      {what}", soft_wrap=True)


def figure(value: float | None) -> str:
    """A number with three significant digits, or a dash where it is none or infinite."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value)}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"


def interval(verdict: Verdict) -> str:
    """The interval in brackets, or nothing."""
    return "" if verdict.interval is None else f"[{figure(verdict.interval[0])}, {figure(verdict.interval[1])}]"


def folded(moments: tuple[Moment, ...]) -> list[Moment]:
    """Moments with runs of alarms of one day folded into one line each."""
    lines: list[Moment] = []
    for moment in moments:
        last = lines[-1] if lines else None
        if last is not None and moment.kind == last.kind == "alarm" and moment.at == last.at:
            lines[-1] = Moment(last.at, "alarm", "", f"{last.text}; {moment.text}")
        else:
            lines.append(moment)
    return lines


def _verdicts(report: Report) -> Table:
    table = Table(title="Requirements", title_justify="left", title_style="bold", pad_edge=False)
    for name in ("requirement", "promised", "verdict", "measured", "95 % interval", "n", "evidence"):
        table.add_column(name, justify="right" if name in ("measured", "n") else "left", overflow="fold")
    for one in report.verdicts:
        colour = COLOURS[one.verdict]
        measured = f"{figure(one.value)} {one.unit}".strip()
        table.add_row(
            one.requirement,
            one.bound,
            f"[{colour}]{one.verdict}[/{colour}]",
            measured,
            interval(one).replace("[", "\\["),
            f"{one.n:,}",
            one.evidence,
        )
    return table


def _comparison(report: Report) -> Table:
    table = Table(title=f"Error over the replay (MAE in {report.unit})", title_justify="left", title_style="bold", pad_edge=False)
    for name in ("who", "MAE", "live system is better by", "n"):
        table.add_column(name, justify="left" if name == "who" else "right")
    for name, error, relative, n in report.comparison:
        better = "" if relative == 1.0 else f"{100 * (1 - 1 / relative):.1f} %"
        table.add_row(name, figure(error), better, f"{n:,}")
    return table


def _moments(moments: tuple[Moment, ...]) -> Table:
    table = Table(title="What the loop did", title_justify="left", title_style="bold", pad_edge=False)
    for name in ("when", "what", "version", "why"):
        table.add_column(name, overflow="fold", no_wrap=name in ("when", "what"))
    for moment in folded(moments):
        when = format_instant(moment.at).replace("T", " ")[:16]
        text = moment.text if len(moment.text) <= 220 else moment.text[:217] + "..."
        table.add_row(when, KINDS.get(moment.kind, moment.kind), moment.version.replace("model:", ""), text.replace("[", "\\["))
    return table
