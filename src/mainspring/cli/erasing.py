"""The ``erase`` verb."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.errors import StorageError

if TYPE_CHECKING:
    from mainspring.loop.receipt import Receipt


def erase_key(system: str, key: str, workspace: Path | None, *, as_json: bool) -> bool:
    """Erase ``COLUMN=VALUE`` and print the receipt; whether nothing is left.

    Raises:
        StorageError: the workspace holds no events.
    """
    from mainspring.cli import systems
    from mainspring.clock import SystemClock
    from mainspring.loop.erase import erase
    from mainspring.storage.workspace import Workspace

    column, separator, value = key.partition("=")
    if not separator or not column or not value:
        raise click.BadParameter("write COLUMN=VALUE, for example vehicle=N713TW.", param_hint="--key")
    declared = systems.find_system(system).system
    space = Workspace(workspace or systems.newest_workspace(system))
    if not space.events.is_dir():
        raise StorageError(f"{space.path} is not a workspace: it holds no events. Name the folder of a run with --workspace.")
    receipt = erase(declared, space, column, value, SystemClock(), lambda place: click.echo(f"erasing: {place}", err=True))
    if as_json:
        click.echo(receipt.path.read_text())
    else:
        _print(receipt, system)
    return receipt.complete


def _print(receipt: Receipt, system: str) -> None:
    click.echo(f"{'place':<44} {'removed':>9} {'left':>9}")
    for place in receipt.places:
        click.echo(f"{place.name:<44} {place.removed:>9,} {place.left:>9,}")
    for model in receipt.models:
        inside = ", and holds the value as a category" if model["holds_value"] else ""
        click.echo(f"{model['model']} was trained on it and stands: retrain (data set {model['dataset_hash'][:16]}{inside})")
    click.echo(f"Wrote {receipt.path}, SHA-256 {receipt.hash}")
    if not receipt.complete:
        click.echo("Something is left: stop the servers of this workspace and erase again.")
    elif receipt.models:
        click.echo(
            f"Next: erase it from what you ingest from as well, then train and promote a version without it: mainspring run {system}"
        )
    else:
        click.echo(f"Next: mainspring verify {system}")
