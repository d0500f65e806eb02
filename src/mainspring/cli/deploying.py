"""Writing what runs a system elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring import __version__
from mainspring.errors import DeclarationError

if TYPE_CHECKING:
    from mainspring.design.kubernetes import Addresses
    from mainspring.storage.workspace import Workspace


@click.command()
@click.argument("system")
@click.option(
    "--target", type=click.Choice(["nginx", "kubernetes", "ray"]), required=True, help="A reverse proxy, manifests, or Ray Serve."
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=None, help="Folder to write to; SYSTEM-TARGET without it.")
@click.option("--workspace", type=click.Path(path_type=Path), default=None, help="Folder of a run: its report's rate, its addresses.")
@click.option(
    "--workers", type=click.IntRange(1), default=2, show_default=True, help="Processes of a replica that answer; on Ray it is one."
)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), default=None, help="Measured requests/s of a worker.")
@click.option("--replica", "replicas", multiple=True, help="nginx: address of a replica, HOST:PORT; may be given again.")
@click.option("--listen", default="8080", show_default=True, help="nginx: port, or address with one.")
@click.option("--events", default=None, help="kubernetes: address of the event log.")
@click.option("--online", default=None, help="kubernetes: address of the online store.")
@click.option("--registry", default=None, help="kubernetes: address of the registry.")
@click.option("--image", default=f"mainspring:{__version__}", show_default=True, help="kubernetes: container image with the system in it.")
@click.option("--gateway", default="gateway", show_default=True, help="kubernetes: the Gateway that the route hangs on.")
@click.option("--settings", type=click.Path(path_type=Path), default=None, help="ray: TOML file of the gateway's settings.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def deploy(
    system: str,
    target: str,
    out: Path | None,
    workspace: Path | None,
    workers: int,
    rate: float | None,
    replicas: tuple[str, ...],
    listen: str,
    events: str | None,
    online: str | None,
    registry: str | None,
    image: str,
    gateway: str,
    settings: Path | None,
    as_json: bool,
) -> None:
    """Write what runs a system on other machines, sized by its requirements. Nothing is applied.

    \b
    Example:
      mainspring deploy eta --target nginx --replica 10.0.0.5:8000 --replica 10.0.0.6:8000
      mainspring deploy eta --target kubernetes --rate 2000 --events redis://events:6379/0#eta --online redis://online:6379/0#eta \\
          --registry "postgresql://db/registry"
      mainspring deploy eta --target ray --workspace mainspring-work/eta
    """
    from mainspring.cli.systems import find_system
    from mainspring.design import kubernetes, nginx, ray_serve
    from mainspring.design.sizing import Sizing, measured_rate
    from mainspring.storage.workspace import Workspace

    declared = find_system(system).system
    space = None if workspace is None else Workspace(workspace)
    known = rate if rate is not None or space is None else measured_rate(space)
    sizing = Sizing.of(declared, 1 if target == "ray" else workers, known)
    if target == "nginx":
        if not replicas:
            raise click.UsageError("nginx needs to know where replicas listen: give --replica HOST:PORT for each.")
        files = {"nginx.conf": nginx.configuration(declared, replicas, sizing, listen)}
    elif target == "ray":
        if space is None:
            raise click.UsageError("Ray needs to know what to serve: give --workspace, a folder that every node has.")
        files = {"serve.yaml": kubernetes.yaml(ray_serve.configuration(declared, space.path, sizing, settings))}
    else:
        addresses = _addresses(space, events, online, registry)
        made = kubernetes.manifests(declared, sizing, addresses, image=image, gateway=gateway)
        files = {f"{name}.yaml": kubernetes.yaml(manifest) for name, manifest in made.items()}
    folder = out or Path(f"{system}-{target}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "files": sorted(files), "replicas": sizing.replicas, "rate": known}))
        return
    click.echo(f"Wrote {', '.join(sorted(files))} to {folder}/.")
    if target == "nginx":
        click.echo(f"Next: nginx -p {folder} -c nginx.conf")
        return
    sized = "the least, for no rate is known: give --rate" if known is None else f"for {known:,.0f} requests/s a worker"
    then = f"kubectl apply -f {folder}/" if target == "kubernetes" else f"serve run {folder / 'serve.yaml'}"
    click.echo(f"{sizing.replicas} replicas of {sizing.workers} workers, {sized}. Next: {then}")


def _addresses(space: Workspace | None, events: str | None, online: str | None, registry: str | None) -> Addresses:
    """The addresses given, else those that the workspace keeps.

    Raises:
        DeclarationError: one is missing, or names what only one machine can reach.
    """
    from mainspring.design.kubernetes import Addresses

    kept = (None, None, None) if space is None else (space.events_url, space.online_url, space.registry_url)
    chosen = [given or held for given, held in zip((events, online, registry), kept, strict=True)]
    for option, address in zip(("--events", "--online", "--registry"), chosen, strict=True):
        if address is None or address.startswith(("lmdb:", "file:")) or "://" not in address:
            where = "is not known" if address is None else f"is {address}, which one machine alone can reach"
            raise DeclarationError(f"Deploying to Kubernetes: the address of {option[2:]} {where}. Give a server's with {option}.")
    return Addresses(*[address for address in chosen if address is not None])
