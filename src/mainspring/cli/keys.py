"""``mainspring keys``: API keys for the clients of a gateway."""

from __future__ import annotations

import json
import re

import click

from mainspring.clock import format_instant, parse_duration
from mainspring.errors import DeclarationError


@click.group()
def keys() -> None:
    """API keys of the gateway's clients.

    \b
    Example:
      mainspring keys new --client checkout --roles fraud:answer,fraud:events
    """


@keys.command("new")
@click.option("--client", required=True, help="Who will hold it; the name in limits, logs and metrics.")
@click.option(
    "--roles",
    required=True,
    help="What it may do: SYSTEM:VERB with commas between; verbs answer, events, explain, describe, metrics, admin.",
)
@click.option("--expires", default=None, help="How long it is good for, such as 90d; for ever without it.")
@click.option("--priority", type=click.Choice(["critical", "default", "sheddable"]), default="default", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def new(client: str, roles: str, expires: str | None, priority: str, as_json: bool) -> None:
    """Make a key. It is shown once; what goes into the settings holds only its SHA-256.

    \b
    Example:
      mainspring keys new --client checkout --roles fraud:answer,fraud:events --expires 90d
    """
    from mainspring.clock import SystemClock
    from mainspring.gateway.door.access import new_key
    from mainspring.gateway.settings import NAME, ROLE

    wanted = roles.split(",")
    for role in wanted:
        if not re.fullmatch(ROLE, role):
            raise DeclarationError(
                f"Key of '{client}', --roles: '{role}' is no role. Write SYSTEM:VERB, for example fraud:answer or '*:metrics'."
            )
    if not re.fullmatch(NAME, client):
        raise DeclarationError(f"Key of '{client}', --client: write letters, digits and . _ @ : - only, 128 at most.")
    made = new_key(client, wanted)
    row = {"id": made.key.id, "client": client, "sha256": made.key.sha256, "roles": wanted, "priority": priority}
    if expires is not None:
        row["expires"] = format_instant(SystemClock().now() + parse_duration(expires))
    if as_json:
        click.echo(json.dumps({"secret": made.secret, "key": row}))
        return
    click.echo(f"The key, shown this once: {made.secret}\n\nFor the file of the settings:\n\n[[access.keys]]")
    for name, value in row.items():
        click.echo(f"{name} = {json.dumps(value)}")
    click.echo("\nNext: mainspring serve SYSTEM --settings FILE")
