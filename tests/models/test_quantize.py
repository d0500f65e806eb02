"""INT8: how much smaller, how far off, and the same answer alone as among others."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from exported_models import FITS, NAMES, matrix
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from test_torch_vision import LEARNER, images

from mainspring.errors import ExportError
from mainspring.models.adapters.nets.bodies import Mlp
from mainspring.models.adapters.nets.columns import NumberColumn
from mainspring.models.adapters.nets.fitting import Schedule
from mainspring.models.adapters.nets.net import NetLearner
from mainspring.models.adapters.nets.objectives import Task
from mainspring.models.adapters.nets.runtime import torch
from mainspring.models.adapters.onnx import quantize as quantize_module
from mainspring.models.adapters.onnx.columns import KNOTS, curve
from mainspring.models.adapters.onnx.lean import lean
from mainspring.models.adapters.onnx.quantize import CLOSE, _thinned
from mainspring.models.export import annotated, load_onnx, parity, quantize, to_onnx
from mainspring.models.onnx_file import unsealed
from mainspring.models.protocol import Rows


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def wide_rows(n: int, seed: int) -> tuple[Any, Any]:
    """Twelve numbers with tails of different length, 3,000 users and 200 places."""
    rng = np.random.default_rng(seed)
    numbers = np.exp(rng.normal(size=(n, 12)) * np.linspace(0.1, 2, 12))
    x = np.column_stack([numbers, rng.integers(0, 3_000, n), rng.integers(0, 200, n)])
    return x, np.log(x[:, 0]) * 5 + np.sin(np.log(x[:, 1]) * 2) + x[:, 13] % 7 / 3 + rng.normal(0, 0.2, n)


@functools.cache
def wide() -> tuple[Any, bytes]:
    """A net of realistic width: two layers of 256, and two tables."""
    x, y = wide_rows(2_000, 1)
    names = [f"c{number}" for number in range(14)]
    learner = NetLearner(Mlp((256, 256)), (Task("regression"),), Schedule(epochs=3))
    net = learner.fit(Rows(x, y), names=names, categorical=names[12:], held_out=None, seed=0, threads=1)
    return net, to_onnx(net)


@functools.cache
def smaller(how: Any) -> bytes:
    return quantize(wide()[1], how, calibration=wide_rows(500, 1)[0] if how == "static" else None)


@pytest.mark.parametrize("how", ["dynamic", "static"])
def test_a_wide_net_becomes_almost_four_times_smaller_and_hardly_worse(how: str) -> None:
    net, file = wide()
    x, y = wide_rows(1_500, 2)
    small = load_onnx(smaller(how))
    assert len(file) / len(smaller(how)) >= 3.7
    assert sum(map(len, net.to_artifacts().values())) / len(smaller(how)) >= 3.7
    errors = [np.mean((model.predict(x) - y) ** 2) for model in (net, small)]
    assert errors[1] < 1.02 * errors[0]
    assert parity(net, smaller(how), x).parts["given"].rank > 0.999


@pytest.mark.parametrize("how", ["dynamic", "static"])
def test_weights_and_tables_are_bytes_and_nothing_around_them_is_touched(how: str) -> None:
    model = onnx.load_from_string(unsealed(smaller(how)))
    large = [one for one in model.graph.initializer if np.prod(one.dims) > 2_000]
    assert {tuple(one.dims) for one in large} >= {(3_001, 16), (256, 256)}
    assert {one.data_type for one in large} == {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    assert [one.name for one in model.graph.output] == ["prediction", "score"]


def test_what_a_file_says_of_itself_stays() -> None:
    small = quantize(annotated(to_onnx(FITS["mlp"]()), {"model.json": "{}"}), "dynamic")
    assert {one.key: one.value for one in onnx.load_from_string(small).metadata_props}["model.json"] == "{}"
    about = load_onnx(small, NAMES).about  # type: ignore[attr-defined]
    assert (about.made_from, about.outputs, about.apart) == ("net, INT8 dynamic", ("value",), True)


@pytest.mark.parametrize("how", ["dynamic", "static"])
def test_a_quantized_row_alone_is_a_row_among_others_to_the_bit(how: str) -> None:
    small, (x, _) = load_onnx(smaller(how)), wide_rows(150, 3)
    assert np.array_equal(small.predict(x), [small.predict_row(row)[0] for row in x])
    assert np.array_equal(small.predict(x[::-1]), small.predict(x)[::-1])


@pytest.mark.parametrize("how", ["dynamic", "static"])
def test_the_same_call_gives_the_same_bytes(how: Any) -> None:
    assert quantize(wide()[1], how, calibration=wide_rows(500, 1)[0] if how == "static" else None) == smaller(how)


@pytest.mark.parametrize("name", ["mlp multiclass", "wide and deep", "mmoe", "two towers"])
@pytest.mark.parametrize("how", ["dynamic", "static"])
def test_every_shape_of_net_can_be_quantized(name: str, how: Any) -> None:
    net: Any = FITS[name]()
    small = quantize(to_onnx(net), how, calibration=matrix(300, 4) if how == "static" else None)
    assert parity(net, small, matrix(300, 2)).parts["given"].rank > 0.9


@pytest.mark.parametrize("how", ["dynamic", "static"])
def test_a_net_over_images_keeps_telling_them_apart(how: Any) -> None:
    x, y = images(320, 1)
    net = LEARNER.fit(x, y, weight=None, held_out=images(100, 2), seed=0, threads=1)
    file = to_onnx(net)
    small = quantize(file, how, calibration=images(128, 4)[0] if how == "static" else None)
    seen, truth = images(300, 3)
    right = [np.mean(model.predict(seen).argmax(axis=1) == truth) for model in (net, load_onnx(small))]
    assert len(small) < len(file)
    assert right[1] > right[0] - 0.03


def test_what_a_static_file_leaves_out_is_computed_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Biases have neither zero points nor scales of their own, and those that fit are stored in 16 bits."""
    x, y = images(320, 1)
    file, rows = to_onnx(LEARNER.fit(x, y, weight=None, held_out=None, seed=0, threads=1)), images(128, 4)[0]
    lean = quantize(file, "static", calibration=rows)
    monkeypatch.setattr(quantize_module, "lean", lambda graph: None)
    whole = quantize(file, "static", calibration=rows)
    assert np.array_equal(load_onnx(lean).predict(x), load_onnx(whole).predict(x))
    small, large = (onnx.load_from_string(unsealed(one)) for one in (lean, whole))
    onnx.checker.check_model(small, full_check=True)
    assert onnx.TensorProto.INT16 in {one.data_type for one in small.graph.initializer}
    assert len(small.graph.initializer) < 0.75 * len(large.graph.initializer)
    assert len(lean) < 0.85 * len(whole)


@pytest.mark.parametrize(("values", "stored"), [([-32_768, 32_767], np.int16), ([-32_769, 0], np.int32), ([0, 32_768], np.int32)])
def test_a_bias_that_does_not_fit_and_a_scale_that_is_another_stay(values: list[int], stored: Any) -> None:
    def dequantized(name: str, axis: int = 0) -> Any:
        return helper.make_node("DequantizeLinear", [name, f"{name} scale", f"{name} zero"], [f"{name} float"], axis=axis)

    constants = {"w": np.ones((2, 3), np.int8), "w scale": np.float32([0.1, 0.2]), "w zero": np.zeros(2, np.int8)}
    constants |= {"x scale": np.float32(0.3), "x zero": np.uint8(7), "b": np.int32(values), "b zero": np.zeros(2, np.int32)}
    scale = np.float32(0.3) * np.float32([0.1, 0.2])
    for own in (scale, np.nextafter(scale, np.float32(1))):
        tables = [numpy_helper.from_array(np.asarray(value), name) for name, value in {**constants, "b scale": own}.items()]
        gemm = helper.make_node("Gemm", ["x float", "w float", "b float"], ["y"], transB=1)
        ends = [helper.make_tensor_value_info(name, kind, ["n", width]) for name, kind, width in (("x", 2, 3), ("y", 1, 2))]
        graph = helper.make_graph([*map(dequantized, "xwb"), gemm], "g", ends[:1], ends[1:], tables)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        given = {"x": np.random.default_rng(0).integers(0, 255, (5, 3), dtype=np.uint8)}
        before = ReferenceEvaluator(model).run(None, given)[0]
        lean(model.graph)
        onnx.checker.check_model(model, full_check=True)
        assert np.array_equal(ReferenceEvaluator(model).run(None, given)[0], before)
        kinds = {numpy_helper.to_array(one).dtype for one in model.graph.initializer if list(one.dims) == [2]}
        assert kinds == {np.dtype(stored), np.dtype(np.float32)}
        assert ("Mul" in [node.op_type for node in model.graph.node]) == np.array_equal(own, scale)


def test_what_cannot_be_quantized_is_refused() -> None:
    x = matrix(10, 1)
    for file, how, calibration, message in (
        (to_onnx(FITS["lightgbm"]()), "dynamic", None, "holds lightgbm. Only a net"),
        (smaller("dynamic"), "dynamic", None, "holds net, INT8 dynamic. Only a net"),
        (wide()[1], "static", None, "needs rows to calibrate on"),
        (wide()[1], "static", x[:0], "needs rows to calibrate on"),
        (wide()[1], "dynamic", x, "'dynamic' takes none"),
        (wide()[1], "statc", None, "Did you mean 'static'"),
    ):
        with pytest.raises(ExportError, match=message):
            quantize(file, how, calibration=calibration)  # type: ignore[arg-type]


def test_thinned_curves_stay_close_and_keep_their_ends() -> None:
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=5_000), np.exp(3 * rng.normal(size=5_000)), rng.uniform(size=5_000) ** 2):
        column = NumberColumn.fit(values, "quantile")
        knots, levels = curve(column)
        few, lower = _thinned(knots, levels)
        assert len(few) < len(knots) / 2
        assert (few[0], few[-1]) == (knots[0], knots[-1])
        at = np.linspace(knots[0], knots[-1], 20_001)
        assert np.abs(np.interp(at, few, lower) - np.interp(at, knots, levels)).max() <= CLOSE + 1e-12
    assert KNOTS in {one.name for one in onnx.load_from_string(unsealed(wide()[1])).graph.initializer}
