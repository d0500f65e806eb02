"""A version as a folder with one page, which answers in the browser by ONNX Runtime Web."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mainspring.edge.document import functions_of, predictors
from mainspring.edge.held import Held, held
from mainspring.edge.javascript import javascript
from mainspring.edge.samples import Sample, samples
from mainspring.errors import ExportError
from mainspring.models.export import to_onnx
from mainspring.models.tabular import TabularModel
from mainspring.spec import System
from mainspring.training.dataset import Dataset

TOLERANCE = 1e-6
RUNTIME = "onnxruntime-web@1.30.0"
_OF_RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
_PAGE = Path(__file__).parent / "page"
_SECONDS = 300


def made(
    system: System, model: TabularModel, written: Mapping[str, Any], rows: Dataset, runtime: Path | None
) -> tuple[dict[str, bytes], Held]:  # fmt: skip
    """The files of the folder, ``index.html`` first, and the figures of answers by the same code and the same runtime in Node.

    Raises:
        ExportError: there is no ONNX form of the model or no JavaScript of a function, an answer is off by more than 1e-6, or Node.js or
            the runtime is not there.
    """
    models = {name: to_onnx(one) for name, one in predictors(model).items() if one is not None}
    encoder = {**written["encoder"], "unknown": -1 if model.kind == "lightgbm" else None}
    told = {**written, "encoder": encoder, "question": system.question, "models": list(models)}
    files = {name: (_PAGE / name).read_bytes() for name in ("index.html", "runtime.mjs")}
    files["functions.mjs"] = javascript(functions_of(system, written)).encode()
    files["model.json"] = json.dumps(told).encode()
    files |= {f"{name}.onnx": data for name, data in models.items()}
    files |= {f"ort/{name}": data for name, data in _runtime(runtime).items()}
    asked = samples(system, model, written, rows)
    answers, seconds = _answers(files, asked)
    return files, held("browser", written["label"], asked, answers, seconds, TOLERANCE)


def _answers(files: Mapping[str, bytes], asked: Sequence[Sample]) -> tuple[list[dict[str, Any]], Any]:
    """What the files answer in Node, and the seconds that each answer took."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file, data in files.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_bytes(data)
        (folder / "samples.json").write_text(json.dumps([{"request": one.request, "given": one.given} for one in asked]))
        _run("node", str(_PAGE / "check.mjs"), name, str(folder / "samples.json"), str(folder / "answers.json"))
        told = json.loads((folder / "answers.json").read_bytes())
    return [one["answer"] for one in told], np.array([one["seconds"] for one in told])


def _runtime(folder: Path | None) -> dict[str, bytes]:
    """The files of ONNX Runtime Web, from a folder or by npm."""
    if folder is not None:
        places = [place for place in (folder, folder / "dist") if all((place / name).is_file() for name in _OF_RUNTIME)]
        if not places:
            raise ExportError(f"{folder} does not hold {', '.join(_OF_RUNTIME)}. Name the folder of the npm package {RUNTIME}.")
        return {name: (places[0] / name).read_bytes() for name in _OF_RUNTIME}
    with TemporaryDirectory() as name:
        _run("npm", "pack", RUNTIME, "--silent", "--pack-destination", name)
        (packed,) = Path(name).glob("*.tgz")
        with tarfile.open(packed) as archive:
            members = {file: archive.extractfile(f"package/dist/{file}") for file in _OF_RUNTIME}
            return {file: member.read() for file, member in members.items() if member is not None}


def _run(*command: str) -> None:
    if shutil.which(command[0]) is None:
        raise ExportError(
            f"Target browser: '{command[0]}' is not installed. Node.js fetches ONNX Runtime Web and holds the page's answers against the "
            "service's: install Node.js 20 or later, and on a machine without a network name the package's folder with --runtime."
        )
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        raise ExportError(f"Target browser: '{' '.join(command[:2])}' failed: {(done.stderr or done.stdout).strip()[-500:]}")
