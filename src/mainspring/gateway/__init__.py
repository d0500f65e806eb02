"""The HTTP face of one system: a thin ASGI application, its server, and the sticky split of traffic."""

from mainspring.gateway.app import App
from mainspring.gateway.server import background, serve
from mainspring.gateway.service import Service
from mainspring.gateway.split import assign

__all__ = ["App", "Service", "assign", "background", "serve"]
