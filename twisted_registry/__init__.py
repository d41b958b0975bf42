"""A container-image registry: the Docker and OCI distribution protocol on Twisted.

The names in ``__all__``, and those of :mod:`twisted_registry.testing`, are the public interface for
other programs. They are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twisted_registry.app.embedding import RegistryRoot, make_resource
    from twisted_registry.app.service import RegistryService
    from twisted_registry.auth.interfaces import IAccessController
    from twisted_registry.config.document import ConfigurationError
    from twisted_registry.config.loading import load as load_configuration
    from twisted_registry.frame.errors import StartError
    from twisted_registry.repository.interfaces import Event, IRegistryListener
    from twisted_registry.storage.interfaces import IStorageDriver

__version__ = "0.1.0"

__all__ = [
    "ConfigurationError",
    "Event",
    "IAccessController",
    "IRegistryListener",
    "IStorageDriver",
    "RegistryRoot",
    "RegistryService",
    "StartError",
    "load_configuration",
    "make_resource",
]

_MODULES = {
    "ConfigurationError": "config.document",
    "Event": "repository.interfaces",
    "IAccessController": "auth.interfaces",
    "IRegistryListener": "repository.interfaces",
    "IStorageDriver": "storage.interfaces",
    "RegistryRoot": "app.embedding",
    "RegistryService": "app.service",
    "StartError": "frame.errors",
    "load_configuration": "config.loading",
    "make_resource": "app.embedding",
}


def __getattr__(name: str) -> Any:
    """Import a public name."""
    from importlib import import_module  # noqa: PLC0415 - the commands import this module first

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    attribute = "load" if name == "load_configuration" else name
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), attribute)
