"""The one process of a server of several that folds new events into the online store."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import closing

from mainspring.clock import SystemClock
from mainspring.feature_store.dead_letters import DeadLetters
from mainspring.feature_store.online import OnlineStore
from mainspring.feature_store.stream import Stream
from mainspring.gateway.processes.parent import when_parent_is_gone
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
    when_parent_is_gone(stop.set)
    with closing(open_registry(workspace.registry_url)) as registry:
        system = load_system(registry)
    with closing(open_log(workspace.events_url)) as log, closing(open_key_value(workspace.online_url)) as store:
        stream = Stream(OnlineStore(system, store), log, DeadLetters(workspace.dead_letters), SystemClock())
        stream.step(stop)
        ready()
        stream.run(stop)
