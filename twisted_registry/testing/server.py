"""A registry for tests, in this process, on a free port.

::

    async with serve(reactor) as served:
        response = await treq.get(served.url + "/v2/")

There is no global state: several registries can run at the same time, on the caller's reactor.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from attrs import frozen
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.web.server import Site

from twisted_registry.api.resource import RegistryResource
from twisted_registry.api.root import make_error_body, make_root
from twisted_registry.auth.access import AuthenticatedPolicy, OpenAccess, SchemeAccess
from twisted_registry.http.site import HTTPSite
from twisted_registry.repository.parsing import ManifestWorker
from twisted_registry.repository.registry import Registry
from twisted_registry.storage.checked import CheckedDriver
from twisted_registry.storage.memory import MemoryDriver
from twisted_registry.storage.threads import Threads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from twisted.internet.interfaces import IStreamServerEndpoint

    from twisted_registry.api.context import APISettings
    from twisted_registry.auth.interfaces import IAccessController
    from twisted_registry.http.interfaces import Limits
    from twisted_registry.metrics.interfaces import IMetricsObserver
    from twisted_registry.repository.interfaces import IPresenceGate, IRegistryListener
    from twisted_registry.repository.policy import Policy
    from twisted_registry.storage.interfaces import IStorageDriver


@frozen
class RunningServer:
    """A registry that is listening.

    :ivar url: scheme, host and port, without a trailing slash.
    :ivar host: host and port, as in the names of images.
    :ivar port: the port.
    :ivar registry: the registry.
    :ivar authority: a PEM file with the certificate that clients must trust; None without TLS.
        It exists until the block ends.
    """

    url: str
    host: str
    port: int
    registry: Registry
    authority: Path | None = None


@asynccontextmanager
async def serve(
    reactor: Any,
    *,
    driver: IStorageDriver | None = None,
    settings: APISettings | None = None,
    policy: Policy | None = None,
    access: IAccessController | None = None,
    users: Mapping[str, str] | None = None,
    gate: IPresenceGate | None = None,
    listener: IRegistryListener | None = None,
    metrics: IMetricsObserver | None = None,
    limits: Limits | None = None,
    secret: bytes | None = None,
    prefix: str = "",
    use_twisted_site: bool = False,
    tls: bool = False,
) -> AsyncIterator[RunningServer]:
    """Serve a registry on 127.0.0.1 inside the block.

    :param driver: the store, which is closed at the end; None for one in memory.
    :param settings: settings of the API.
    :param access: the access controller; None permits everything.
    :param users: names and passwords of users with all rights, in place of ``access``.
    :param prefix: a path to serve under (``/registry/``).
    :param use_twisted_site: use the HTTP channel of twisted.web instead of the registry's.
    :param tls: use TLS, with a certificate for 127.0.0.1, ::1 and localhost.
    """
    if users is not None:
        access = _password_access(users, reactor)
    store = MemoryDriver(reactor) if driver is None else driver
    threads = Threads(reactor, 1, "manifests")
    registry = Registry(
        CheckedDriver(store, reactor),
        reactor,
        policy,
        gate,
        listener,
        secret,
        worker=ManifestWorker(threads.run_blocking),
    )
    api = RegistryResource(registry, access or OpenAccess(), reactor, settings, metrics)
    tree = make_root(api, prefix)
    site: Any = (
        Site(tree, reactor=reactor)
        if use_twisted_site
        else HTTPSite(tree, reactor, limits, make_error_body=make_error_body)
    )
    with TemporaryDirectory() as folder:
        endpoint: IStreamServerEndpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        if tls:
            endpoint = _with_tls(reactor, endpoint, folder)
        port: Any = await endpoint.listen(site)
        number = port.getHost().port
        host = f"127.0.0.1:{number}"
        try:
            url = f"{'https' if tls else 'http'}://{host}"
            yield RunningServer(
                url, host, number, registry, Path(folder) / "ca.crt" if tls else None
            )
        finally:
            await maybeDeferred(port.stopListening)
            if not use_twisted_site:
                site.abort()
            await store.close()
            await threads.close()


def _password_access(users: Mapping[str, str], reactor: Any) -> IAccessController:
    from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse  # noqa: PLC0415

    from twisted_registry.auth.basic import make_basic_scheme  # noqa: PLC0415

    checker = InMemoryUsernamePasswordDatabaseDontUse(
        **{name: password.encode() for name, password in users.items()}
    )
    access: IAccessController = SchemeAccess(
        make_basic_scheme("test", checker, reactor), AuthenticatedPolicy()
    )
    return access


def _with_tls(reactor: Any, endpoint: IStreamServerEndpoint, folder: str) -> IStreamServerEndpoint:
    from twisted_registry.tls.context import TLSOptions, make_context  # noqa: PLC0415
    from twisted_registry.tls.endpoint import (  # noqa: PLC0415
        TLSConnectionCreator,
        TLSEndpoint,
    )
    from twisted_registry.tls.sources import AutomaticCertificates  # noqa: PLC0415

    hosts = ("127.0.0.1", "::1", "localhost")
    bundle = AutomaticCertificates(Path(folder), hosts, reactor.seconds).load()
    secure: IStreamServerEndpoint = TLSEndpoint(
        reactor, endpoint, TLSConnectionCreator(make_context(bundle, TLSOptions()))
    )
    return secure
