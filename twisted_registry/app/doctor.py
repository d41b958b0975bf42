"""The checks of ``twisted-registry doctor`` for a configuration."""

from __future__ import annotations

import os
import resource
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

from attrs import field, frozen
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from twisted_registry.app.logs import make_mail_server
from twisted_registry.app.middleware import apply_middleware
from twisted_registry.app.start_checks import audit_path, check_start, written_folders
from twisted_registry.app.stores import make_driver, s3_section_name
from twisted_registry.config.http import parse_host_and_port
from twisted_registry.doctor.bucket import check_bucket_rights
from twisted_registry.doctor.certificates import check_authorities, check_certificate
from twisted_registry.doctor.findings import Finding
from twisted_registry.doctor.network import (
    check_clock,
    check_clock_against_file,
    check_mail_server,
    check_port,
    check_server,
)
from twisted_registry.doctor.runner import Check, on_thread
from twisted_registry.doctor.store import check_file_system, check_space, check_store
from twisted_registry.frame.errors import StartError
from twisted_registry.http.client import make_agent
from twisted_registry.repository import layout
from twisted_registry.storage.s3.files import KeyMapping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from twisted.internet.defer import Deferred

    from twisted_registry.config.loading import LoadedConfiguration
    from twisted_registry.config.schema import Configuration
    from twisted_registry.doctor.network import Listener
    from twisted_registry.doctor.unit import Unit
    from twisted_registry.logs.mail import MailServer
    from twisted_registry.storage.s3.driver import S3Driver

#: Requests to a store that stalls end after 30 seconds, and several follow each other.
_BUCKET_TIMEOUT_S: Final = 120.0
_CONNECT_TIMEOUT_S: Final = 5.0
_POLL_S: Final = 0.05
_PORTS: Final = {"http": 80, "https": 443}
#: Connections that a process without http.limits.connections should be able to have.
_FEW_CONNECTIONS: Final = 1024


@frozen
class Surroundings:
    """What was found out before the process took the rights of the service's user.

    :ivar unit: the systemd unit of the registry; None without one.
    :ivar listeners: the processes that listen on ports of the configuration, by port.
    """

    unit: Unit | None = None
    listeners: Mapping[int, Listener | None] = field(factory=dict)


def listening_ports(configuration: Configuration) -> Iterator[tuple[str, str, int]]:
    """Yield the TCP ports that a registry listens on: key, host and port."""
    for key, address in configuration.http.listening_addresses().items():
        if address.port:
            yield key, "::" if address.dual_stack else address.host, address.port


def make_checks(
    loaded: LoadedConfiguration,
    surroundings: Surroundings,
    reactor: Any,
    environ: Mapping[str, str],
) -> list[Check]:
    """Make the checks of a configuration.

    :param environ: environment variables, which may set the credentials of a bucket.
    """
    configuration = loaded.configuration

    def blocking(name: str, *functions: Callable[[], Sequence[Finding]]) -> Check:
        return Check(
            name, on_thread(reactor, lambda: [each for call in functions for each in call()])
        )

    return [
        blocking("configuration", partial(_check_warnings, loaded)),
        blocking("start", partial(check_start, configuration, os.environ)),
        *(
            [blocking("unit", partial(_check_unit, configuration, surroundings.unit))]
            if surroundings.unit is not None
            else []
        ),
        *_store_checks(configuration, blocking),
        blocking("clock", partial(check_clock_against_file, loaded.origin, reactor.seconds())),
        *(
            [blocking("certificates", partial(_check_certificates, configuration, reactor.seconds))]
            if configuration.http.tls.certificate
            else []
        ),
        *(
            blocking(key, partial(check_server, key, host, port))
            for key, host, port in _servers(configuration)
        ),
        *(
            blocking(key, partial(check_mail_server, key, server))
            for key, server in _mail_servers(configuration)
        ),
        *_bucket_checks(configuration, reactor, environ),
        *(
            [Check("redis", partial(_check_redis, configuration, reactor))]
            if configuration.storage.cache.kind == "redis"
            else []
        ),
        blocking("descriptors", partial(_check_descriptors, configuration, surroundings.unit)),
        *(
            blocking(key, partial(_check_port, key, host, port, surroundings))
            for key, host, port in listening_ports(configuration)
        ),
    ]


def _check_warnings(loaded: LoadedConfiguration) -> list[Finding]:
    found = []
    for warning in loaded.warnings:
        key, _, problem = warning.partition(": ")
        found.append(
            Finding(key, problem, "configuration", "correct or remove it", is_warning=True)
        )
    return found


def _check_unit(configuration: Configuration, unit: Unit | None) -> list[Finding]:
    assert unit is not None
    paths = list(written_folders(configuration))
    if audit_path(configuration):
        paths.append(("log.audit", str(Path(audit_path(configuration)).parent)))
    return unit.check_paths(paths)


def _store_checks(configuration: Configuration, blocking: Callable[..., Check]) -> Iterator[Check]:
    filesystem, maintenance = configuration.storage.filesystem, configuration.storage.maintenance
    if filesystem is None:
        return
    key = "storage.filesystem.rootdirectory"
    root = str(Path(filesystem.rootdirectory).absolute())
    is_written = not maintenance.readonly.enabled
    yield blocking("store", partial(check_store, key, root, is_written=is_written))
    yield blocking("file system", partial(check_file_system, key, root))
    if is_written:
        yield blocking("space", partial(check_space, key, root, maintenance.watermark.refuse))


def _check_certificates(configuration: Configuration, now: Callable[[], float]) -> list[Finding]:
    """Check certificates that can be read; the others are found by the check of the start."""
    section = configuration.http.tls
    host = urlsplit(configuration.http.host).hostname or ""
    found = []
    try:
        content = Path(section.certificate).read_bytes()
        found += check_certificate("http.tls.certificate", content, now(), host)
        for index, path in enumerate(section.clientcas):
            content = Path(path).read_bytes()
            found += check_authorities(f"http.tls.clientcas[{index}]", content, now())
    except (OSError, ValueError):
        pass
    return found


def _servers(configuration: Configuration) -> Iterator[tuple[str, str, int]]:
    """Yield the TCP servers that a registry connects to, besides Redis: key, host and port."""
    urls = {
        f"notifications.endpoints[{number}].url": endpoint.url
        for number, endpoint in enumerate(configuration.notifications.endpoints)
        if not endpoint.disabled
    }
    for number, check in enumerate(configuration.health.http):
        urls[f"health.http[{number}].uri"] = check.uri
    for key, url in urls.items():
        parts = urlsplit(url)
        yield key, parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 443)
    for number, tcp in enumerate(configuration.health.tcp):
        parsed = parse_host_and_port(tcp.addr)
        yield f"health.tcp[{number}].addr", parsed.host or "localhost", parsed.port or 0


def _mail_servers(configuration: Configuration) -> Iterator[tuple[str, MailServer]]:
    """Yield the servers that get log lines, with their keys."""
    for number, hook in enumerate(configuration.log.hooks):
        if not hook.disabled:
            server = make_mail_server(hook, timeout_s=_CONNECT_TIMEOUT_S)
            yield f"log.hooks[{number}].options.smtp", server


def _bucket_checks(
    configuration: Configuration, reactor: Any, environ: Mapping[str, str]
) -> Iterator[Check]:
    if configuration.storage.bucket is None:
        return
    work = partial(_check_bucket, configuration, reactor, environ)
    yield Check(f"storage.{s3_section_name(configuration)}", work, _BUCKET_TIMEOUT_S)


async def _check_bucket(
    configuration: Configuration, reactor: Any, environ: Mapping[str, str]
) -> list[Finding]:
    key = f"storage.{s3_section_name(configuration)}"
    try:
        driver: Any = make_driver(configuration, reactor, environ)
        apply_middleware(configuration, driver, reactor)
    except StartError as error:
        subject, _, problem = str(error).partition(": ")
        return [Finding(subject, problem, "as serve does at its start", "correct the key")]
    try:
        return await _check_open_bucket(configuration, key, driver, reactor)
    finally:
        await driver.close()


async def _check_open_bucket(
    configuration: Configuration, key: str, driver: S3Driver, reactor: Any
) -> list[Finding]:
    client: Any = driver.client
    url = client.sender.address.url("/")
    agent = make_agent(reactor, _CONNECT_TIMEOUT_S)
    found = await check_clock(f"{key}.regionendpoint", url, agent, reactor.seconds)
    prefix = KeyMapping(driver.root).object_key(f"{layout.DOCTOR}/{uuid4().hex}")
    is_written = not configuration.storage.maintenance.readonly.enabled
    return [*found, *await check_bucket_rights(key, client, prefix, is_written=is_written)]


async def _check_redis(configuration: Configuration, reactor: Any) -> list[Finding]:
    """Connect, and read a key as the cache does."""
    # The extra may be missing, which the check of the start finds.
    from twisted_registry.app.redis import make_redis_cache, make_redis_endpoint  # noqa: PLC0415

    assert configuration.redis is not None
    address = configuration.redis.address
    try:
        endpoint = make_redis_endpoint(configuration.redis, reactor)
        cache = make_redis_cache(configuration, reactor)
    except StartError as error:
        key, _, problem = str(error).partition(": ")
        return [Finding(key, problem, "as serve does at its start", "correct the key")]
    try:
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        connection: Any = await endpoint.connect(factory)
        connection.transport.loseConnection()
        for _ in range(round(_CONNECT_TIMEOUT_S / _POLL_S)):
            if cache.connected():
                break
            await deferLater(reactor, _POLL_S)
        else:
            problem = f"{address} accepts connections, and closes them"
            advice = "correct redis.username and redis.password, or redis.db"
            return [Finding("redis.password", problem, "connect", advice)]
        reply: Deferred[Any] = cache.client.get("twisted-registry:doctor")
        await reply.addTimeout(_CONNECT_TIMEOUT_S, reactor)
    except Exception as error:  # noqa: BLE001 - of the library and of Twisted
        problem = f"{address} cannot be used"
        advice = "start the server, or correct address, user, password and TLS"
        return [Finding("redis", problem, str(error) or type(error).__name__, advice)]
    finally:
        await cache.close()
    return []


def _check_descriptors(configuration: Configuration, unit: Unit | None) -> list[Finding]:
    """Compare the limit of descriptors with the connections of each process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A registry raises its soft limit to the hard one.
    limit = (unit.max_descriptors if unit is not None else 0) or (
        sys.maxsize if hard == resource.RLIM_INFINITY else hard
    )
    wanted = configuration.http.limits.connections
    evidence = f"RLIMIT_NOFILE is {limit} for each process"
    advice = "raise it: LimitNOFILE=65536 in the unit, or ulimit -n 65536"
    if wanted and wanted > limit // 2:
        problem = f"{wanted} connections leave too few descriptors for files"
        return [Finding("http.limits.connections", problem, evidence, advice)]
    if limit // 2 < _FEW_CONNECTIONS:
        problem = f"only {limit // 2} connections at the same time"
        return [Finding("descriptors", problem, evidence, advice, is_warning=True)]
    return []


def _check_port(key: str, host: str, port: int, surroundings: Surroundings) -> list[Finding]:
    unit = surroundings.unit
    may_bind_low = os.geteuid() == 0 if unit is None else unit.may_bind_low
    listener = surroundings.listeners.get(port)
    return check_port(key, host, port, listener, may_bind_low=may_bind_low)
