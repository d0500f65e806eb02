"""Ray clusters: one that is there, or one on this machine for as long as it is needed."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mainspring.errors import DeclarationError, MissingExtraError, TrainingError

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}
"""Nothing is told to others, nothing is logged twice, and an interruption is ours to handle."""
_PATIENCE = 5.0


@contextmanager
def cluster(address: str, cores: int) -> Iterator[Any]:
    """Inside, Ray is there: the cluster at ``ray:HOST:PORT``; for ``ray`` that of this process, or one of ``cores`` on this machine.

    Raises:
        DeclarationError: this is no such address.
        MissingExtraError: Ray is not installed.
        TrainingError: there is no cluster at the address.
    """
    kind, _, where = address.partition(":")
    if kind != "ray" or where.startswith("//"):
        raise DeclarationError(
            f"'{address}' is no address of Ray. Write 'ray' for this machine, or on a machine of the cluster 'ray:HOST:PORT'."
        )
    with _environment(QUIET):
        ray = _ray()
        if ray.is_initialized() and not where:
            yield ray
            return
        quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
        try:
            if where:
                _reach(where)
                ray.init(address=where, **quiet)
            else:
                paths = os.pathsep.join(one for one in sys.path if one)
                ray.init(num_cpus=cores, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": paths}}, **quiet)
        except (OSError, RuntimeError, ValueError) as error:
            raise TrainingError(f"Ray at '{address}': {error}. Start a cluster with 'ray start --head', and name its HOST:PORT.") from error
        try:
            yield ray
        finally:
            ray.shutdown()


def _reach(where: str) -> None:
    """Ray itself tries for minutes where no one listens."""
    host, _, port = where.rpartition(":")
    socket.create_connection((host, int(port)), _PATIENCE).close()


@contextmanager
def _environment(wanted: dict[str, str]) -> Iterator[None]:
    missing = [name for name in wanted if name not in os.environ]
    os.environ.update({name: wanted[name] for name in missing})
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


def _ray() -> Any:
    try:
        import ray
        import ray.tune
    except ImportError as error:
        raise MissingExtraError("Work over Ray", "ray", "ray") from error
    return ray
