"""The card of a model: what the records hold of a version, for people. What they do not hold, it says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mainspring.clock import DAY, format_instant
from mainspring.evaluation.record import Evaluation
from mainspring.model_registry import ModelManifest
from mainspring.spec import System

NOTHING = "not recorded"
FEW_DAYS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a card is written from. ``version`` and ``registered`` are empty where it is written as the version is registered.

    ``dataset`` is the manifest of the training set, ``run`` the id of the training's record, ``decisions`` instant, action and reason of
    what was decided about the version.
    """

    system: System
    version: str
    registered: int | None
    manifest: ModelManifest
    dataset: Mapping[str, Any]
    evaluation: Evaluation | None
    run: str
    decisions: Sequence[tuple[int, str, str]] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a card: a note and a table, whose columns from ``numbers`` on hold figures; with one column it is a list.

    ``picture`` names what may be drawn of it.
    """

    title: str
    note: str
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    numbers: int = 1
    picture: str = ""


def markdown(card: Card) -> str:
    """The card in Markdown: tables, no links."""
    lines = [f"# Model card: {card.version or card.system.name}", "", f"{card.system.question}"]
    for one in sections(card):
        lines += ["", f"## {one.title}"]
        lines += ["", one.note] if one.note else []
        if len(one.head) == 1:
            lines += ["", *(f"- {cell}" for (cell,) in one.rows)]
        elif one.rows:
            marks = ["---" if place < one.numbers else "---:" for place in range(len(one.head))]
            lines += ["", *(_row(cells) for cells in (one.head, marks, *one.rows))]
    return "\n".join(lines) + "\n"


def sections(card: Card) -> list[Section]:
    """All parts of the card, in order."""
    found = [_facts(card), _data(card)]
    evaluation = card.evaluation
    if evaluation is None:
        found.append(Section("Quality", "No evaluation is stored with this version: its quality is not known."))
    else:
        found += [_measures(evaluation), _promises(card, evaluation), _against(evaluation), _slices(evaluation), _worse(evaluation)]
        found += [one for one in (_calibration(evaluation), _thresholds(card, evaluation), _inputs(card, evaluation)) if one is not None]
    return [*found, _limits(card), _reproduction(card), *([_decisions(card)] if card.decisions else [])]


def limits(card: Card) -> list[str]:
    """What was not measured, or holds only so far, each as a sentence."""
    evaluation, needs = card.evaluation, card.system.requirements
    found = [] if card.system.owner else ["No owner is declared."]
    served = {"latency p99": needs.latency_p99, "availability": needs.availability, "requests/s": needs.peak_rps}
    served |= {"cost": needs.cost_per_1k, "freshness": needs.freshness}
    promised = [name for name, bound in served.items() if bound is not None]
    if promised:
        found.append(f"Promised, but only to be measured in service: {', '.join(promised)}. The report of a run judges them.")
    if evaluation is None:
        return found
    found += [f"Not measured: {name}, {why}." for name, why in evaluation.unmeasured.items()]
    if reused := evaluation.split.get("also used for"):
        found.append(f"The same held-out rows served for {' and '.join(reused)}: measures that rest on it are flattered.")
    if evaluation.since is not None and evaluation.until is not None and (days := (evaluation.until - evaluation.since) / DAY) < FEW_DAYS:
        found.append(f"Intervals draw whole days, of which there are about {days:.0f}: few, so that intervals may be too short.")
    if "champion" not in {one.rival for one in evaluation.against}:
        found.append("There was no champion to compare with.")
    if not evaluation.slices:
        found.append("No slice is declared (the groups of an error monitor), so none was measured for itself.")
    if evaluation.task == "binary" and needs.costs is None:
        found.append("No costs are declared, so that no threshold can be called the cheapest.")
    return found


def _facts(card: Card) -> Section:
    model, label = card.system.model, card.system.label
    rows = [
        ("question", card.system.question),
        ("owner", card.system.owner or "not declared"),
        ("version", card.version or "the one that this card is stored with"),
        ("registered", NOTHING if card.registered is None else _instant(card.registered)),
        ("model", f"{type(model).__name__}, {model.task}"),
        ("label", f"{label.source.name}.{label.column}, counts when known, at the latest {label.matures_after} after the request"),
        ("answers when the model cannot", " -> ".join(card.system.policy.fallback) or "nothing: an error"),
        ("licence", card.manifest.licence or "not given"),
        ("note", card.manifest.note or "none"),
    ]
    return Section("What it is", "", ("", ""), tuple(rows), numbers=2)


def _data(card: Card) -> Section:
    data = card.dataset
    if not data:
        return Section("Data", f"The training set is {NOTHING}.")
    label, sources = data.get("label", {}), data.get("sources", {})
    rows = [
        ("training set", card.manifest.dataset or NOTHING),
        ("rows with a label", f"{data['rows']:,}"),
        ("requests", f"{_instant(data['from']) if data.get('from') is not None else 'all'} until {_instant(data['until'])}"),
        ("label", f"{figure(label.get('least'))} to {figure(label.get('most'))}, mean {figure(label.get('mean'))}"),
        ("sources", ", ".join(sources) or NOTHING),
    ]
    return Section("Data", "The training set, held-out rows included.", ("", ""), tuple(rows), numbers=2)


def _measures(evaluation: Evaluation) -> Section:
    held = evaluation.split
    how = f"{held.get('kind', 'held-out rows')}{f' of {length}' if (length := held.get('length')) else ''}"
    spans = (evaluation.since, evaluation.until)
    span = "" if None in spans else f", {' to '.join(_instant(at)[:10] for at in spans if at is not None)}"
    rows = tuple((one.label, figure(one.value), interval(one.low, one.high), one.how) for one in evaluation.measures)
    latency = ", ".join(f"{name} {figure(value)} us" for name, value in evaluation.latency.items()) or NOTHING
    note = f"On {evaluation.rows:,} rows ({how}{span}), intervals of {evaluation.level:.0%}. Time to predict a row: {latency}."
    return Section("Measures", note, ("measure", "value", "interval", "by"), rows)


def _promises(card: Card, evaluation: Evaluation) -> Section:
    if not evaluation.promises:
        return Section("Promises", "No quality is declared.")
    rows = tuple(
        (one.text, one.verdict, figure(one.measured.value), interval(one.measured.low, one.measured.high)) for one in evaluation.promises
    )
    return Section(
        "Promises", f"What system '{card.system.name}' declares of its quality.", ("promised", "verdict", "measured", "interval"), rows, 2
    )


def _against(evaluation: Evaluation) -> Section:
    if not evaluation.against:
        return Section("Against baselines and champion", "There was nothing to compare with.")
    rows = tuple(
        (one.rival.replace("_", " "), figure(one.loss), figure(one.ratio), interval(one.low, one.high), _p(one.p))
        for one in evaluation.against
    )
    own = evaluation.own_loss
    note = f"Its {own.label} of {figure(own.value)} over theirs on the same rows: below 1 is better. p adjusted by Holm."
    return Section("Against baselines and champion", note, ("rival", own.label, "ratio", "interval", "p"), rows, picture="against")


def _slices(evaluation: Evaluation) -> Section:
    if not evaluation.slices:
        return Section("Slices", "No slice is declared.")
    labels = [one.label for one in evaluation.slices[0].measures][:4]
    head = ("slice", "rows", labels[0], "interval", *labels[1:])
    rows = []
    for part in evaluation.slices:
        first, *rest = part.measures[:4]
        rows.append(
            (part.name, f"{part.rows:,}", figure(first.value), interval(first.low, first.high), *(figure(one.value) for one in rest))
        )
    return Section("Slices", f"The declared ones, the worst first, by {labels[0]}.", head, tuple(rows), picture="slices")


def _worse(evaluation: Evaluation) -> Section:
    note = "Looked for among the declared and the most important columns on half of the days, confirmed on the other half (Holm, 5 %)."
    if not evaluation.worse:
        return Section("Slices found to be worse", f"{note} None was found, which does not show that there is none.")
    rows = tuple(
        (one.name, f"{one.rows:,}", figure(one.loss), f"+{figure(one.excess)}", interval(one.low, one.high), _p(one.p))
        for one in evaluation.worse
    )
    return Section("Slices found to be worse", note, ("slice", "rows", "loss", "over the rest", "interval", "p"), rows)


def _calibration(evaluation: Evaluation) -> Section:
    rows = tuple((f"{one.rows:,}", figure(one.predicted), figure(one.came), interval(one.low, one.high)) for one in evaluation.calibration)
    line = evaluation.line
    note = "Rows by rising answer in tenths: what was said, and what came."
    if line is not None:
        note += f" On the logit scale: intercept {figure(line.intercept)} (0 is right), slope {figure(line.slope)} (1 is right)."
    return Section("Calibration", note, ("rows", "said", "came", "interval"), rows, 0, picture="calibration")


def _thresholds(card: Card, evaluation: Evaluation) -> Section | None:
    if not evaluation.thresholds:
        return None
    every = max(1, len(evaluation.thresholds) // 12)
    rows = tuple(
        tuple(figure(value) for value in (one.threshold, one.alert_rate, one.precision, one.recall, one.false_alarm_rate, one.cost))
        for one in evaluation.thresholds[::every]
    )
    note, best = "What an alert from a score up brings.", evaluation.best
    if best is not None:
        costs = card.system.requirements.costs
        note += f" With {costs} the cheapest threshold is {figure(best.threshold)} {interval(best.threshold_low, best.threshold_high)}"
        note += f"; one chosen like this is to be expected to cost {figure(best.expected)} a row."
    return Section(
        "Thresholds", note, ("threshold", "alerts", "precision", "recall", "false alarms", "cost"), rows, 0, picture="thresholds"
    )


def _inputs(card: Card, evaluation: Evaluation) -> Section | None:
    if not evaluation.inputs:
        return None
    trained = card.dataset.get("nulls", {})
    whole = sum(one.importance or 0.0 for one in evaluation.inputs)
    rows = []
    for one in evaluation.inputs:
        share = NOTHING if one.importance is None or not whole else f"{one.importance / whole:.1%}"
        held = f"{figure(one.least)} to {figure(one.most)}" if one.values is None else f"{one.values} different values"
        nulls = f"{trained[one.name]:.2%}" if one.name in trained else NOTHING
        rows.append((one.name, held, share, nulls, f"{one.nulls:.2%}"))
    head = ("feature", "held-out rows hold", "importance", "null in the training set", "null in held-out rows")
    return Section("Features", "The most important first, by the learner's own measure.", head, tuple(rows), 2, picture="inputs")


def _limits(card: Card) -> Section:
    found = limits(card)
    return Section("Limits", "" if found else "None is known.", ("",) if found else (), tuple((one,) for one in found))


def _reproduction(card: Card) -> Section:
    manifest = card.manifest
    again = f"mainspring runs reproduce {card.system.name} {card.run}"
    rows = [
        ("run", f"{card.run} (do it again: {again})" if card.run else NOTHING),
        ("declaration", manifest.system or NOTHING),
        ("training set, SHA-256", str(card.dataset.get("hash", NOTHING))),
        ("code", manifest.code or NOTHING),
        ("seed", NOTHING if manifest.seed is None else str(manifest.seed)),
        ("seconds of training", NOTHING if manifest.seconds is None else figure(manifest.seconds)),
        ("parameters", ", ".join(f"{name} {value}" for name, value in manifest.parameters.items() if _told(value)) or NOTHING),
        ("environment", ", ".join(f"{name} {version}" for name, version in manifest.environment.items()) or NOTHING),
    ]
    return Section("Reproduction and environment", "", ("", ""), tuple(rows), 2)


def _decisions(card: Card) -> Section:
    rows = tuple((_instant(at), action.replace("_", " "), reason) for at, action, reason in card.decisions)
    return Section("What was decided about it", "", ("when (UTC)", "what", "why"), rows, 3)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _instant(at: int) -> str:
    return format_instant(at).replace("T", " ")[:16]


def _p(value: float) -> str:
    return "< 1e-6" if value < 1e-6 else f"{value:.2g}"


def _told(value: Any) -> bool:
    return value is not None and value not in ((), [])


def figure(value: float | None) -> str:
    """A number with four significant digits, or a dash."""
    if value is None or value != value:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def interval(low: float | None, high: float | None) -> str:
    """Both ends in brackets, or that it is open."""
    return "open" if low is None or high is None else f"[{figure(low)}, {figure(high)}]"
