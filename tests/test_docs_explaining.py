"""The page on explaining holds to the code: its example runs, and its tables name what there is."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from mainspring.cli.models import models
from mainspring.evaluation.explain import changes, counterfactuals, dependence, importance
from mainspring.spec.model import INTERVALS, SETS

PAGE = (Path(__file__).parent.parent / "docs" / "explaining.md").read_text()


def rows(title: str) -> list[list[str]]:
    text = PAGE.split(f"## {title}", 1)[1].split("\n## ", 1)[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")][2:]


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)", cell)


def test_the_worked_example_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 5
    exec(compile("\n".join(blocks), "docs/explaining.md", "exec"), {"__name__": "page"})


def test_every_answer_is_a_function() -> None:
    for _, cell, _ in rows("What each answers"):
        for name in names(cell):
            assert any(hasattr(module, name) for module in (importance, dependence, counterfactuals)), name


def test_every_constraint_is_there_and_no_other() -> None:
    assert [name for cell, _ in rows("Constraints") for name in names(cell)] == [
        one.name for one in dataclasses.fields(changes.Constraints)
    ]


def test_every_kind_of_interval_and_set_is_there_and_no_other() -> None:
    declared = re.findall(r'_by="(\w+)"', "".join(cell for cell, *_ in rows("Intervals and sets")))
    assert declared == [*INTERVALS, *SETS]


def test_every_command_exists() -> None:
    assert set(re.findall(r"mainspring models (\w+)", PAGE)) == {"explain", "counterfactual"} <= set(models.commands)
