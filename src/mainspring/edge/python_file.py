"""A version as one Python file, which answers with NumPy alone."""

from __future__ import annotations

import base64
import inspect
import json
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mainspring.edge import runtime
from mainspring.edge.held import Held, held
from mainspring.edge.loading import loaded
from mainspring.edge.samples import Sample
from mainspring.edge.sources import sources
from mainspring.errors import ExportError
from mainspring.models.adapters.ensembles import ensemble_of
from mainspring.models.linear import Linear
from mainspring.models.parity import Probes, Tolerance, compared
from mainspring.models.protocol import Floats, Predictor
from mainspring.spec import Function

XGBOOST_LINK = 1.2e-7
"""One unit in the last place of a float32: the logistic of XGBoost is its C library's."""
_WIDTH = 130


def python_file(written: Mapping[str, Any], functions: Sequence[Function], about: str) -> str:
    """The text of a file that answers as ``written`` says: ``answer(request, given)``, or lines of JSON on standard input.

    Raises:
        ExportError: a function cannot be written into it.
    """
    packed = base64.b85encode(zlib.compress(json.dumps(written, separators=(",", ":")).encode(), 9)).decode()
    lines = "\n".join(f'    "{packed[at : at + _WIDTH]}"' for at in range(0, len(packed), _WIDTH))
    table = ", ".join(f'"{one.name}": _f_{one.name}' for one in functions)
    head, _, body = inspect.getsource(runtime).partition("from __future__ import annotations\n")
    return f'''"""{about}

{head.strip().strip('"').partition(chr(10))[0]}
"""

from __future__ import annotations

import base64
import json
import sys
import zlib
{body.lstrip()}

{sources(functions)}


_DOCUMENT = (
{lines}
)
MODEL = Embedded(json.loads(zlib.decompress(base64.b85decode(_DOCUMENT))), {{{table}}})
answer = MODEL.answer


if __name__ == "__main__":
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(answer(asked["request"], asked.get("given"))), flush=True)
'''


def hold(text: str, label: str, asked: Sequence[Sample], predictor: Predictor, x: Floats, tolerance: float) -> Held:
    """The figures of the file, loaded from disk, on ``asked``; of its predictor on encoded rows ``x`` on thresholds and beside them, too.

    Raises:
        ExportError: an answer is further off than ``tolerance``.
    """
    with TemporaryDirectory() as folder:
        file = Path(folder) / "exported.py"
        file.write_text(text)
        module = loaded(file)
    edges = compared(predictor.predict, module.MODEL.predictor.predict, x, _probes(predictor))
    if not edges.within(Tolerance(tolerance)):
        raise ExportError("\n".join(["Target python: the file answers otherwise than the model:", *edges.lines()]))
    answers, seconds = [], np.empty(len(asked))
    for row, sample in enumerate(asked):
        begin = time.perf_counter()
        try:
            answers.append(module.answer(sample.request, sample.given))
        except module.RequestError as error:
            answers.append({"answered_by": str(error)})
        seconds[row] = time.perf_counter() - begin
    return held("python", label, asked, answers, seconds, tolerance)


def tolerance_of(table: Mapping[str, Any]) -> float:
    """How far the file may be: not at all, but for the logistic of XGBoost."""
    return XGBOOST_LINK if table.get("dtype") == "float32" and table["link"] == "logistic" else 0.0


def _probes(predictor: Predictor) -> Probes:
    ensemble = ensemble_of(predictor)
    codes = predictor.design.codes.tolist() if isinstance(predictor, Linear) else []
    return Probes(categories={place: count for place, count in enumerate(codes) if count}) if ensemble is None else ensemble.probes()
