"""``mainspring export``: a version as a file that answers without the server."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

TARGETS = ("python", "onnx", "browser")


@click.command()
@click.argument("system")
@click.argument("which", default="champion")
@click.option("--target", type=click.Choice(TARGETS), default="onnx", show_default=True, help="The form.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="The folder to write into.")
@click.option("--given", multiple=True, help="A feature function that is not written into the file: the caller gives its value.")
@click.option("--runtime", type=click.Path(path_type=Path, exists=True, file_okay=False), default=None,
              help="browser: a folder with the package onnxruntime-web; without it, npm fetches one.")  # fmt: skip
@click.option("--decide-at", type=float, multiple=True, help="onnx: a threshold of decisions, on both sides of which rows must stay.")
@click.option(
    "--workspace", type=click.Path(path_type=Path), default=None, help="Folder of the run; the newest of the system under mainspring-work/."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def export(
    system: str, which: str, target: str, out: Path, given: tuple[str, ...], runtime: Path | None, decide_at: tuple[float, ...],
    workspace: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Write the version WHICH, by default the champion, so that it answers without the server.

    \b
    python   one file SYSTEM.py that needs NumPy alone: request in, answer out
    onnx     the model as SYSTEM.onnx for any runtime of ONNX, and SYSTEM.json with all around it
    browser  a folder with a page that answers in the browser, by ONNX Runtime Web

    What is written was compared with the version on rows of its data set, on thresholds and with missing values; one that answers
    otherwise is not written. Aggregates of past facts are given by the caller with each request, or have their declared defaults.

    \b
    Example:
      mainspring export eta --target onnx --out exported
      mainspring export eta 3 --target python --out exported --given local_clock --given holiday --json
    """
    from mainspring.cli.models import opened
    from mainspring.cli.progress import Bars
    from mainspring.edge.exporting import COMPARED_ROWS, as_files, embed, write
    from mainspring.serving.versions import load_system
    from mainspring.storage.tables import Tables
    from mainspring.storage.workspace import Workspace
    from mainspring.training.exporting import export as to_onnx

    with opened(system, workspace) as (registry, folder), Bars(quiet=as_json) as bars:
        declared, tables = load_system(registry, system), Tables(Workspace(folder).tables)
        version = registry.resolve(system, which)

        def step(at: int, of: int) -> None:
            bars.step("data set", at, of)

        if target == "onnx":
            exported = to_onnx(declared, registry, tables, version, decide_at=decide_at, progress=step)
            files, lines = as_files(registry, declared, version, exported, given), exported.parity.lines()
            told: dict[str, Any] = {"version": version.id, "kind": exported.kind, "columns": exported.columns}
            told |= {"parity": asdict(exported.parity)["parts"], "p50_us": exported.p50, "p99_us": exported.p99}
        else:
            done = embed(declared, registry, tables, version, target, given=given, runtime=runtime, progress=step)
            files, lines = done.files, [f"{done.held.rows} answers compared, {COMPARED_ROWS} of them to rows of the data set: "
                                        f"difference at most {done.held.difference:.3g}"]  # fmt: skip
            told = {"version": version.id, "given": done.given, "rows": done.held.rows, "difference": done.held.difference}
            told |= {"p50_us": done.held.p50, "p99_us": done.held.p99}
    write(out, files)
    entry, size = out / next(iter(files)), sum(map(len, files.values()))
    if as_json:
        click.echo(json.dumps({**told, "target": target, "entry": str(entry), "bytes": size, "files": sorted(files)}))
        return
    click.echo("\n".join([*lines, f"An answer takes {told['p50_us']:.0f} us (p50), {told['p99_us']:.0f} us (p99) here."]))
    click.echo(f"Wrote {entry}: {version.id} for {target}, {size / 1e6:.2f} MB in {len(files)} files.")
    click.echo(_next(target, system, entry))


def _next(target: str, system: str, entry: Path) -> str:
    if target == "python":
        return f"Next: import {entry.stem}; {entry.stem}.answer(request, given), or lines of JSON to: python {entry}"
    if target == "browser":
        return f"Next: python -m http.server --directory {entry.parent}"
    return f"Any runtime of ONNX reads it. Next: mainspring models show {system}"
