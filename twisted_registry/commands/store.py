"""The store that a command works on."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from twisted_registry.app.errors import CommandFailed, StartError
from twisted_registry.app.maintenance import make_gate_heartbeat, make_trash
from twisted_registry.app.stores import make_driver, make_manifest_policy
from twisted_registry.gc.gate import CollectorGate
from twisted_registry.repository.registry import Registry
from twisted_registry.storage.checked import CheckedDriver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from twisted_registry.config.schema import Configuration
    from twisted_registry.storage.interfaces import IStorageDriver

#: Names of folders that are kept, 5 MB: who goes through a whole store once has no use for more.
_MAX_KEPT_NAMES = 50_000


@asynccontextmanager
async def open_store(configuration: Configuration, reactor: Any) -> AsyncIterator[IStorageDriver]:
    """Have the store of a configuration inside the block.

    :raises CommandFailed: if its driver can not be as it is configured.
    """
    try:
        driver = make_driver(configuration, reactor, os.environ, _MAX_KEPT_NAMES)
    except StartError as error:
        raise CommandFailed(str(error)) from error
    try:
        yield CheckedDriver(driver, reactor)
    finally:
        await driver.close()


def make_registry(configuration: Configuration, driver: IStorageDriver, reactor: Any) -> Registry:
    """A registry that removes things as the configuration says, and stores nothing."""
    return Registry(
        driver,
        reactor,
        policy=make_manifest_policy(configuration),
        deleter=make_trash(configuration, driver, reactor),
    )


@asynccontextmanager
async def open_writable_registry(
    configuration: Configuration, driver: IStorageDriver, reactor: Any
) -> AsyncIterator[Registry]:
    """Have a registry inside the block that may store, since it heeds collectors as others do."""
    gate = CollectorGate(driver, reactor)
    registry = Registry(
        driver,
        reactor,
        gate=gate,
        policy=make_manifest_policy(configuration),
        deleter=make_trash(configuration, driver, reactor),
    )
    await gate.poll()
    heartbeat = make_gate_heartbeat(gate, configuration, reactor)
    heartbeat.startService()
    try:
        yield registry
    finally:
        await heartbeat.stopService()


def is_in_memory(configuration: Configuration) -> bool:
    """Whether the store is in the memory of another process, where no command reaches it."""
    return "inmemory" in configuration.storage.drivers
