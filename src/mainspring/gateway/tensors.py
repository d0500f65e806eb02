"""What both forms of the Open Inference Protocol share: tensors become rows that hold to the contract, answers become tensors.

Source: https://github.com/kserve/open-inference-protocol, version 2. A model is a system, a column a tensor.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mainspring.clock import format_instant
from mainspring.errors import RequestError, did_you_mean
from mainspring.gateway.describe import TENSORS
from mainspring.gateway.front import MOST_ROWS, Front, Request
from mainspring.schema import Type
from mainspring.serving.batching import Batcher
from mainspring.spec.aggregate import Value

_NUMPY = {
    "BOOL": np.dtype(np.bool_),
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
_FITTING = {
    Type.BOOL: {"BOOL"},
    Type.STR: {"BYTES"},
    Type.INSTANT: {"BYTES", "INT64"},
    Type.INT: {name for name in _NUMPY if "INT" in name},
    Type.FLOAT: {name for name in _NUMPY if name != "BOOL"},
}
_STRING = struct.Struct("<I")


class Tensor(NamedTuple):
    """A tensor that came in: its values, or the bytes that they are packed into, little-endian."""

    name: str
    datatype: str
    shape: Sequence[int]
    values: Sequence[Any] | memoryview


class Model:
    """One system as a model of the protocol; ``inputs`` and ``outputs`` are datatypes by name, every shape is ``[rows]``."""

    def __init__(self, front: Front) -> None:
        system = front.system
        self.front = front
        self.name = system.name
        self._columns = {field.name: field for field in system.request.schema.fields}
        self.inputs = {name: TENSORS[field.type] for name, field in self._columns.items()}
        interval = {} if system.model.interval is None else {"low": "FP64", "high": "FP64"}
        self.outputs = {system.label.column: "FP64", **interval, "answered_by": "BYTES", "version": "BYTES", "variant": "BYTES"}

    @property
    def versions(self) -> list[str]:
        """The version that answers now, if one does."""
        champion = self.front.service.metadata().get("champion")
        return [str(champion)] if champion else []

    async def answer(self, request: Request, inputs: Sequence[Tensor], *, explain: bool, version: Batcher | None = None) -> list[Any]:
        """Answers to the rows of the tensors, by what is live or a ``version`` of the shelf.

        Raises:
            RequestError: a tensor or a value in it does not fit; the field is ``column`` or ``column[row]``.
            MainspringError: a row has no answer.
        """
        rows = [self._checked(number, row) for number, row in enumerate(self._rows(inputs))]
        answers = await self.front.ask(request, rows, explain=explain, version=version)
        for number, answer in enumerate(answers):
            if isinstance(answer, RequestError) and len(rows) > 1:
                raise RequestError(f"{answer.field}[{number}]", answer.reason, answer.status)
            if isinstance(answer, Exception):
                raise answer
        return answers

    def wanted(self, names: Sequence[str]) -> dict[str, str]:
        """Datatypes of the outputs asked for by name, of all for none.

        Raises:
            RequestError: there is no such output.
        """
        for name in names:
            if name not in self.outputs:
                raise RequestError("outputs", f"'{name[:64]}' is not an output.{did_you_mean(name[:64], self.outputs)}")
        return {name: self.outputs[name] for name in names} or self.outputs

    def _rows(self, inputs: Sequence[Tensor]) -> list[dict[str, Any]]:
        columns: dict[str, list[Any]] = {}
        for tensor in inputs:
            if tensor.name not in self._columns:
                raise RequestError(tensor.name[:64], f"is not an input.{did_you_mean(tensor.name[:64], self._columns)}")
            if tensor.name in columns:
                raise RequestError(tensor.name, "is given twice")
            columns[tensor.name] = _values(tensor, self._columns[tensor.name].type)
        lengths = {name: len(values) for name, values in columns.items()}
        n = max(lengths.values(), default=0)
        for name, length in lengths.items():
            if length != n:
                raise RequestError(name, f"has {length} rows, another tensor {n}")
        if not 1 <= n <= MOST_ROWS:
            raise RequestError("inputs", f"must hold 1 to {MOST_ROWS} rows; these are {n}")
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def _checked(self, number: int, row: Mapping[str, Any]) -> Mapping[str, Value]:
        try:
            return self.front.contract.check(row)
        except RequestError as error:
            raise RequestError(f"{error.field}[{number}]", error.reason, error.status) from error


def output(answer: Any, name: str) -> Any:
    """An answer's value of one output, None where it has none."""
    if name in ("low", "high"):
        return None if answer.interval is None else getattr(answer.interval, name)
    return getattr(answer, name, None) if name in ("answered_by", "version", "variant") else answer.prediction


def packed(values: Sequence[Any], datatype: str) -> bytes:
    """Values as little-endian bytes; None is NaN, or an empty text. A text follows its length in four bytes."""
    if datatype == "BYTES":
        encoded = ["" if value is None else str(value) for value in values]
        return b"".join([_STRING.pack(len(text)) + text for text in (one.encode() for one in encoded)])
    return np.array([np.nan if value is None else value for value in values], dtype=_NUMPY[datatype]).tobytes()


def _values(tensor: Tensor, type_: Type) -> list[Any]:
    name, shape = tensor.name, list(tensor.shape)
    if tensor.datatype not in _FITTING[type_]:
        wanted = ", ".join(sorted(_FITTING[type_]))
        raise RequestError(name, f"has the datatype {tensor.datatype[:16]}, and must have one of {wanted}")
    if not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)) or min(shape) < 0:
        raise RequestError(name, f"has the shape {shape[:4]}, and must have [rows] or [rows, 1]")
    values = _unpacked(tensor, tensor.values) if isinstance(tensor.values, memoryview) else list(tensor.values)
    if len(values) != shape[0]:
        raise RequestError(name, f"has {len(values)} values, and the shape {shape}")
    return _as_json(name, values, type_, tensor.datatype)


def _unpacked(tensor: Tensor, data: memoryview) -> list[Any]:
    if tensor.datatype == "BYTES":
        return _strings(tensor.name, data)
    dtype = _NUMPY[tensor.datatype]
    if len(data) % dtype.itemsize:
        raise RequestError(tensor.name, f"has {len(data)} bytes, which are no whole number of {tensor.datatype}", 400)
    values: list[Any] = np.frombuffer(data, dtype).tolist()
    return values


def _strings(name: str, data: memoryview) -> list[str]:
    texts, place = [], 0
    while place < len(data):
        end = place + _STRING.size
        end += _STRING.unpack_from(data, place)[0] if end <= len(data) else 1
        if end > len(data):
            raise RequestError(name, "ends in the middle of a string. Each is its length in 4 bytes, little-endian, and its bytes.", 400)
        texts.append(text_of(name, data[place + _STRING.size : end]))
        place = end
    return texts


def text_of(name: str, data: bytes | memoryview) -> str:
    """The text of an element of type BYTES.

    Raises:
        RequestError: it is not UTF-8.
    """
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(name, "holds bytes that are not UTF-8") from error


def _as_json(name: str, values: list[Any], type_: Type, datatype: str) -> list[Any]:
    """Values as the contract's checks take them; NaN, which JSON cannot say, is null."""
    if type_ == Type.FLOAT:
        return [None if isinstance(value, float) and value != value else value for value in values]
    if type_ != Type.INSTANT or datatype == "BYTES":
        return values
    try:
        return [format_instant(value) if isinstance(value, int) and not isinstance(value, bool) else value for value in values]
    except OverflowError as error:
        raise RequestError(name, "holds microseconds beyond the year 9999") from error
