"""The documentation holds to the code: public names, verbs, errors, metrics, links, and what it must not speak of."""

from __future__ import annotations

import inspect
import re
import subprocess
from pathlib import Path

import pytest

import mainspring
from mainspring import errors
from mainspring.cli import main
from mainspring.feature_store.stream import StreamProgress
from mainspring.feature_store.workers import WorkerState
from mainspring.gateway import metrics
from mainspring.spec.aggregate import KINDS

ROOT = Path(__file__).parent.parent
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "src").rglob("*.md")]


def section(title: str) -> str:
    return REFERENCE.split(f"## {title}", 1)[1].split("\n## ", 1)[0]


def first_cells(text: str) -> set[str]:
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_public_name_is_in_the_reference_and_no_other() -> None:
    assert first_cells(section("Declaring")) == set(mainspring.__all__)


def test_every_aggregation_is_in_the_reference_and_no_other() -> None:
    named = first_cells(section('Aggregates of a view: `source.per("key")`'))
    assert {name.split("(")[0] for name in named} - {""} == set(KINDS)


def test_every_verb_is_in_the_reference_and_no_other() -> None:
    assert first_cells(section("Running")) == set(main.commands)


def test_every_error_is_in_the_reference_with_its_exit_code() -> None:
    rows = dict(re.findall(r"\| `(\w+)` \| (\d+) \|", section("Errors")))
    tree = {name: one.exit_code for name, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, errors.MainspringError)}
    assert {name: int(code) for name, code in rows.items()} == tree


def test_every_metric_is_in_the_reference() -> None:
    worker = WorkerState(0, None, 0, StreamProgress(lag=0, newest_known=0))
    text = metrics.Metrics().text() + metrics.stream_text([worker], 0)
    for name in set(re.findall(r"# TYPE (\w+)", text)):
        assert f"`{name}`" in REFERENCE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_verbs_named_in_pages_exist(page: Path) -> None:
    named = set(re.findall(r"mainspring (run|[a-z]+) (?:eta|SYSTEM)\b", page.read_text()))
    assert named <= set(main.commands)


def test_every_room_stands_on_a_floor() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    rooms = {path.stem for path in (ROOT / "src" / "mainspring").iterdir() if path.suffix in ("", ".py") and not path.stem.startswith("__")}
    floors = text.split("layers = [", 1)[1].split("]", 1)[0]
    assert rooms == {room for line in re.findall(r'"([^"]+)"', floors) for room in line.split(" | ")}


def test_files_hold_no_path_of_one_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.split():
        text = (ROOT / name).read_text(errors="ignore")
        assert not re.search(r"(?<![\w.])/(work|root|home)/\w", text), name
