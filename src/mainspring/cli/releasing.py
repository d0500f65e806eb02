"""The verb ``rollout``: what was decided about a system's versions, and the same decisions by hand."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mainspring.cli.models import decision_line, json_option, now, operator, reason_option, workspace_option

if TYPE_CHECKING:
    from mainspring.model_registry import Registry


@click.command()
@click.argument("system")
@workspace_option
@click.option("--at", default=None, help="What was live at this instant (ISO 8601, UTC), instead of the whole history.")
@click.option(
    "--shadow", default=None, help="Let this version score every request unseen, beside the champion; the loop goes on from there."
)
@click.option("--promote", default=None, help="Make this version the champion: the challenger, or the first version ever.")
@click.option(
    "--despite", default=None, help="With --shadow or --promote of a version that the gate refused: why it is released all the same."
)
@click.option("--back", is_flag=True, help="Roll back: drop the challenger, or where there is none put the previous champion back.")
@click.option("--to", default=None, help="With --back: the earlier champion to put back, an id, a number or an alias.")
@reason_option
@json_option
def rollout(
    system: str, workspace: Path | None, at: str | None, shadow: str | None, promote: str | None, despite: str | None, back: bool,
    to: str | None, reason: str, as_json: bool,
) -> None:  # fmt: skip
    """Show every decision about a system's versions, or what was live at an instant; or put in shadow, promote or roll back by hand.

    A version that the gate refused, as one that lost too much when it was made smaller, is released only with --despite and a reason,
    which stays on the record.

    \b
    Example:
      mainspring rollout eta
      mainspring rollout eta --at 2013-11-16T12:00:00Z
      mainspring rollout eta --shadow 4 --reason "half the size"
      mainspring rollout eta --promote 4 --despite "the bound was for the old fleet"
      mainspring rollout eta --back --to 2 --reason "complaints from the north"
    """
    from mainspring.cli.systems import newest_workspace, open_registry

    _check(at, shadow, promote, despite, back, to)
    with open_registry(workspace or newest_workspace(system)) as registry:
        if at is not None:
            state = asdict(registry.deployment(system, instant(at)))
            click.echo(json.dumps(state) if as_json else "\n".join(f"{name:<12} {value}" for name, value in state.items()))
            return
        move = _move(registry, system, shadow, promote, despite, back, to)
        decisions = (
            registry.decisions(system) if move is None else [registry.decide(system, at=now(), by=operator(), reason=reason, **move)]
        )
    for decision in decisions:
        click.echo(json.dumps(asdict(decision)) if as_json else decision_line(decision))


def _check(at: str | None, shadow: str | None, promote: str | None, despite: str | None, back: bool, to: str | None) -> None:
    if sum((at is not None, shadow is not None, promote is not None, back)) > 1:
        raise click.UsageError("Give one of --at, --shadow, --promote and --back.")
    if to is not None and not back:
        raise click.UsageError("--to says what to roll back to: give --back with it.")
    if despite is not None and shadow is None and promote is None:
        raise click.UsageError("--despite says why a version is released: give --shadow or --promote with it.")


def _move(
    registry: Registry, system: str, shadow: str | None, promote: str | None, despite: str | None, back: bool, to: str | None
) -> dict[str, Any] | None:
    """The decision that is asked for, None without one."""
    if back:
        return {"action": "roll_back", "evidence": {} if to is None else {"to": registry.resolve(system, to).id}}
    for action, which in (("shadow", shadow), ("promote", promote)):
        if which is not None:
            evidence = {} if despite is None else {"despite": despite}
            return {"action": action, "version": registry.resolve(system, which).id, "evidence": evidence}
    return None


def instant(text: str) -> int:
    """An instant as an option gives it."""
    from mainspring.clock import parse_instant

    try:
        return parse_instant(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not an ISO 8601 date and time, for example 2013-11-16T12:00:00Z.") from error
