"""An exported file answers as the model does, for every kind of learner and whatever the row; what is none is refused."""

from __future__ import annotations

import functools
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
import pytest
from exported_models import CODES, FITS, NAMES, matrix
from hypothesis import given, settings
from hypothesis import strategies as st
from test_torch_vision import fit as fit_images
from test_torch_vision import images

from mainspring.errors import ExportError, RegistryError, ServingError, TrainingError
from mainspring.models import export
from mainspring.models.adapters.torch_runtime import torch
from mainspring.models.encoding import Encoder
from mainspring.models.export import annotated, as_onnx, load_onnx, parity, to_onnx, tower_to_onnx
from mainspring.models.learners import learner, load_predictor
from mainspring.models.onnx_file import sealed, unsealed
from mainspring.models.parity import Tolerance
from mainspring.models.protocol import Predictor, Rows
from mainspring.models.tabular import TabularModel

TOLERANCES = {"lightgbm": 1e-12, "xgboost": 1e-6, "linear": 1e-12, "forest": 1e-12, "extra": 1e-12, "tree": 1e-12}
OF_NETS = 1e-5


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@functools.cache
def pair(name: str) -> tuple[Predictor, bytes, Any]:
    """A model, its file, and the predictor of that."""
    fitted = FITS[name]()
    file = to_onnx(fitted)
    return fitted, file, load_onnx(file, NAMES)


@functools.cache
def image_pair() -> tuple[Any, bytes, Any]:
    net = fit_images()
    file = to_onnx(net)
    return net, file, load_onnx(file)


def tolerance(name: str) -> float:
    return TOLERANCES.get(name.split(maxsplit=1)[0], OF_NETS)


@pytest.mark.parametrize("name", FITS)
def test_the_file_answers_as_the_model(name: str) -> None:
    fitted, file, exported = pair(name)
    found = parity(fitted, file, matrix(400, 2), decide_at=[0.1, 0.5])
    assert found.within(Tolerance(tolerance(name))), "\n".join(found.lines())
    assert {"given", "missing"} <= set(found.parts)
    assert all(one.rank > 0.999999 for one in found.parts.values())
    assert (exported.names, exported.outputs) == (fitted.names, fitted.outputs)


@pytest.mark.parametrize("name", ["lightgbm", "lightgbm quantile", "lightgbm ranks", "xgboost", "xgboost quantile", "xgboost ranks"])
def test_trees_without_a_link_answer_to_the_bit_on_every_threshold(name: str) -> None:
    fitted, file, _ = pair(name)
    found = parity(fitted, file, matrix(400, 2))
    assert {part: one.absolute for part, one in found.parts.items()} == dict.fromkeys(found.parts, 0.0)
    assert found.parts["thresholds"].rows > 300


def rows() -> st.SearchStrategy[Any]:
    numbers = st.one_of(st.floats(-1e6, 1e6), st.just(np.nan), st.sampled_from([0.0, -0.0, 1e-36, -1e-36, 5e-324, 1e300, -1e300, 0.1]))
    codes = st.one_of(*(st.integers(-2, most + 3).map(float) for most in CODES.values()), st.just(np.nan))
    row = st.tuples(numbers, numbers, codes, codes)
    return st.lists(row, min_size=1, max_size=8).map(lambda found: np.array(found, dtype=np.float64))


@pytest.mark.parametrize("name", [name for name in FITS if name.split()[0] not in ("forest", "extra", "tree", "xgboost")])
@settings(max_examples=25)
@given(x=rows())
def test_the_file_answers_as_the_model_whatever_the_row(name: str, x: Any) -> None:
    fitted, _, exported = pair(name)
    assert exported.predict(x) == pytest.approx(fitted.predict(x), rel=tolerance(name), abs=tolerance(name))


@pytest.mark.parametrize("name", ["forest", "extra trees", "tree", "xgboost", "xgboost multiclass"])
@settings(max_examples=25)
@given(x=rows().map(lambda x: np.clip(x, -1e30, 1e30)))
def test_models_that_read_float32_do_so_in_the_file(name: str, x: Any) -> None:
    fitted, _, exported = pair(name)
    assert exported.predict(x) == pytest.approx(fitted.predict(x), rel=tolerance(name), abs=tolerance(name))


@pytest.mark.parametrize("name", FITS)
def test_a_row_alone_is_a_row_among_others_to_the_bit(name: str) -> None:
    x = matrix(150, 3)
    exported = pair(name)[2]
    together = exported.predict(x)
    assert [exported.predict_row(row).tolist() for row in x] == np.atleast_2d(together.reshape(150, -1)).tolist()
    assert exported.predict(x[:1]).tolist() == together[:1].tolist()
    assert exported.predict(x[:0]).shape == together[:0].shape


@pytest.mark.parametrize("name", ["lightgbm binary", "linear multiclass", "mmoe", "xgboost"])
def test_contributions_add_up_to_the_score_before_the_link(name: str) -> None:
    fitted, _, exported = pair(name)
    x = matrix(6, 4)
    parts = exported.contributions(x)
    original = fitted.contributions(x)
    assert parts.shape == original.shape
    assert parts.sum(axis=-1) == pytest.approx(original.sum(axis=-1), abs=2e-4)


def test_contributions_are_measured_from_the_reference() -> None:
    fitted = pair("linear")[0]
    reference = np.array([1.0, 2.0, 0.0, 3.0])
    exported = load_onnx(to_onnx(fitted, reference=reference))
    parts = exported.contributions(np.array([[1.0, 2.0, 2.0, 3.0]]))[0]
    assert parts[[0, 1, 3]].tolist() == [0.0, 0.0, 0.0]
    assert parts[4] == pytest.approx(fitted.predict_row(reference)[0])
    assert parts[2] == pytest.approx(np.diff(fitted.contributions(np.array([reference, [1.0, 2.0, 2.0, 3.0]]))[:, 2], axis=0)[0])


def test_a_net_over_images_is_exported_whole() -> None:
    net, file, exported = image_pair()
    x, _ = images(100, 3)
    assert parity(net, file, x).within(Tolerance(OF_NETS))
    assert np.array_equal(exported.predict(x)[:9], [exported.predict_row(image) for image in x[:9]])
    with pytest.raises(ServingError, match="what each pixel adds"):
        exported.contributions(x)


def test_each_of_two_towers_is_exported_for_itself() -> None:
    towers: Any = pair("two towers")[0]
    x = matrix(100, 6)
    for side, columns, vectors in (("user", towers.user, towers.users), ("item", towers.item, towers.items)):
        own = x[:, [NAMES.index(name) for name in columns.names]]
        tower = load_onnx(tower_to_onnx(towers, side), columns.names)  # type: ignore[arg-type]
        assert tower.predict(own) == pytest.approx(vectors(own).astype(np.float64), abs=1e-6)
        assert np.array_equal(tower.predict(own)[:20], [tower.predict_row(row) for row in own[:20]])
    with pytest.raises(ExportError, match="no 'user' tower in a model of the kind 'Booster'"):
        tower_to_onnx(pair("lightgbm")[0], "user")


def test_ranks_learned_on_real_queries_are_exported_to_the_bit(data_folder: Path) -> None:
    table = pq.read_table(data_folder / "lightgbm-rank-example" / "train.parquet")
    names = table.schema.names[2:]
    x, y = (np.column_stack([table[name] for name in chosen]).astype(np.float64) for chosen in (names, ["label"]))
    groups = table["qid"].to_numpy().astype(np.int64)
    made = learner("lightgbm", {"objective": "lambdarank", "trees": 40})
    fitted = made.fit(Rows(x, y[:, 0], groups=groups), names=names, categorical=[], held_out=None, seed=0, threads=1)
    found = parity(fitted, to_onnx(fitted), x)
    assert {part: one.absolute for part, one in found.parts.items()} == dict.fromkeys(("given", "thresholds", "missing"), 0.0)


def test_the_file_says_what_goes_in_and_what_comes_out() -> None:
    model = onnx.load_from_string(annotated(pair("lightgbm multiclass")[1], {"model.json": "{}"}))
    onnx.checker.check_model(model, full_check=True)
    assert model.graph.input[0].doc_string == "a, b, kind, place"
    assert [one.name for one in model.graph.output] == ["prediction", "score"]
    assert model.graph.output[0].doc_string == "probability of class 0, probability of class 1, probability of class 2"
    assert {one.domain: one.version for one in model.opset_import} == {"": 20, "ai.onnx.ml": 5}
    assert {"mainspring", "model.json", "sha256"} == {one.key for one in model.metadata_props}


def test_another_runtime_session_reads_it_and_gives_prediction_and_score() -> None:
    fitted, file, _ = pair("xgboost binary")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    prediction, score = session.run(None, {"x": matrix(50, 2)})
    assert prediction[:, 0] == pytest.approx(fitted.predict(matrix(50, 2)), rel=1e-6)
    assert 1 / (1 + np.exp(-score)) == pytest.approx(prediction, rel=1e-12)


@pytest.mark.parametrize("name", ["lightgbm", "mlp"])
def test_damaged_and_foreign_files_are_refused(name: str) -> None:
    file = pair(name)[1]
    altered = bytearray(file)
    altered[len(file) // 2] ^= 1
    foreign = onnx.load_from_string(unsealed(file))
    del foreign.metadata_props[:]
    for wrong in (b"", b"hello", file[:-1], file[: len(file) // 2], bytes(altered), file + b"\0", foreign.SerializeToString()):
        with pytest.raises(RegistryError, match="ONNX file"):
            load_onnx(wrong)
    with pytest.raises(RegistryError, match="does not say what its columns are"):
        load_onnx(sealed(foreign.SerializeToString()))
    with pytest.raises(RegistryError, match="onnxruntime cannot read it"):
        load_onnx(sealed(b"hello"))
    with pytest.raises(RegistryError, match="belongs to another system"):
        load_onnx(file, NAMES[:2])
    with pytest.raises(RegistryError, match=r"'model\.onnx' is missing"):
        load_predictor("onnx", {}, {"model.txt": file}, NAMES)


def test_an_exported_file_is_exported_as_it_is_and_cannot_be_fitted() -> None:
    _, file, exported = pair("lightgbm")
    assert to_onnx(exported) == file
    with pytest.raises(TrainingError, match="exported, not fitted"):
        learner("onnx", {}).fit(Rows(matrix(5, 1), np.zeros(5)), names=NAMES, categorical=[], held_out=None, seed=0, threads=1)
    with pytest.raises(ServingError, match="rows of shape"):
        exported.predict(matrix(5, 1)[:, :3])


def test_what_has_no_form_is_refused_by_name() -> None:
    x = matrix(200, 1)
    boosted = learner("sklearn", {"estimator": "sklearn.ensemble.HistGradientBoostingRegressor", "settings": {"max_iter": 3}})
    poisson = learner("lightgbm", {"objective": "poisson", "trees": 3})
    for made, message in ((boosted, "HistGradientBoostingRegressor"), (poisson, "poisson")):
        fitted = made.fit(Rows(x, np.ones(200)), names=NAMES, categorical=[], held_out=None, seed=0, threads=1)
        with pytest.raises(ExportError, match=message):
            to_onnx(fitted)
    with pytest.raises(ExportError, match="kind 'object'"):
        to_onnx(object())  # type: ignore[arg-type]
    with pytest.raises(ExportError, match="no rows"):
        parity(pair("lightgbm")[0], pair("lightgbm")[1], x[:0])


def tabular() -> TabularModel:
    columns = {"a": matrix(500, 1)[:, 0], "kind": np.array(["x", "y", None, "z"] * 125, dtype=object)}
    encoder = Encoder.fit(columns, ["a", "kind"])
    x = encoder.transform(columns)
    rows = Rows(x, np.nan_to_num(x[:, 0]) + np.nan_to_num(x[:, 1]))
    fitted = learner("lightgbm", TREES).fit(rows, names=["a", "kind"], categorical=["kind"], held_out=None, seed=0, threads=1)
    return TabularModel(encoder, "lightgbm", TREES, fitted)


TREES: dict[str, Any] = {"trees": 20, "min_leaf_rows": 5}


def test_a_model_with_an_exported_predictor_is_a_model_like_any_other() -> None:
    model = tabular()
    exported, found = as_onnx(model, matrix(300, 2)[:, [0, 2]], decide_at=[0.0])
    again = TabularModel.from_artifacts(exported.to_artifacts())
    assert set(exported.to_artifacts()) == {"model.onnx", "model.json"}
    assert found.parts["thresholds"].absolute == 0.0
    for row in ([0.3, "y"], [None, None], [-1.0, "never seen"]):
        assert again.predict_row(row) == model.predict_row(row)
        assert {name for name, _ in again.reasons(row, 2)} == {"a", "kind"}


def test_a_file_that_is_not_at_par_is_refused_with_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = tabular(), tabular()
    other = replace(other, predictor=learner("lightgbm", {**TREES, "trees": 19}).fit(
        Rows(matrix(500, 1)[:, [0, 2]], np.arange(500.0)), names=["a", "kind"], categorical=["kind"], held_out=None, seed=0, threads=1
    ))  # fmt: skip
    file = to_onnx(other.predictor)
    monkeypatch.setattr(export, "to_onnx", lambda *_, **__: file)
    with pytest.raises(ExportError, match=r"answers otherwise than the lightgbm model:\ngiven +300 rows  difference"):
        as_onnx(model, matrix(300, 2)[:, [0, 2]])


def test_serving_needs_neither_what_trained_it_nor_onnx(tmp_path: Path) -> None:
    exported, _ = as_onnx(tabular(), matrix(300, 2)[:, [0, 2]])
    for name, data in exported.to_artifacts().items():
        (tmp_path / name).write_bytes(data)
    program = """
        import sys
        for name in ("lightgbm", "torch", "sklearn", "scipy", "onnx", "xgboost", "safetensors"):
            sys.modules[name] = None
        from pathlib import Path
        from mainspring.models.tabular import TabularModel
        model = TabularModel.from_artifacts({path.name: path.read_bytes() for path in Path(sys.argv[1]).iterdir()})
        print(model.predict_row([0.3, "y"])[0], len(model.reasons([0.3, "y"], 2)))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(exported.predict_row([0.3, "y"])[0]), "2"]


@pytest.mark.parametrize(
    ("missing", "call", "line"),
    [
        ("onnx", "to_onnx(model)", "pip install 'mainspring[onnx]'"),
        ("onnxruntime", "load_onnx(b'')", "pip install 'mainspring[onnxruntime]'"),
        ("onnxruntime", "quantize(b'', 'dynamic')", "pip install 'mainspring[onnx]'"),
    ],
)
def test_without_its_package_each_step_names_the_line_that_installs_it(missing: str, call: str, line: str) -> None:
    program = f"""
        import sys
        sys.modules["{missing}"] = None
        import numpy as np
        from mainspring.errors import MissingExtraError
        from mainspring.models.export import load_onnx, quantize, to_onnx
        from mainspring.models.linear import Design, Linear
        model = Linear(("a",), Design(np.zeros(1), np.ones(1), np.zeros(1, int)), np.ones((1, 2)), np.zeros(1), "identity")
        try:
            {call}
        except MissingExtraError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith(line), done.stderr
