"""Training beside what it is made of: fits beside LightGBM's own, tracking beside SQLite and MLflow, the registry on both databases."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from harness import write
from registry_bars import registry_bars
from tracking_bars import tracking_bars
from training_bars import training_bars


def main() -> int:
    """All of them, in one table."""
    bars = training_bars()
    with tempfile.TemporaryDirectory() as scratch:
        for part in (tracking_bars, registry_bars):
            folder = Path(scratch) / part.__name__
            folder.mkdir()
            bars += part(folder)
    return write("training", bars)


if __name__ == "__main__":
    sys.exit(main())
