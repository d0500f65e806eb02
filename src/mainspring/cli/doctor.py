"""What this machine has and lacks."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from pathlib import Path


def examine() -> list[tuple[str, bool, str]]:
    """Findings as (what, whether it is good, what was found)."""
    findings = [("Python >= 3.11", sys.version_info >= (3, 11), platform.python_version())]
    findings += _packages()
    data = os.environ.get("MAINSPRING_DATA")
    findings.append(("extra data MAINSPRING_DATA", bool(data) and Path(data or "").is_dir(), data or "not set: loaders need --data"))
    free = shutil.disk_usage(".").free
    findings.append(("disk >= 2 GB free", free > 2e9, f"{free / 1e9:.0f} GB"))
    return findings


def _packages() -> list[tuple[str, bool, str]]:
    findings = []
    for requirement in importlib.metadata.requires("mainspring") or []:
        name = re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"](\w+)['\"]", requirement)
        if name == "mainspring":
            continue
        label = f"extra {extra[1]}: {name}" if extra else name
        try:
            findings.append((label, True, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            mend = f"pip install 'mainspring[{extra[1]}]'" if extra else f"pip install {name}"
            findings.append((label, False, f"not installed: {mend}"))
    return findings
