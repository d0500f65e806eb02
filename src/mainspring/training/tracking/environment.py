"""What a training ran on: Python, packages, machine, and the very code, named by commit and the hash of its local changes."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import mainspring

PACKAGE = Path(mainspring.__file__).parent


def environment() -> dict[str, Any]:
    """Python, machine (processors, kind, system, C library) and every installed package with its version, ready for JSON."""
    return {
        "python": platform.python_version(),
        "machine": f"{os.cpu_count()} x {platform.machine()}, {platform.system()} {platform.release()}, {' '.join(platform.libc_ver())}",
        "packages": _packages(),
    }


@functools.lru_cache(maxsize=8)
def code_version(folder: Path = PACKAGE) -> tuple[tuple[str, str | None], ...]:
    """Pairs ``version`` (of mainspring), ``commit`` and ``changes``: SHA-256 over the local changes and new files of the checkout.

    Outside of a git checkout that tracks ``folder``, commit and changes are None; without local changes, changes is. Asked once a
    process: what counts is the code that was loaded.
    """
    commit: str | None = None
    changes: str | None = None
    try:
        _git(folder, "ls-files", "--error-unmatch", ".")
        commit, changes = _git(folder, "rev-parse", "HEAD").decode().strip(), _changes(folder)
    except (OSError, subprocess.CalledProcessError):
        pass
    return ("version", mainspring.__version__), ("commit", commit), ("changes", changes)


def _changes(folder: Path) -> str | None:
    root = Path(_git(folder, "rev-parse", "--show-toplevel").decode().strip())
    digest, changed = hashlib.sha256(), False
    for part in (_git(root, "diff", "HEAD", "--binary", "--no-ext-diff"), *_new_files(root)):
        digest.update(hashlib.sha256(part).digest())
        changed |= bool(part)
    return digest.hexdigest() if changed else None


def _new_files(root: Path) -> list[bytes]:
    names = [name for name in _git(root, "ls-files", "--others", "--exclude-standard", "-z").split(b"\0") if name]
    return [name + b"\0" + (root / os.fsdecode(name)).read_bytes() for name in sorted(names) if (root / os.fsdecode(name)).is_file()]


def _git(folder: Path, *command: str) -> bytes:
    return subprocess.run(["git", *command], cwd=folder, capture_output=True, check=True).stdout


@functools.cache
def _packages() -> dict[str, str]:
    found = {one.metadata["Name"]: one.version for one in importlib.metadata.distributions()}
    return dict(sorted(found.items()))
