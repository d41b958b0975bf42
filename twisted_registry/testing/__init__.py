"""Tools for the tests of other programs: a server in this process, and the contract of drivers."""

from twisted_registry.testing.server import RunningServer, serve

__all__ = ["RunningServer", "serve"]
