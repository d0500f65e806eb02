"""What each way of making a model smaller brings and costs: a net and boosted trees on card fraud, an image net on handwritten digits.

Fraud is four weeks from the published test week of `fraud_weeks` on (one week has too few frauds to tell a loss of 0.02), the loss is in
average precision with intervals over customers; digits are those that come with scikit-learn, the loss is in accuracy. Sizes are of a
model's own files; times are of one row with its encoding, on one thread. A row through PyTorch costs a block of 64, so that its bits do
not hang on its neighbours: what onnxruntime alone brings stands beside.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from fraud_weeks import TEST, Weeks
from harness import QUICK, Bar, write
from rich.console import Console
from rich.table import Table as Printed
from sklearn.datasets import load_digits

import mainspring as ms
from mainspring.models.adapters.nets.fitting import Schedule
from mainspring.models.adapters.nets.pruning import pruned_images
from mainspring.models.adapters.nets.runtime import torch
from mainspring.models.adapters.nets.vision import Cnn, ImageLearner, ImagePredictor
from mainspring.models.distillation import lesson
from mainspring.models.export import How, load_onnx, quantize, to_onnx
from mainspring.models.protocol import Floats, Rows
from mainspring.models.pruning import Prune
from mainspring.models.tabular import TabularModel
from mainspring.training.compression import Bound, Distil, Quantize, Side, Step, Table, side_by_side
from mainspring.training.compression.measure import str_of
from mainspring.training.compression.steps import Material, applied
from mainspring.training.examples import Examples
from mainspring.training.fitting import fit_model

SMALLER, JUDGED_WEEKS = 3.7, 4
FRAUD, DIGITS = Bound("average_precision", 0.02), Bound("multiclass_accuracy", 0.02)
EPOCHS, DRAWS, TIMED = (3, 50, 200) if QUICK else (20, 300, 1_000)
FINE = Prune(epochs=1) if QUICK else Prune()
NET = ms.Net(objective="binary", hidden=(256, 256), epochs=EPOCHS)
TREES = ms.LightGBM(objective="binary", trees=300, leaves=31)
SMALL_NET = ms.Net(objective="binary", hidden=(64, 32), epochs=2 * EPOCHS, learning_rate=2e-2)
"""Epochs and rate are those of five that the payments held out of the training week liked best."""
SMALL_TREES = ms.LightGBM(objective="binary", trees=100, leaves=15)
OF_NET: Mapping[str, Step | None] = {
    "as ONNX, no smaller": None,
    "INT8 dynamic": Quantize("dynamic"),
    "INT8 static": Quantize("static"),
    "half of the weights pruned": FINE,
    "half of the neurons pruned": replace(FINE, structured=True),
    "distilled into 64-32": Distil(SMALL_NET),
}
OF_TREES: Mapping[str, Step | None] = {"half of the trees pruned": Prune(0.5), "distilled into 100 x 15 leaves": Distil(SMALL_TREES)}
CNN = ImageLearner(Cnn(width=2.0), schedule=Schedule(epochs=3 if QUICK else 12, batch=64, learning_rate=5e-3))
SMALL_CNN = ImageLearner(Cnn(width=0.5), schedule=CNN.schedule)


@dataclass(frozen=True)
class Judged:
    """A way of one model, measured beside it."""

    model: str
    way: str
    table: Table
    quantized: bool

    @property
    def bars(self) -> list[Bar]:
        """How much smaller, and the upper end of what is lost."""
        loss, name = self.table.loss, f"{self.model}, {self.way}"
        low, high = (float("inf") if end is None else end for end in (loss.low, loss.high))
        size = Bar(
            f"{name}: times smaller", self.table.smaller, "", (self.table.smaller,) * 2, bar=SMALLER if self.quantized else None, above=True
        )
        return [size, Bar(f"  {loss.metric} lost, at most", high, "", (low, high), bar=loss.most)]


def fraud(weeks: Weeks) -> list[Judged]:
    """The net and the trees on the fraud weeks; every seventh payment of the training week decides when the net has learned enough."""
    rows, judge = weeks.train(TEST), weeks.judge(TEST, JUDGED_WEEKS)
    late = np.arange(len(rows)) % 7 == 0
    asked, customers = _examples(judge), weeks.customers(TEST, JUDGED_WEEKS)
    judged = []
    for name, spec, ways in (("net 256-256", NET, OF_NET), ("300 trees", TREES, OF_TREES)):
        learned, held_out = (_examples(Rows(rows.x[side], rows.y[side])) for side in (~late, late))
        model = fit_model(spec, list(asked.columns), learned, held_out, threads=1)
        for way, step in ways.items():
            print(f"{name}: {way}", file=sys.stderr)
            smaller = applied(step, model, Material(spec, learned, held_out, {}))[0] if step else _exported(model)
            sides = [_tabular(one, asked) for one in (model, smaller)]
            table = side_by_side(sides[0], sides[1], asked.label, FRAUD, rows=TIMED, blocks=customers, draws=DRAWS)
            judged.append(Judged(name, way, table, isinstance(step, Quantize)))
    return judged


def digits() -> list[Judged]:
    """The image net, each way on the same digits."""
    pixels, kinds = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(pixels))
    images, y = (pixels[order].reshape(-1, 8, 8, 1) * 15).astype(np.uint8), kinds[order].astype(np.float64)
    learned, asked = slice(0, 1_000), slice(1_000, None)
    net = CNN.fit(images[learned], y[learned], weight=None, held_out=None, seed=0, threads=1)
    ways: Mapping[str, Callable[[], Any]] = {
        "as ONNX, no smaller": lambda: load_onnx(to_onnx(net)),
        "INT8 dynamic": lambda: _int8(net, "dynamic", None),
        "INT8 static": lambda: _int8(net, "static", images[learned]),
        "half of the weights pruned": lambda: pruned_images(net, CNN, FINE, images[learned], y[learned]),
        "half of the channels pruned": lambda: pruned_images(net, CNN, replace(FINE, structured=True), images[learned], y[learned]),
        "distilled into a small net": lambda: _student(net, images[learned], y[learned]),
    }
    judged = []
    for way, make in ways.items():
        print(f"image net: {way}", file=sys.stderr)
        sides = [_seeing(one, images[asked]) for one in (net, make())]
        table = side_by_side(sides[0], sides[1], y[asked], DIGITS, rows=TIMED // 5, draws=DRAWS)
        judged.append(Judged("image net", way, table, way.startswith("INT8")))
    return judged


def _student(net: ImagePredictor, images: npt.NDArray[np.uint8], y: Floats) -> ImagePredictor:
    told = lesson("multiclass", net.predict(images), y)
    return SMALL_CNN.fit(images[told.row], told.y, weight=told.weight, held_out=None, seed=0, threads=1)


def _int8(net: ImagePredictor, how: How, images: npt.NDArray[np.uint8] | None) -> Any:
    return load_onnx(quantize(to_onnx(net), how, calibration=images))


def _exported(model: TabularModel) -> TabularModel:
    return replace(model, kind="onnx", settings={}, predictor=load_onnx(to_onnx(model.predictor), model.encoder.names))


def _examples(rows: Rows) -> Examples:
    return Examples({f"c{number:02d}": column for number, column in enumerate(rows.x.T)}, rows.y)


def _tabular(model: TabularModel, asked: Examples) -> Side:
    rows = list(zip(*(column[:TIMED].tolist() for column in asked.columns.values()), strict=True))
    one_by_one = [[None if value != value else value for value in row] for row in rows]
    size = sum(map(len, model.to_artifacts().values()))
    return Side(size, lambda number: model.predict_row(one_by_one[number]), lambda: model.predict(asked.columns))


def _seeing(predictor: Any, images: npt.NDArray[np.uint8]) -> Side:
    size = sum(map(len, predictor.to_artifacts().values()))
    return Side(size, lambda number: predictor.predict(images[number : number + 1]), lambda: predictor.predict(images))


def show(judged: list[Judged]) -> None:
    """A line for each model and each way."""
    printed = Printed(title="Made smaller", title_justify="left")
    for column in ("model", "way", "KB", "smaller", "p50 us", "p99 us", "faster", "rows/s", "value", "lost", "holds"):
        printed.add_column(column, justify="left" if column in ("model", "way", "lost") else "right")
    for number, one in enumerate(judged):
        before, after = one.table.original, one.table.compressed
        if not number or judged[number - 1].model != one.model:
            row = (f"{before.bytes / 1e3:.1f}", "", f"{before.p50:.0f}", f"{before.p99:.0f}", "", f"{before.rows_per_second:,.0f}")
            printed.add_row(one.model, "original", *row, f"{before.value:.4f}", "", "")
        cells = (f"{after.bytes / 1e3:.1f}", f"{one.table.smaller:.2f} x", f"{after.p50:.0f}", f"{after.p99:.0f}")
        lost = str_of(one.table.loss).split(" on ")[0].removeprefix(f"{one.table.loss.metric} lost ")
        faster, speed, holds = f"{before.p50 / after.p50:.2f} x", f"{after.rows_per_second:,.0f}", "yes" if one.table.loss.holds else "NO"
        printed.add_row("", one.way, *cells, faster, speed, f"{after.value:.4f}", lost, holds)
    Console(width=180).print(printed)


def main() -> int:
    """All ways, and whether what they lose stays below what was declared."""
    torch.set_num_threads(1)
    judged = [*fraud(Weeks(Path(os.environ["MAINSPRING_DATA"]))), *digits()]
    show(judged)
    return write("compression", [bar for one in judged for bar in one.bars])


if __name__ == "__main__":
    sys.exit(main())
