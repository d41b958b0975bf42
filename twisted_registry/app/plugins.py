"""Storage drivers, access controllers and listeners of other packages, found by entry points.

An entry point names a function that takes the options of the configuration and the reactor. Its
group says what the function returns:

===============================  ===================================================================
``twisted_registry.storage``     an ``IStorageDriver``
``twisted_registry.auth``        an ``IAccessController``; one that provides
                                 ``IClosableAccessController`` is closed at the stop
``twisted_registry.listeners``   an ``IRegistryListener``
===============================  ===================================================================
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from twisted_registry.auth.interfaces import IAccessController, IClosableAccessController
from twisted_registry.frame.errors import StartError
from twisted_registry.repository.interfaces import IRegistryListener
from twisted_registry.storage.interfaces import IStorageDriver

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.metadata import EntryPoint

    from zope.interface.interface import InterfaceClass

    from twisted_registry.auth.interfaces import Access, Caller
    from twisted_registry.config.plugins import Plugin
    from twisted_registry.config.schema import Configuration

_STORAGE = "twisted_registry.storage"
_AUTH = "twisted_registry.auth"
_LISTENERS = "twisted_registry.listeners"


def make_plugin_driver(plugin: Plugin, reactor: Any) -> IStorageDriver:
    """Make the driver of ``storage.plugin``.

    :raises StartError: if it is not installed or cannot be made.
    """
    driver: IStorageDriver = _make(_STORAGE, "storage.plugin", plugin, reactor, IStorageDriver)
    return driver


def make_plugin_access(plugin: Plugin, reactor: Any) -> IClosableAccessController:
    """Make the access controller of ``auth.plugin``.

    :raises StartError: if it is not installed or cannot be made.
    """
    access: Any = _make(_AUTH, "auth.plugin", plugin, reactor, IAccessController)
    is_closable = bool(IClosableAccessController.providedBy(access))
    closable: IClosableAccessController = access if is_closable else _WithClose(access)
    return closable


def make_listeners(plugins: Sequence[Plugin], reactor: Any) -> Sequence[IRegistryListener]:
    """Make the listeners of ``listeners``.

    :raises StartError: if one is not installed or cannot be made.
    """
    return [
        _make(_LISTENERS, f"listeners[{number}]", plugin, reactor, IRegistryListener)
        for number, plugin in enumerate(plugins)
    ]


def require_plugins(configuration: Configuration) -> None:
    """Look for the plugins of a configuration; nothing is made.

    :raises StartError: if one is not installed.
    """
    if configuration.storage.plugin is not None:
        _find(_STORAGE, "storage.plugin", configuration.storage.plugin)
    if configuration.auth.plugin is not None:
        _find(_AUTH, "auth.plugin", configuration.auth.plugin)
    for number, plugin in enumerate(configuration.listeners):
        _find(_LISTENERS, f"listeners[{number}]", plugin)


def _find(group: str, key: str, plugin: Plugin) -> EntryPoint:
    found = {point.name: point for point in entry_points(group=group)}
    if plugin.name not in found:
        raise StartError(
            f"{key}.name: no installed package has the entry point {plugin.name!r} in the group"
            f" {group}; found {', '.join(sorted(found)) or 'none'}"
        )
    return found[plugin.name]


def _make(group: str, key: str, plugin: Plugin, reactor: Any, interface: InterfaceClass) -> Any:
    point = _find(group, key, plugin)
    value = point.value
    try:
        made = point.load()(dict(plugin.options), reactor)
    except StartError:
        raise
    except Exception as error:
        raise StartError(f"{key}: {value} failed: {type(error).__name__}: {error}") from error
    is_provided = bool(interface.providedBy(made))
    if not is_provided:
        raise StartError(f"{key}: {value} returned {made!r}, which is no {interface.__name__}")
    return made


@implementer(IClosableAccessController)
@frozen
class _WithClose:
    """An access controller that has nothing to close."""

    access: IAccessController

    def authorize(self, caller: Caller, accesses: Sequence[Access]) -> Any:
        return self.access.authorize(caller, accesses)

    def close(self) -> Deferred[None]:
        return succeed(None)
