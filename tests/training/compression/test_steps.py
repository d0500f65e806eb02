from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.datasets import load_digits

import mainspring as ms
from mainspring.errors import DeclarationError
from mainspring.models.tabular import TabularModel
from mainspring.training.compression import Distil, Prune, Quantize, Step, parse
from mainspring.training.compression.steps import Material, applied, to_dict
from mainspring.training.examples import Examples
from mainspring.training.fitting import fit_model


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("quantize", Quantize("dynamic")),
        ("quantize:how=static", Quantize("static")),
        ("prune", Prune()),
        ("prune:share=0.8,structured=true,rounds=2", Prune(0.8, structured=True, rounds=2)),
        ("distil:into=LightGBM,trees=20", Distil(ms.LightGBM(trees=20))),
        ("distil:into=Net,hidden=[32,16],truth=0.3", Distil(ms.Net(hidden=(32, 16)), truth=0.3)),
        ('distil:into=Linear,temperature=2,beside=["1","2"]', Distil(ms.Linear(), temperature=2, beside=("1", "2"))),
    ],
)
def test_steps_in_words_are_those_in_python(text: str, step: Step) -> None:
    assert parse(text) == step
    json.dumps(to_dict(step))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("quantise", "Did you mean 'quantize'"),
        ("quantize:how=int4", "'int4' is not known"),
        ("prune:shares=0.5", "no setting 'shares'. Did you mean 'share'"),
        ("prune:0.5", "'0.5' is no setting"),
        ("prune:share=2", "between 0 and 1"),
        ("distil:trees=4", "into='' is no model"),
        ("distil:into=LightGBN", "Did you mean 'LightGBM'"),
        ("distil:into=LightGBM,tree=4", "no setting 'tree'"),
        ("distil:into=Sklearn", "estimator"),
        ("distil:into=Linear,temperature=0", "Give a temperature above 0"),
        ("distil:into=Linear,truth=1.5", "share of the truth from 0 to 1"),
    ],
)
def test_what_is_no_step_is_refused(text: str, words: str) -> None:
    with pytest.raises(DeclarationError, match=words.replace(".", r"\.")):
        parse(text)


NAMES = [f"p{i}" for i in range(64)]
TEACHER = ms.Net(objective="multiclass", classes=10, hidden=(96, 96), epochs=15, batch=64)


def digits() -> tuple[Examples, Examples, Examples]:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    parts = (order[:900], order[900:1_300], order[1_300:])
    return tuple(Examples({name: x[part, i] for i, name in enumerate(NAMES)}, y[part].astype(float)) for part in parts)  # type: ignore[return-value]


def test_several_classes_are_distilled_and_told_as_surely_as_they_are_right() -> None:
    learned, held_out, asked = digits()
    teacher = fit_model(TEACHER, NAMES, learned, held_out, threads=1)
    student = Distil(
        ms.Net(objective="multiclass", classes=10, hidden=(24,), epochs=6, batch=128, learning_rate=1e-2), temperature=3.0, truth=0.2
    )
    model, spec = applied(student, teacher, Material(TEACHER, learned, held_out, {}))
    assert spec.task == "multiclass"
    back = TabularModel.from_artifacts(model.to_artifacts())
    shares = back.predict(asked.columns)
    assert shares.tolist() == model.predict(asked.columns).tolist()
    right = shares.argmax(axis=1) == asked.label
    assert right.mean() > 0.93
    assert shares.max(axis=1).mean() == pytest.approx(right.mean(), abs=0.04)
    soft = model.predictor.predict(model.encoder.transform(asked.columns))
    assert soft.max(axis=1).mean() < shares.max(axis=1).mean() - 0.05
