"""The gateway's application as a deployment of Ray Serve: its replicas answer from one workspace, behind Ray's own HTTP proxy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mainspring.errors import DeclarationError, MissingExtraError, did_you_mean
from mainspring.gateway.app import App
from mainspring.gateway.asgi import AsgiApp, Receive, Scope, Send
from mainspring.gateway.backend import opened
from mainspring.gateway.door.door import Door, open_door
from mainspring.gateway.settings import Settings, read_settings
from mainspring.storage.workspace import Workspace

DEPLOYMENT = "gateway"
_ARGUMENTS = ("workspace", "settings")


def application(arguments: dict[str, str]) -> Any:
    """What ``import_path`` of a Serve configuration names: the systems of a workspace, under the settings of a file if one is named.

    ``arguments`` are ``workspace`` and ``settings``, paths that every node has. Events are folded into the online store elsewhere
    (``mainspring features stream``); settings of connections (timeouts, TLS, the head of a request) are the proxy's, not ours.

    Raises:
        MissingExtraError: the package ``ray[serve]`` is not installed.
        DeclarationError: an argument is missing, or not known.
    """
    try:
        from ray import serve
    except ImportError as error:
        raise MissingExtraError("Serving on Ray", "ray[serve]", "rayserve") from error
    for name in arguments:
        if name not in _ARGUMENTS:
            raise DeclarationError(f"Ray Serve, args: there is no argument '{name}'.{did_you_mean(name, _ARGUMENTS)}")
    if "workspace" not in arguments:
        raise DeclarationError("Ray Serve, args: the workspace is missing. Name the folder of a run that every node has.")
    workspace, file = Path(arguments["workspace"]), arguments.get("settings")
    settings = Settings() if file is None else read_settings(Path(file))

    def replica() -> Replica:
        return Replica(workspace, settings, serve.get_replica_context().replica_id.unique_id)

    return serve.deployment(serve.ingress(replica)(), name=DEPLOYMENT).bind()


class Replica:
    """An ASGI application that opens its workspace when its server starts, and closes it when that ends.

    ``name`` is its name in the prediction log.
    """

    def __init__(self, workspace: Path, settings: Settings, name: str) -> None:
        self._workspace = Workspace(workspace)
        self._settings = settings
        self._name = name
        self._app: AsgiApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the life of the server."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            assert self._app is not None
            await self._app(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        with self._open() as door:
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await door.close()
        await send({"type": "lifespan.shutdown.complete"})

    @contextlib.contextmanager
    def _open(self) -> Iterator[Door]:
        with opened(self._workspace, stream=False, worker=self._name) as backend:
            door = open_door(self._settings)
            self._app = AsgiApp(App(backend, door=door))
            yield door
