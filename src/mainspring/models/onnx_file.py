"""What an exported file says of itself, and the seal that finds damage; both are read without a library of ONNX."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import msgspec

from mainspring.errors import RegistryError

KEY = "mainspring"
FORMAT = 1
_ENTRY = b"\x72\x4a\x0a\x06sha256\x12\x40"  # ModelProto.metadata_props (field 14): the key "sha256", a value of 64 characters
_SEAL = len(_ENTRY) + 64


@dataclass(frozen=True, slots=True)
class Description:
    """The meaning of an exported file's input and outputs.

    ``made_from`` is the kind of predictor, ``columns`` are those of its matrix in order (none: images), ``outputs`` says what each
    number is, ``reference`` is the row that contributions are measured against, None for a missing value. Rows must be given one by
    one where they change each other's answers (``apart``).
    """

    made_from: str
    columns: tuple[str, ...]
    outputs: tuple[str, ...]
    reference: tuple[float | None, ...] = ()
    apart: bool = False

    def to_metadata(self) -> dict[str, str]:
        """As metadata of an ONNX model."""
        body = asdict(self) | {"reference": [None if value is None or value != value else value for value in self.reference]}
        return {KEY: json.dumps({"format": FORMAT, **body})}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Description:
        """The description in an ONNX model's metadata.

        Raises:
            RegistryError: there is none, or one of another format.
        """
        try:
            body = json.loads(metadata[KEY])
            if body.pop("format") != FORMAT:
                raise ValueError(f"it is not of format {FORMAT}")
            return msgspec.convert(body, cls)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise RegistryError(f"ONNX file: it does not say what its columns are ({error}). Export the model by mainspring.") from error


def sealed(model: bytes) -> bytes:
    """The file with its SHA-256 as a last entry of its metadata: still a file of ONNX, as protobuf messages join by being put in a row."""
    return model + _ENTRY + hashlib.sha256(model).hexdigest().encode()


def unsealed(file: bytes) -> bytes:
    """The model without its seal.

    Raises:
        RegistryError: it has none, or was altered or cut since.
    """
    model, entry, digest = file[:-_SEAL], file[-_SEAL:-64], file[-64:]
    if entry != _ENTRY:
        raise RegistryError("ONNX file: it is cut off, or mainspring did not write it. Export the model again: mainspring export.")
    if hashlib.sha256(model).hexdigest().encode() != digest:
        raise RegistryError("ONNX file: it was altered since it was written. Export the model again: mainspring export.")
    return model


def meanings(link: str, outputs: int) -> tuple[str, ...]:
    """What each output is, by the link that makes it: a value, a probability, or one a class."""
    if link == "softmax":
        return tuple(f"probability of class {number}" for number in range(outputs))
    return ("probability of class 1" if link == "logistic" else "value",) * outputs
