"""When to retrain: on schedule, or when a monitor that may ask for it alarms; never twice within the cool-down."""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.clock import format_instant, parse_duration
from mainspring.model_registry.deployment import Decision
from mainspring.monitoring.reading import Reading
from mainspring.spec import System

RETRAIN = "retrain"


def due(system: System, decisions: Sequence[Decision], alarms: Sequence[Reading], now: int) -> str | None:
    """Why a retraining is due at ``now``, or None. ``alarms`` are the readings that alarmed at this look."""
    last = max((decision.at for decision in decisions if decision.action == RETRAIN), default=None)
    cooldown = parse_duration(system.rollout.cooldown) if system.rollout is not None else 0
    if last is not None and now - last < cooldown:
        return None
    asking = {monitor.watch for monitor in system.monitors if monitor.retrain}
    for reading in alarms:
        if reading.monitor in asking:
            return described(reading)
    every = system.model.retrain_every_us
    if every is not None and last is not None and now - last >= every:
        return f"schedule: every {system.model.retrain_every}, last on {format_instant(last)[:10]}"
    return None


def described(reading: Reading) -> str:
    """A reading in words: ``drift: departure_delay 0.31 above 0.12``."""
    threshold = "" if reading.threshold is None else f" above {reading.threshold:.3g}"
    note = f" ({reading.note})" if reading.note else ""
    return f"{reading.monitor}: {reading.name} {reading.value:.3g}{threshold}{note}"
