"""LightGBM's C library by itself: a fitted ensemble, read from its text and asked.

``import lightgbm`` brings scikit-learn, pandas and SciPy along where they are installed: over a second and 150 MB in every process
that serves. Answering needs none of them. The library is found and loaded by LightGBM's own ``libpath``.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mainspring.errors import MissingExtraError, RegistryError
from mainspring.models.protocol import Floats

_FLOAT64, _ROW_MAJOR = 1, 1
_NORMAL, _CONTRIBUTIONS = 0, 3
_GAIN = 1
_ALL = -1
_FIRST_BUFFER = 1 << 20


@cache
def library() -> Any:
    """The library, loaded once in a process.

    Raises:
        MissingExtraError: LightGBM is not installed.
    """
    found = importlib.util.find_spec("lightgbm")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError("The LightGBM model", "lightgbm", "lightgbm")
    path = Path(found.submodule_search_locations[0]) / "libpath.py"
    spec = importlib.util.spec_from_file_location("_lightgbm_libpath", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loaded = module._LIB
    loaded.LGBM_GetLastError.restype = ctypes.c_char_p
    loaded.LGBM_RegisterLogCallback(_silent)
    return loaded


def check(status: int) -> None:
    """Raise what the library says went wrong.

    Raises:
        RegistryError: the call failed.
    """
    if status:
        raise RegistryError(f"LightGBM: {library().LGBM_GetLastError().decode(errors='replace')}")


class Ensemble:
    """Trees as LightGBM's model text, in the library.

    Raises:
        RegistryError: the library cannot read the text.
        MissingExtraError: LightGBM is not installed.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.handle = ctypes.c_void_p()
        self._library = library()
        self.iterations = self._number(ctypes.c_int, lambda out: self._library.LGBM_BoosterLoadModelFromString(
            text.encode(), out, ctypes.byref(self.handle)))  # fmt: skip
        self.features = self._number(ctypes.c_int, lambda out: self._library.LGBM_BoosterGetNumFeature(self.handle, out))
        self.outputs = self._number(ctypes.c_int, lambda out: self._library.LGBM_BoosterNumModelPerIteration(self.handle, out))

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self._library.LGBM_BoosterFree(self.handle)

    def predict(self, x: Floats, *, threads: int, contributions: bool = False) -> Floats:
        """Float64 values of shape ``(n,)``, or ``(n, k)`` where a row has several, for ``x`` of shape ``(n, d)``."""
        kind = _CONTRIBUTIONS if contributions else _NORMAL
        rows = np.ascontiguousarray(x, dtype=np.float64)
        columns = self.outputs * (self.features + 1 if contributions else 1)
        values = np.empty((len(rows), columns), dtype=np.float64)
        self._number(ctypes.c_int64, lambda out: self._library.LGBM_BoosterPredictForMat(
            self.handle, ctypes.c_void_p(rows.ctypes.data), ctypes.c_int(_FLOAT64), ctypes.c_int32(rows.shape[0]),
            ctypes.c_int32(rows.shape[1]), ctypes.c_int(_ROW_MAJOR), ctypes.c_int(kind), ctypes.c_int(0), ctypes.c_int(_ALL),
            f"num_threads={threads}".encode(), out, values.ctypes.data_as(ctypes.POINTER(ctypes.c_double))))  # fmt: skip
        return values[:, 0] if columns == 1 else values

    def gains(self) -> list[float]:
        """Total gain of each feature's splits."""
        values = np.empty(self.features, dtype=np.float64)
        pointer = values.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
        check(self._library.LGBM_BoosterFeatureImportance(self.handle, ctypes.c_int(_ALL), ctypes.c_int(_GAIN), pointer))
        return [float(value) for value in values]

    def first(self, iterations: int) -> Ensemble:
        """The ensemble of its first iterations."""
        return Ensemble(self._string(self._library.LGBM_BoosterSaveModelToString, iterations))

    def dump(self, iterations: int = _ALL) -> dict[str, Any]:
        """The ensemble of its first iterations as LightGBM's own JSON."""
        dumped: dict[str, Any] = json.loads(self._string(self._library.LGBM_BoosterDumpModel, iterations))
        return dumped

    def _string(self, write: Callable[..., int], iterations: int) -> str:
        """What ``write`` puts into a buffer, which is made as large as it says that it must be."""
        size = _FIRST_BUFFER
        while True:
            buffer = ctypes.create_string_buffer(size)
            needed = ctypes.c_int64(0)
            check(write(self.handle, ctypes.c_int(0), ctypes.c_int(iterations), ctypes.c_int(0), ctypes.c_int64(size),
                        ctypes.byref(needed), buffer))  # fmt: skip
            if needed.value <= size:
                return buffer.value.decode()
            size = needed.value

    @staticmethod
    def _number(kind: Any, call: Callable[[Any], int]) -> int:
        out = kind(0)
        check(call(ctypes.byref(out)))
        return int(out.value)


_silent = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(lambda _: None)
