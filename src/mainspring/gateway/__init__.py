"""The HTTP face of systems: an application behind a door, its server and supervisor, and the sticky split of traffic."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mainspring.gateway.app import App
    from mainspring.gateway.server import background, serve
    from mainspring.gateway.service import Service
    from mainspring.gateway.split import assign

__all__ = ["App", "Service", "assign", "background", "serve"]

_MODULES = {"App": "app", "Service": "service", "assign": "split", "background": "server", "serve": "server"}


def __getattr__(name: str) -> object:
    """Load a name when it is asked for: the supervisor needs none of them."""
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f"module 'mainspring.gateway' has no attribute '{name}'")
    return getattr(import_module(f"mainspring.gateway.{_MODULES[name]}"), name)
