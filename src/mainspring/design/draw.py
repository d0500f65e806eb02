"""A System as the reference architecture's diagram, with its own sources, features, model and policy in the boxes."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from mainspring.spec import Monitor, Source, System

CHARACTER = 6.1
LINE = 15
PADDING = 10
TITLE = 26
INK, SOFT, LINE_COLOUR = "#1f2933", "#52606d", "#9aa5b1"
ONLINE, OFFLINE, RECORDS = "#e3f2ec", "#eaf1fb", "#fdf3dc"


@dataclass(frozen=True, slots=True)
class Box:
    """A part of the architecture: its title and what this system puts into it."""

    id: str
    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Placed:
    box: Box
    x: float
    y: float
    width: float
    height: float
    colour: str


ARROWS = (
    ("client", "gateway", "request"),
    ("gateway", "serving", "share of traffic"),
    ("serving", "features", "read as of"),
    ("serving", "monitoring", "prediction log"),
    ("monitoring", "loop", "readings, labels"),
    ("loop", "training", "retrain"),
    ("ingestion", "features", "event log"),
    ("features", "training", "point-in-time rows"),
    ("training", "evaluation", "candidate"),
    ("evaluation", "registry", "gate"),
    ("registry", "serving", "live versions"),
)


def boxes(system: System) -> dict[str, Box]:
    """The boxes of the reference architecture, filled from the declaration."""
    found = (
        Box("client", "Client", (system.question, f"{len(system.request.schema.fields)} fields of '{system.request.name}'")),
        _gateway(system),
        Box("serving", "Prediction service", (*_answering(system), f"features within {system.policy.feature_deadline}")),
        _feature_store(system),
        Box("ingestion", "Data ingestion", tuple(_source(source) for source in (system.request, *system.sources))),
        _training(system),
        Box("evaluation", "Model evaluation", (*map(str, system.requirements.quality), "gate: paired, held-out rows")),
        Box("registry", "Model registry", ("versions, decisions", *_steps(system))),
        Box("monitoring", "Monitoring and logging", ("prediction log", *(_monitor(one) for one in system.monitors))),
        Box("loop", "Retraining and rollout", _triggers(system)),
    )
    return {box.id: box for box in found}


def _gateway(system: System) -> Box:
    needs, rollout = system.requirements, system.rollout
    promises = [f"p99 <= {needs.latency_p99}"] if needs.latency_p99 else []
    promises += [f"availability {needs.availability:g}"] if needs.availability else []
    return Box("gateway", "API gateway", (*promises, f"sticky split by {rollout.unit}" if rollout else "one version"))


def _answering(system: System) -> tuple[str, str]:
    return f"label: {system.label.column}", " -> ".join(("model", *system.policy.fallback))


def _feature_store(system: System) -> Box:
    views = [f"{view.name} ({view.source.name}): {len(aggregates)}" for view, aggregates in system.views.items()]
    counts = f"{len(system.aggregates)} aggregates in {len(views)} views"
    return Box("features", "Feature store", (counts, *_most(views, 6), f"{len(system.functions)} functions"))


def _source(source: Source) -> str:
    return f"{source.name} ({source.kind}, {len(source.columns.fields)} columns)"


def _training(system: System) -> Box:
    model = system.model
    kind, settings = model.learner
    own = ", ".join(f"{name} {value}" for name, value in settings.items() if isinstance(value, int) and value > 1)
    return Box("training", "Model training", (f"{kind}, {model.task}", own, f"{len(system.inputs)} inputs, holdout {model.holdout}"))


def _steps(system: System) -> tuple[str, ...]:
    if system.rollout is None:
        return ()
    rollout = system.rollout
    return f"shadow {rollout.shadow}", " -> ".join(f"{step:.0%}" for step in rollout.steps), f"margin {rollout.margin:.0%}"


def _monitor(monitor: Monitor) -> str:
    return f"{monitor.watch} per {monitor.window}" + (f", by {', '.join(monitor.by)}" if monitor.by else "")


def _triggers(system: System) -> tuple[str, ...]:
    every = f"every {system.model.retrain_every}" if system.model.retrain_every else "on demand"
    return every, *(f"on {monitor.watch}" for monitor in system.monitors if monitor.retrain)


def mermaid(system: System) -> str:
    """The diagram as a Mermaid flowchart."""
    lines = ["flowchart TD"]
    for box in boxes(system).values():
        text = "<br/>".join([f"<b>{_mermaid_text(box.title)}</b>", *map(_mermaid_text, box.lines)])
        lines.append(f'    {box.id}["{text}"]')
    lines += [f'    {start} -->|"{label}"| {end}' for start, end, label in ARROWS]
    return "\n".join(lines) + "\n"


def svg(system: System) -> str:
    """The diagram as one self-contained SVG: the request's way on the left, training on the right."""
    placed = _place(boxes(system))
    width = max(one.x + one.width for one in placed.values()) + 20
    height = max(one.y + one.height for one in placed.values()) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'font-family="system-ui,Segoe UI,Roboto,Helvetica,Arial,sans-serif" role="img" aria-label="{escape(system.name)}: architecture">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto-start-reverse">'
        f'<path d="M0 0L8 4L0 8z" fill="{LINE_COLOUR}"/></marker></defs>',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
        f'<text x="20" y="32" font-size="19" font-weight="700" fill="{INK}">{escape(system.name)}</text>',
        f'<text x="20" y="51" font-size="12" fill="{SOFT}">{escape(system.question)}</text>',
    ]
    parts += [_arrow(placed[start], placed[end], label) for start, end, label in ARROWS]
    parts += [_draw(one) for one in placed.values()]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _place(found: dict[str, Box]) -> dict[str, _Placed]:
    columns = (
        (20.0, ONLINE, ("client", "gateway", "serving", "monitoring")),
        (0.0, RECORDS, ("features", "registry", "loop")),
        (0.0, OFFLINE, ("ingestion", "training", "evaluation")),
    )
    placed: dict[str, _Placed] = {}
    x = 20.0
    for _, colour, names in columns:
        width = max(_width(found[name]) for name in names)
        y = 72.0
        for name in names:
            height = TITLE + PADDING + LINE * len(found[name].lines)
            placed[name] = _Placed(found[name], x, y, width, height, colour)
            y += height + 52
        x += width + 130
    return _aligned(placed, columns)


def _aligned(placed: dict[str, _Placed], columns: tuple[tuple[float, str, tuple[str, ...]], ...]) -> dict[str, _Placed]:
    """Spread each column over the height of the tallest, so that arrows run level."""
    bottom = max(one.y + one.height for one in placed.values())
    spread: dict[str, _Placed] = {}
    for _, _, names in columns:
        own = [placed[name] for name in names]
        slack = (bottom - max(one.y + one.height for one in own)) / max(1, len(own) - 1)
        for number, one in enumerate(own):
            spread[one.box.id] = _Placed(one.box, one.x, one.y + slack * number, one.width, one.height, one.colour)
    return spread


def _width(box: Box) -> float:
    return 2 * PADDING + CHARACTER * max([len(box.title) * 1.15, *(len(line) for line in box.lines)])


def _draw(one: _Placed) -> str:
    rows = "".join(
        f'<text x="{one.x + PADDING:.0f}" y="{one.y + TITLE + LINE * (i + 0.75):.0f}" font-size="11.5" fill="{SOFT}">{escape(line)}</text>'
        for i, line in enumerate(one.box.lines)
    )
    return (
        f'<rect x="{one.x:.0f}" y="{one.y:.0f}" width="{one.width:.0f}" height="{one.height:.0f}" rx="8" fill="{one.colour}" '
        f'stroke="{LINE_COLOUR}"/><text x="{one.x + PADDING:.0f}" y="{one.y + 19:.0f}" font-size="13" font-weight="700" '
        f'fill="{INK}">{escape(one.box.title)}</text>{rows}'
    )


def _arrow(start: _Placed, end: _Placed, label: str) -> str:
    """A line between the facing sides of two boxes, with its label at the middle."""
    if abs(start.x - end.x) < 1:
        down = start.y < end.y
        x = start.x + start.width / 2
        y1, y2 = (start.y + start.height, end.y) if down else (start.y, end.y + end.height)
        return _line(x, y1, x, y2) + _label(x + 6, (y1 + y2) / 2 + 4, label, "start")
    rightward = start.x < end.x
    x1, x2 = (start.x + start.width, end.x) if rightward else (start.x, end.x + end.width)
    y1, y2 = start.y + start.height / 2, end.y + end.height / 2
    near = 0.38
    return _line(x1, y1, x2, y2) + _label(x1 + (x2 - x1) * near, y1 + (y2 - y1) * near - 5, label, "middle")


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return (
        f'<line x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}" stroke="{LINE_COLOUR}" stroke-width="1.5" marker-end="url(#tip)"/>'
    )


def _label(x: float, y: float, label: str, anchor: str) -> str:
    halo = 'paint-order="stroke" stroke="#ffffff" stroke-width="4"'
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="10.5" fill="{SOFT}" text-anchor="{anchor}" {halo}>{escape(label)}</text>'


def _most(lines: list[str], most: int) -> list[str]:
    return lines if len(lines) <= most else [*lines[:most], f"and {len(lines) - most} views more"]


def _mermaid_text(text: str) -> str:
    return escape(text.replace('"', "'"), quote=False)
