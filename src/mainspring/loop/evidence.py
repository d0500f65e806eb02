"""What a run measured of itself, kept in the registry with its end."""

from __future__ import annotations

import platform
import resource
import subprocess
from pathlib import Path


def machine() -> str:
    """Processor count and kind, system and Python of this machine."""
    import os

    return f"{os.cpu_count()} x {platform.machine()}, {platform.system()}, Python {platform.python_version()}"


def commit() -> str:
    """The commit of the code that runs, with ``+`` when it has local changes; the package's version outside its own checkout."""
    here = Path(__file__).parent
    try:
        subprocess.run(["git", "ls-files", "--error-unmatch", __file__], cwd=here, capture_output=True, check=True)
        head = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(["git", "status", "--porcelain", "--", "."], cwd=here, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        from mainspring import __version__

        return f"mainspring {__version__}"
    return head + ("+" if dirty else "")


def peak_memory_bytes() -> int:
    """Peak resident set of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024
