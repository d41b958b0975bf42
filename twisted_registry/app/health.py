"""Health checks of a configuration: the section ``health``.

The first process of a registry checks for all, so that a check costs the same with any number of
workers, and that all of them give the same answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_registry.config.http import parse_host_and_port
from twisted_registry.health.checks import FileCheck, StorageCheck, TCPCheck
from twisted_registry.health.registry import HealthChecks, HealthRegistry, ScheduledCheck

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from twisted_registry.config.health import HttpHealth
    from twisted_registry.config.schema import Configuration
    from twisted_registry.health.interfaces import ICheck
    from twisted_registry.storage.interfaces import IStorageDriver

#: For an interval of 0, as in Distribution.
_DEFAULT_INTERVAL_S = 10.0
_MIN_INTERVAL_S = 0.1
#: For checks without a timeout. An operation on a bucket that stalls ends in this time by itself.
_DEFAULT_TIMEOUT_S = 30.0
#: The status that is expected for a ``statuscode`` of 0, as in Distribution.
_DEFAULT_STATUS = 200


def make_health_checks(
    configuration: Configuration, driver: IStorageDriver, reactor: Any
) -> tuple[HealthRegistry, HealthChecks]:
    """Make the checks of a configuration, and the service that runs them.

    :param driver: the driver of the store.
    """
    checks = [
        *_storage_checks(configuration, driver),
        *(
            _schedule(FileCheck(reactor, section.file), section.interval)
            for section in configuration.health.file
        ),
        *_http_checks(configuration.health.http, reactor),
        *_tcp_checks(configuration, reactor),
    ]
    registry = HealthRegistry(checks)
    return registry, HealthChecks(registry, checks, reactor)


def _schedule(
    check: ICheck, interval_s: float, threshold: int = 0, timeout_s: float = 0
) -> ScheduledCheck:
    interval_s = max(interval_s or _DEFAULT_INTERVAL_S, _MIN_INTERVAL_S)
    return ScheduledCheck(check, interval_s, timeout_s or _DEFAULT_TIMEOUT_S, threshold or 1)


def _storage_checks(
    configuration: Configuration, driver: IStorageDriver
) -> Iterator[ScheduledCheck]:
    section = configuration.health.storagedriver
    if section.enabled:
        yield _schedule(StorageCheck(driver), section.interval, section.threshold)


def _http_checks(sections: Sequence[HttpHealth], reactor: Any) -> Iterator[ScheduledCheck]:
    if not sections:
        return
    from twisted_registry.health.http_check import HTTPCheck  # noqa: PLC0415 - an HTTP client

    for section in sections:
        timeout_s = section.timeout or _DEFAULT_TIMEOUT_S
        status = section.statuscode or _DEFAULT_STATUS
        check = HTTPCheck.make(reactor, section.uri, section.headers, status, timeout_s)
        yield _schedule(check, section.interval, section.threshold, timeout_s)


def _tcp_checks(configuration: Configuration, reactor: Any) -> Iterator[ScheduledCheck]:
    for section in configuration.health.tcp:
        timeout_s = section.timeout or _DEFAULT_TIMEOUT_S
        address = parse_host_and_port(section.addr)
        check = TCPCheck(
            reactor, section.addr, address.host or "localhost", address.port or 0, timeout_s
        )
        yield _schedule(check, section.interval, section.threshold, timeout_s)
