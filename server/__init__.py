"""Serve a store over HTTP."""

from compactds.server.app import create_app
from compactds.server.engine import SearchEngine
from compactds.server.run import serve, serving
from compactds.server.settings import ServerSettings

__all__ = ["SearchEngine", "ServerSettings", "create_app", "serve", "serving"]
