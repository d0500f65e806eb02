"""The source of feature functions, so that it can be written into a file: plain functions of NumPy and of what stands beside them."""

from __future__ import annotations

import ast
import builtins
import inspect
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mainspring.errors import ExportError
from mainspring.spec.feature import Function

_MODULES = {"np": np, "numpy": np, "math": math}
_REFUSED = frozenset({"eval", "exec", "compile", "open", "input", "__import__", "globals", "locals", "vars", "breakpoint"})


def sources(functions: Sequence[Function]) -> str:
    """The functions and what they use, in an order in which they can be defined; each is called ``_f_<feature>``.

    A function may use its inputs, NumPy, ``math``, Python's builtins, and functions and constants of its own module.

    Raises:
        ExportError: a function uses anything else; the message names it, and that its value can be given instead.
    """
    text = _Text()
    for function in functions:
        text.feature(function)
    return "\n\n".join(text.parts.values())


def tree_of(function: Any, title: str) -> ast.FunctionDef:
    """A function's syntax without decorators, annotations and docstring.

    Raises:
        ExportError: its source cannot be read, or it is no plain function.
    """
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    except (OSError, TypeError, SyntaxError, ValueError) as error:
        raise refused(title, f"its source cannot be read ({error})") from error
    if not isinstance(tree, ast.FunctionDef):
        raise refused(title, "it is no plain function")
    tree.decorator_list, tree.returns = [], None
    for argument in (*tree.args.posonlyargs, *tree.args.args):
        argument.annotation = None
    first = tree.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and len(tree.body) > 1:
        del tree.body[0]
    return tree


def refused(title: str, why: str) -> ExportError:
    """The error for a function that cannot be written into a file."""
    return ExportError(f"Feature function '{title}': {why}. Write it with NumPy alone, or let its value be given: --given {title}")


@dataclass
class _Text:
    """What was written so far, by name, and the object behind each name."""

    parts: dict[str, str] = field(default_factory=dict)
    known: dict[str, Any] = field(default_factory=dict)

    def feature(self, function: Function) -> None:
        tree = self._plain(function.function, function.name)
        tree.name = f"_f_{function.name}"
        self.parts[tree.name] = ast.unparse(tree)

    def _plain(self, function: Any, title: str) -> ast.FunctionDef:
        """The function's syntax, once all that it uses is written."""
        found = inspect.unwrap(function)
        tree = tree_of(found, title)
        if inspect.getclosurevars(found).nonlocals:
            raise refused(title, f"it is a closure over {', '.join(inspect.getclosurevars(found).nonlocals)}")
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom | ast.Global | ast.Nonlocal):
                raise refused(title, f"it holds '{ast.unparse(node)}'")
            if isinstance(node, ast.Attribute) and node.attr.startswith("__"):
                raise refused(title, f"it reads '{node.attr}'")
        for name in _free(tree):
            self._uses(name, found, title)
        return tree

    def _uses(self, name: str, function: Any, title: str) -> None:
        scope: Mapping[str, Any] = function.__globals__
        if name not in scope:
            if name in _REFUSED or not hasattr(builtins, name):
                raise refused(title, f"it uses '{name}', which is not to be had there")
            return
        value = scope[name]
        if value is _MODULES.get(name):
            return
        if name in self.known:
            if self.known[name] is not value:
                raise refused(title, f"two different things are called '{name}' in the modules of the functions")
            return
        self.known[name] = value
        plain = inspect.unwrap(value.function if isinstance(value, Function) else value) if callable(value) else None
        if inspect.isfunction(plain) and plain.__module__ == function.__module__:
            tree = self._plain(plain, title)
            tree.name = name
            self.parts[name] = ast.unparse(tree)
        elif (written := _literal(value)) is not None:
            self.parts[name] = f"{name} = {written}"
        else:
            raise refused(title, f"it uses '{name}', which is neither a function of its own module nor a constant")


def _free(tree: ast.FunctionDef) -> Iterator[str]:
    """The names that a function reads and does not bind, in order."""
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    bound = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    bound |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    yield from dict.fromkeys(node.id for node in names if isinstance(node.ctx, ast.Load) and node.id not in bound)


def _literal(value: Any) -> str | None:
    """A constant as Python that makes it again, None for what is none."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, tuple | list | frozenset | set):
        parts = [_literal(one) for one in value]
        return None if None in parts else f"{type(value).__name__}([{', '.join(map(str, parts))}])"
    if isinstance(value, dict):
        pairs = [(_literal(key), _literal(one)) for key, one in value.items()]
        return None if any(None in pair for pair in pairs) else "{" + ", ".join(f"{key}: {one}" for key, one in pairs) + "}"
    if isinstance(value, np.ndarray) and (inside := _literal(value.tolist())) is not None:
        return f"np.array({inside}, dtype={value.dtype.name!r})"
    return None
