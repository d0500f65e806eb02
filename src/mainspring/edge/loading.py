"""A file of `mainspring export --target python` as a module."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path
from types import CodeType
from typing import Any

from mainspring.errors import ExportError


def loaded(path: Path) -> Any:
    """The module in a file; never from bytecode, which does not tell two files of one second and size apart.

    Raises:
        ExportError: the file is none of `mainspring export`.
    """
    name = f"mainspring_exported_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_Source(name, str(path)))
    try:
        if spec is None or spec.loader is None:
            raise ImportError("it is no Python file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.MODEL.document["system"]
    except (OSError, ImportError, SyntaxError, AttributeError, KeyError, ValueError) as error:
        raise ExportError(f"{path} cannot answer ({error}). Write it by: mainspring export SYSTEM --target python --out DIR") from error
    return module


class _Source(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)
