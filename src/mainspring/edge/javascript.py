"""Feature functions in JavaScript: the part of NumPy that is arithmetic on one number at a time."""

from __future__ import annotations

import ast
import inspect
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mainspring.edge.sources import refused, tree_of
from mainspring.errors import ExportError
from mainspring.spec.feature import Function

_MATH = ("abs", "sqrt", "exp", "expm1", "log", "log1p", "log2", "log10", "sin", "cos", "tan", "floor", "ceil", "trunc", "sign", "hypot")
_CALLS = {
    **{name: f"Math.{name}" for name in _MATH},
    **{"absolute": "Math.abs", "fabs": "Math.abs", "minimum": "Math.min", "maximum": "Math.max", "power": "Math.pow"},
    **{name: f"numpy.{name}" for name in ("where", "isnan", "isfinite", "nan_to_num", "clip", "radians", "degrees", "mod", "floor_divide")},
    **{"deg2rad": "numpy.radians", "rad2deg": "numpy.degrees"},
}
_AS_IS = ("asarray", "array")
_BINARY: Mapping[type[ast.AST], str] = {
    **{ast.Add: "({} + {})", ast.Sub: "({} - {})", ast.Mult: "({} * {})", ast.Div: "({} / {})", ast.Pow: "Math.pow({}, {})"},
    **{ast.FloorDiv: "numpy.floor_divide({}, {})", ast.Mod: "numpy.mod({}, {})", ast.BitAnd: "({} && {})", ast.BitOr: "({} || {})"},
}
_COMPARED: Mapping[type[ast.AST], str] = {**{ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}, **{ast.Eq: "===", ast.NotEq: "!=="}}
_UNARY: Mapping[type[ast.AST], str] = {ast.USub: "(-{})", ast.UAdd: "(+{})", ast.Invert: "(!{})"}


def javascript(functions: Sequence[Function]) -> str:
    """A module that exports ``functions``, by name, of one value each.

    Assignments, arithmetic, comparisons, constants of the module and these functions of NumPy are translated: see ``_CALLS``.

    Raises:
        ExportError: a function uses anything else; the message names it, and that its value can be given instead.
    """
    lines = [f"  {json.dumps(one.name)}: {_Translated(one).text()}," for one in functions]
    return "\n".join(['import { numpy } from "./runtime.mjs";', "", "export const functions = {", *lines, "};", ""])


class _Translated:
    """One function on its way to JavaScript."""

    def __init__(self, function: Function) -> None:
        self._title = function.name
        self._plain = inspect.unwrap(function.function)
        self._tree = tree_of(self._plain, self._title)
        self._local = {argument.arg for argument in (*self._tree.args.posonlyargs, *self._tree.args.args)}

    def text(self) -> str:
        arguments = [argument.arg for argument in (*self._tree.args.posonlyargs, *self._tree.args.args)]
        variables = ", ".join(map(_named, self._assigned()))
        body = "".join(self._statement(statement) for statement in self._tree.body)
        return f"({', '.join(map(_named, arguments))}) => {{ {f'let {variables}; ' if variables else ''}{body}}}"

    def _assigned(self) -> list[str]:
        names = [node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
        return [name for name in dict.fromkeys(names) if name not in self._local]

    def _statement(self, node: ast.stmt) -> str:
        if isinstance(node, ast.Return) and node.value is not None:
            return f"return {self._expression(node.value)}; "
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            written = f"{_named(node.targets[0].id)} = {self._expression(node.value)}; "
            self._local.add(node.targets[0].id)
            return written
        raise self._refused(node)

    def _expression(self, node: ast.expr) -> str:
        if isinstance(node, ast.Constant):
            return self._constant(node.value, node)
        if isinstance(node, ast.Name):
            return _named(node.id) if node.id in self._local else self._constant(self._plain.__globals__.get(node.id, ...), node)
        if isinstance(node, ast.Attribute) and self._is_numpy(node.value) and isinstance(getattr(np, node.attr, None), float):
            return self._constant(getattr(np, node.attr), node)
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            return _BINARY[type(node.op)].format(self._expression(node.left), self._expression(node.right))
        if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
            return _UNARY[type(node.op)].format(self._expression(node.operand))
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARED:
            return f"({self._expression(node.left)} {_COMPARED[type(node.ops[0])]} {self._expression(node.comparators[0])})"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and self._is_numpy(node.func.value):
            return self._call(node, node.func.attr)
        raise self._refused(node)

    def _call(self, node: ast.Call, name: str) -> str:
        named = {one.arg: one.value for one in node.keywords}
        if name in _AS_IS and len(node.args) == 1 and ast.unparse(named.get("dtype", ast.Name("float"))) in ("float", "np.float64"):
            return self._expression(node.args[0])
        whole = [*node.args, *named.values()]
        if name not in _CALLS or (named and not (name == "nan_to_num" and list(named) == ["nan"])):
            raise self._refused(node)
        return f"{_CALLS[name]}({', '.join(self._expression(one) for one in whole)})"

    def _is_numpy(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id not in self._local and self._plain.__globals__.get(node.id) is np

    def _constant(self, value: Any, node: ast.expr) -> str:
        if isinstance(value, float) and not math.isfinite(value):
            return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
        if not isinstance(value, bool | int | float | str) and value is not None:
            raise self._refused(node)
        return json.dumps(value)

    def _refused(self, node: ast.AST) -> ExportError:
        return refused(self._title, f"'{ast.unparse(node)}' has no form in JavaScript")


def _named(name: str) -> str:
    """A name that no word of JavaScript can be."""
    return f"${name}"
