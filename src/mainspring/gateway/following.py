"""The one process of a server of several that folds new events into the online store."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress

from mainspring.clock import SystemClock
from mainspring.feature_store.dead_letters import DeadLetters
from mainspring.feature_store.online import OnlineStore
from mainspring.feature_store.stream import Stream
from mainspring.model_registry.registry import open_registry
from mainspring.serving.versions import load_system
from mainspring.storage.stores import open_key_value, open_log
from mainspring.storage.workspace import Workspace


def follow(workspace: Workspace, ready: Callable[[], None]) -> None:
    """Fold until SIGTERM, SIGINT or the end of standard input; ``ready`` is called when all that was in the log is in the store.

    Raises:
        RegistryError: the workspace declares no system.
        StorageError: the log or the store cannot be opened.
    """
    stop = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: stop.set())
    threading.Thread(target=_await_end_of_input, args=(stop,), daemon=True).start()
    with closing(open_registry(workspace.registry_url)) as registry:
        system = load_system(registry)
    with closing(open_log(workspace.events_url)) as log, closing(open_key_value(workspace.online_url)) as store:
        stream = Stream(OnlineStore(system, store), log, DeadLetters(workspace.dead_letters), SystemClock())
        stream.step(stop)
        ready()
        stream.run(stop)


def _await_end_of_input(stop: threading.Event) -> None:
    with suppress(OSError):
        while os.read(sys.stdin.fileno(), 4096):
            pass
    stop.set()
