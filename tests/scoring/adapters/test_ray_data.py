"""Files scored by real workers of Ray: the same answers in the same order."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from delivery import NOW, build
from mainspring.clock import DAY
from mainspring.errors import DeclarationError, MissingExtraError
from mainspring.scoring.job import score_file


def questions(path: Path, rows: int) -> Path:
    columns = {
        "drive": [f"q{number}" for number in range(rows)],
        "sent_at": [NOW + 2 * DAY] * rows,
        "depot": ["north", "moon"] * (rows // 2),
    }
    pq.write_table(pa.table({**columns, "km": np.linspace(1, 40, rows)}), path)
    return path


def test_without_ray_the_mend_is_told_and_another_address_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, source = build(tmp_path / "space"), questions(tmp_path / "in.parquet", 10)
    with pytest.raises(DeclarationError, match="is no address of Ray"):
        score_file(space, source, tmp_path / "out.parquet", over="dask")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mainspring\[ray\]'"):
        score_file(space, source, tmp_path / "out.parquet", over="ray")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_over_ray_the_file_is_the_same(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the long suites install it")
    space, source = build(tmp_path / "space"), questions(tmp_path / "in.parquet", 400)
    here = score_file(space, source, tmp_path / "here.parquet", rows=50)
    there = score_file(space, source, tmp_path / "there.parquet", rows=50, over="ray", workers=1)
    assert (there.answered, there.rejected) == (here.answered, here.rejected) == (200, 200)
    assert pq.read_table(there.out).equals(pq.read_table(here.out))
    assert there.rejects is not None
    assert here.rejects is not None
    assert there.rejects.read_text() == here.rejects.read_text()
