"""Progress on a terminal: one bar a stage, lines that stay for what happened; plain lines where output is no terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

PLAIN_SECONDS = 5.0


class Bars:
    """A `mainspring.loop.progress.Progress` on standard error."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet)
        columns = (TextColumn("{task.description:<24}"), BarColumn(30), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn())
        self._bars = Progress(*columns, TextColumn("{task.fields[note]}"), console=self._console, disable=not self._console.is_terminal)
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}
        self._printed: dict[str, float] = {}

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.stop()

    def step(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Move a stage's bar; a stage that begins again gets a bar of its own."""
        if stage not in self._tasks or (done == 0 and self._bars.tasks and self._finished(stage)):
            self._tasks[stage] = self._bars.add_task(stage, total=total, note=note)
            self._started[stage] = time.monotonic()
        self._bars.update(self._tasks[stage], completed=done, total=total, note=note)
        if not self._console.is_terminal:
            self._plain(stage, done, total, note)

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def _finished(self, stage: str) -> bool:
        task = next((task for task in self._bars.tasks if task.id == self._tasks[stage]), None)
        return task is not None and task.finished

    def _plain(self, stage: str, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        if done < total and now - self._printed.get(stage, 0.0) < PLAIN_SECONDS:
            return
        self._printed[stage] = now
        took = f"{now - self._started[stage]:6.1f} s" if done >= total else f"{100 * done // max(total, 1):>3} %"
        self._console.print(f"{stage:<24} {took}  {note}", highlight=False, soft_wrap=True)
