"""The page on evaluation holds to the code: its example runs, and its tables name what there is."""

from __future__ import annotations

import re
from pathlib import Path

from mainspring import metrics
from mainspring.metrics import METRICS
from mainspring.spec import splits

PAGE = (Path(__file__).parent.parent / "docs" / "evaluation.md").read_text()


def rows(title: str) -> list[list[str]]:
    text = PAGE.split(f"## {title}", 1)[1].split("\n## ", 1)[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")][2:]


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)", cell)


def test_the_worked_example_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 6
    exec(compile("\n".join(blocks), "docs/evaluation.md", "exec"), {})


def test_every_measure_is_on_the_page_with_its_direction_and_no_other() -> None:
    assert {name: better for cell, better, _ in rows("Measures") for name in names(cell)} == {
        metric.name: metric.better for metric in METRICS.values()
    }


def test_every_split_and_every_answer_is_there() -> None:
    assert [name for cell, *_ in rows("Splits") for name in names(cell)] == [kind.__name__ for kind in splits.Split.__args__]
    for _, cell, _ in rows("How sure"):
        for name in names(cell):
            assert name in metrics.__all__ or name == "method"
