"""Registries for the tests of other programs, and the contract of storage drivers.

:class:`Registry` is for blocking code, :class:`AsyncRegistry` for code on a reactor; both have the
same options. :func:`serve` serves parts that a program has made itself.
"""

from twisted_registry.testing.async_registry import AsyncRegistry
from twisted_registry.testing.background_reactor import ReactorStopped, WouldDeadlock
from twisted_registry.testing.hooks import Proceed, RequestHook
from twisted_registry.testing.registry import Registry
from twisted_registry.testing.server import RunningServer, serve

__all__ = [
    "AsyncRegistry",
    "Proceed",
    "ReactorStopped",
    "Registry",
    "RequestHook",
    "RunningServer",
    "WouldDeadlock",
    "serve",
]
