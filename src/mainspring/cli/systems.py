"""Finding systems and the workspaces of their runs."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from mainspring.errors import DeclarationError, StorageError, did_you_mean
from mainspring.model_registry.registry import Registry
from mainspring.model_registry.registry import open_registry as opened
from mainspring.spec import System
from mainspring.storage.workspace import Workspace

WORK = Path("mainspring-work")


def find_system(name: str) -> ModuleType:
    """The package of a system that comes with mainspring: it has ``system``, ``RECORDINGS`` and ``load(source, data)``.

    Raises:
        DeclarationError: there is none of that name.
    """
    import mainspring.systems

    known = [module.name for module in pkgutil.iter_modules(mainspring.systems.__path__)]
    if name not in known:
        raise DeclarationError(f"There is no system '{name}'.{did_you_mean(name, known)}")
    return importlib.import_module(f"mainspring.systems.{name}")


def free_workspace(system: System, recording: str) -> Path:
    """The first of ``eta``, ``eta-2``, ... under mainspring-work/ that is new, or holds an interrupted run of the same kind."""
    number = 1
    while not _free(path := WORK / (system.name if number == 1 else f"{system.name}-{number}"), system, recording):
        number += 1
    return path


def newest_workspace(name: str) -> Path:
    """The newest workspace of a system under mainspring-work/.

    Raises:
        StorageError: there is none.
    """
    found = [path for path in WORK.glob(f"{name}*") if Workspace(path).has_registry]
    if not found:
        raise StorageError(f"There is no run of '{name}' under {WORK}/. Run it: mainspring run {name}")
    return max(found, key=_begun)


@contextmanager
def open_registry(workspace: Path) -> Iterator[Registry]:
    """The registry of a workspace that exists.

    Raises:
        StorageError: the folder holds no registry.
    """
    space = Workspace(workspace)
    if not space.has_registry:
        raise StorageError(f"{workspace} is not a workspace: it holds no registry. Name the folder of a run with --workspace.")
    registry = opened(space.registry_url)
    try:
        yield registry
    finally:
        registry.close()


def _begun(path: Path) -> float:
    folder = Workspace(path).registry
    return (folder if folder.is_dir() else path).stat().st_mtime


def _free(path: Path, system: System, recording: str) -> bool:
    from mainspring.loop.run import started

    if not Workspace(path).has_registry:
        return True
    with open_registry(path) as registry:
        decisions = registry.decisions(system.name)
    begun = started(decisions)
    finished = any(decision.action == "run_completed" for decision in decisions)
    return begun is None or (not finished and begun == {"system": system.hash, "recording": recording})
