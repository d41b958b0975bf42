"""The store and the registry that a command works on."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

from twisted.internet.task import LoopingCall

from twisted_registry.app import standalone
from twisted_registry.app.maintenance import make_gate, make_gate_heartbeat, make_trash
from twisted_registry.app.stores import make_driver, make_manifest_policy, s3_section_name
from twisted_registry.frame.errors import CommandFailed, StartError
from twisted_registry.gc.mark import CollectionFailed
from twisted_registry.maintenance.lease import RunSkipped
from twisted_registry.maintenance.undelete import NotRecoverable
from twisted_registry.repository.registry import Registry
from twisted_registry.storage.checked import CheckedDriver
from twisted_registry.storage.fallbacks import with_reserve
from twisted_registry.storage.interfaces import IReserve, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from twisted_registry.config.loading import LoadedConfiguration
    from twisted_registry.config.schema import Configuration
    from twisted_registry.gc.gate import CollectorGate
    from twisted_registry.storage.interfaces import IStorageDriver
    from twisted_registry.storage.s3.driver import S3Driver

T = TypeVar("T")

#: Fewer than for a serving process: a command reads most folders once. About 5 MB.
_MAX_CACHED_NAMES = 50_000
_REDRAW_INTERVAL_S = 0.5


@asynccontextmanager
async def open_store(
    loaded: LoadedConfiguration, reactor: Any, *, check_bucket: bool = False
) -> AsyncIterator[IStorageDriver]:
    """Open the store of a configuration for the block.

    :param check_bucket: send a request to a bucket first, so that a wrong option is named.
    :raises CommandFailed: if the driver cannot be made, or the bucket cannot be used, or if the
        block raises an error whose text is for the operator.
    """
    configuration = loaded.configuration
    try:
        driver = make_driver(configuration, reactor, os.environ, _MAX_CACHED_NAMES)
        try:
            if check_bucket and configuration.storage.bucket is not None:
                # Imported late: it imports an HTTP client and OpenSSL.
                from twisted_registry.app.s3 import require_bucket  # noqa: PLC0415

                await require_bucket(s3_section_name(configuration), cast("S3Driver", driver))
            yield CheckedDriver(driver, reactor)
        finally:
            await driver.close()
    except StartError as error:
        raise CommandFailed(f"{loaded.origin}: {error}") from error
    except (CollectionFailed, NotRecoverable, RunSkipped) as error:
        raise CommandFailed(str(error)) from error


def run_on_store(
    loaded: LoadedConfiguration, work: Callable[[IStorageDriver, Any], Awaitable[T]]
) -> T:
    """Run the reactor while *work* uses the store of a configuration.

    :param work: given the driver, which may use the reserve of the store, and the reactor.
    :raises SystemExit: with status 1 if it failed, after printing why.
    """

    async def run(reactor: Any) -> T:
        async with open_store(loaded, reactor) as driver:
            try:
                return await work(with_reserve(driver), reactor)
            finally:
                await _refill_reserve(driver)

    return standalone.run_once(run)


async def _refill_reserve(driver: IStorageDriver) -> None:
    """Make again what the command has used of the reserve; otherwise the registry does."""
    reserve = IReserve(driver, None)
    if reserve is not None:
        with suppress(StorageError):
            await reserve.refill(create=False)


@contextmanager
def redraw(draw: Callable[[], object], reactor: Any) -> Iterator[None]:
    """Call a function that shows progress twice a second during the block."""
    loop = LoopingCall(draw)
    loop.clock = reactor
    loop.start(_REDRAW_INTERVAL_S)
    try:
        yield
    finally:
        loop.stop()


def make_registry(
    configuration: Configuration,
    driver: IStorageDriver,
    reactor: Any,
    gate: CollectorGate | None = None,
) -> Registry:
    """Make a registry with the policy and the trash of the configuration.

    :param gate: protects pushes from collectors; without it nothing may be stored.
    """
    return Registry(
        driver,
        reactor,
        gate=gate,
        policy=make_manifest_policy(configuration),
        deleter=make_trash(configuration, driver, reactor),
    )


@asynccontextmanager
async def open_writable_registry(
    configuration: Configuration, driver: IStorageDriver, reactor: Any
) -> AsyncIterator[Registry]:
    """Run a registry for the block that can store content while collectors run."""
    gate = make_gate(configuration, driver, reactor)
    registry = make_registry(configuration, driver, reactor, gate)
    await gate.poll()
    heartbeat = make_gate_heartbeat(configuration, gate, reactor)
    heartbeat.startService()
    try:
        yield registry
    finally:
        await heartbeat.stopService()
