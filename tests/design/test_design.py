"""Diagrams, verdicts and reports."""

from __future__ import annotations

import dataclasses
import io
import json
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import delivery
from mainspring.clock import DAY, parse_instant
from mainspring.design.draw import ARROWS, CHARACTER, boxes, mermaid, svg
from mainspring.design.report import Group, Moment, Report, to_json
from mainspring.design.report_html import html
from mainspring.design.report_text import folded, print_report
from mainspring.design.verify import judge
from mainspring.systems.eta import system as eta

T = parse_instant("2025-01-01")
SYSTEMS = pytest.mark.parametrize("system", [eta, delivery.system], ids=["eta", "delivery"])


@SYSTEMS
def test_the_diagram_is_a_drawing_with_every_box_and_no_text_outside(system: Any) -> None:
    root = ET.fromstring(svg(system))
    texts = [node for node in root.iter() if node.tag.endswith("text")]
    written = [node.text for node in texts]
    for box in boxes(system).values():
        assert {box.title, *box.lines} <= set(written)
    rects = [{key: float(node.get(key, 0)) for key in ("x", "y", "width", "height")} for node in root.iter() if node.tag.endswith("rect")][
        1:
    ]
    for rect in rects:
        inside = [
            node for node in texts if node.get("text-anchor") is None and rect["x"] < float(node.get("x", 0)) < rect["x"] + rect["width"]
        ]
        for node in inside:
            if rect["y"] < float(node.get("y", 0)) < rect["y"] + rect["height"]:
                assert float(node.get("x", 0)) + CHARACTER * len(node.text or "") <= rect["x"] + rect["width"] + 10


@SYSTEMS
def test_mermaid_has_every_box_and_arrow(system: Any) -> None:
    lines = mermaid(system).splitlines()
    assert lines[0] == "flowchart TD"
    assert len(lines) == 1 + len(boxes(system)) + len(ARROWS)
    for line in lines[1 : 1 + len(boxes(system))]:
        assert line.count('"') == 2


def test_what_is_drawn_is_escaped() -> None:
    rude = dataclasses.replace(delivery.system, question='<b>"&</b>')
    assert ET.fromstring(svg(rude)) is not None
    assert '<b>"&</b>' not in svg(rude)
    assert '"&' not in mermaid(rude)


@pytest.mark.parametrize(
    ("value", "n", "stale", "verdict"),
    [(0.5, 10, False, "met"), (0.4, 10, False, "met"), (0.39, 10, False, "missed"), (0.61, 10, False, "missed"), (0.5, 10, True, "stale"),
     (None, 10, False, "unmeasured"), (0.5, 0, False, "unmeasured"), (float("nan"), 9, False, "unmeasured"), (None, 0, True, "unmeasured")],
)  # fmt: skip
def test_no_data_is_never_good_news(value: float | None, n: int, stale: bool, verdict: str) -> None:
    assert judge("x", value, low=0.4, high=0.6, n=n, stale=stale).verdict == verdict


def a_report(days: int) -> Report:
    rng = np.random.default_rng(0)
    names = ("live system", "line")
    met = judge("mae / line", 0.7, high=0.8, interval=(0.6, 0.75), n=100, machine="m", commit="c")
    kinds = enumerate(("promote", "alarm", "roll_back"))
    readings = tuple((T + d * DAY, 0.1, None if d < 7 else 0.2) for d in range(days))
    return Report(
        system="<delivery>",
        question="How long & why?",
        unit="minutes",
        started=T,
        finished=T + days * DAY,
        wall_seconds=12.0,
        peak_memory_bytes=2**30,
        requests=days * 100,
        verdicts=(met, judge("coverage", None, low=0.7, high=0.9)),
        comparison=(("live system", 8.0, 1.0, 100), ("line", 12.0, 1.5, 100)),
        moments=tuple(Moment(T + i * DAY, kind, f"model:x:{i}", "because [a, b]") for i, kind in kinds),
        skew=(days, days * 7, 0),
        quarantined=(("done", "minutes: must be at most 1440", 3),),
        answered_by=(("model", days * 100),),
        groups=tuple(Group((place, f"{h:02d}"), 20, float(rng.uniform(5, 9)), 0.1) for place in "ns" for h in range(24)) if days else (),
        group_names=("depot", "hour"),
        daily=tuple((T + i * DAY, {name: float(rng.uniform(6, 12)) for name in names}) for i in range(days)),
        latencies_ms=rng.lognormal(0.5, 0.4, days * 100),
        drift={f"feature_{i}": readings for i in range(9)} if days else {},
        places=(("report", "somewhere/report.html"),),
        next_commands=(("mainspring serve delivery", "serve it"),),
    )


def test_the_report_is_read_on_a_terminal_of_a_hundred_columns() -> None:
    out = io.StringIO()
    print_report(a_report(20), Console(file=out, width=100))
    text = out.getvalue()
    for part in ("mae / line", "met", "unmeasured", "33.3 %", "0 differ", "because [a, b]", "mainspring serve delivery", "3 of done"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_report_is_json_without_nan() -> None:
    body = json.loads(to_json(dataclasses.replace(a_report(3), wall_seconds=float("nan"))), parse_constant=pytest.fail)
    assert body["wall_seconds"] is None
    assert body["moments"][0]["at"] == "2025-01-01T00:00:00Z"
    assert body["latency_ms"]["p99"] > body["latency_ms"]["p50"]


@pytest.mark.parametrize("days", [30, 0])
def test_the_page_stands_alone_and_escapes_what_it_is_given(days: int) -> None:
    page = html(a_report(days), svg(delivery.system))
    assert page.count("<figure>") == (5 if days else 1)
    assert "<delivery>" not in page
    assert "&lt;delivery&gt;" in page
    for reference in ("src=", "<link", "<script", "@import"):
        assert reference not in page


def test_alarms_of_one_instant_are_one_line() -> None:
    moments = (
        Moment(T, "alarm", "", "a"),
        Moment(T, "alarm", "", "b"),
        Moment(T + 1, "alarm", "", "c"),
        Moment(T + 1, "promote", "v", "d"),
    )
    assert [moment.text for moment in folded(moments)] == ["a; b", "c", "d"]
