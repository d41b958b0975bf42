"""A registry for tests, in this process, on a port of its own.

::

    async with serve(reactor) as served:
        response = await treq.get(served.url + "/v2/")

Nothing is global: several can run side by side, and the reactor is the caller's.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from attrs import frozen
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.internet.defer import maybeDeferred
from twisted.web.server import Site

from twisted_registry.api.resource import RegistryResource
from twisted_registry.api.root import make_error_body, make_root
from twisted_registry.app.listener import TCPEndpoint
from twisted_registry.auth.access import AuthenticatedPolicy, OpenAccess, SchemeAccess
from twisted_registry.auth.basic import make_basic_scheme
from twisted_registry.http.site import HTTPSite
from twisted_registry.repository.registry import Registry
from twisted_registry.storage.checked import CheckedDriver
from twisted_registry.storage.memory import MemoryDriver

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
    """A registry that listens.

    :ivar url: scheme, host and port, without a slash at the end.
    :ivar host: host and port, as clients of registries write it.
    :ivar port: the port.
    :ivar registry: what is served.
    :ivar authority: a PEM file with the certificate that clients have to trust; None without TLS.
        It is there inside the block.
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

    :param driver: where the bytes are; memory if None. It is closed at the end.
    :param settings: what an operator can set of the API.
    :param access: who may do what; everybody everything if None.
    :param users: names and passwords of those who may do everything, in place of ``access``.
    :param secret: signs the state in upload URLs; None for one that is kept in the store.
    :param prefix: serve under this path (``/registry/``).
    :param stock_site: use twisted.web's own HTTP channel instead of ours.
    :param tls: speak TLS, with a certificate for 127.0.0.1, ::1 and localhost.
    """
    if users is not None:
        access = _password_access(users, reactor)
    store = MemoryDriver(reactor) if driver is None else driver
    plugged: dict[str, Any] = {
        "gate": gate,
        "listener": listener,
        "policy": policy,
        "secret": secret,
    }
    registry = Registry(
        CheckedDriver(store, reactor),
        reactor,
        **{name: value for name, value in plugged.items() if value is not None},
    )
    api = RegistryResource(registry, access or OpenAccess(), reactor, settings, metrics)
    tree = make_root(api, prefix)
    site: Any = (
        Site(tree, reactor=reactor)
        if use_twisted_site
        else HTTPSite(tree, reactor, limits, make_error_body=make_error_body)
    )
    with TemporaryDirectory() as folder:
        endpoint: IStreamServerEndpoint = TCPEndpoint(reactor, 0, "127.0.0.1")
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


def _password_access(users: Mapping[str, str], reactor: Any) -> IAccessController:
    checker = InMemoryUsernamePasswordDatabaseDontUse(
        **{name: password.encode() for name, password in users.items()}
    )
    access: IAccessController = SchemeAccess(
        make_basic_scheme("test", checker, reactor), AuthenticatedPolicy()
    )
    return access


def _with_tls(reactor: Any, endpoint: IStreamServerEndpoint, folder: str) -> IStreamServerEndpoint:
    # Tests without TLS need none of it.
    from twisted_registry.tls.context import TLSOptions, make_context  # noqa: PLC0415
    from twisted_registry.tls.endpoint import TLSConnectionCreator, TLSEndpoint  # noqa: PLC0415
    from twisted_registry.tls.sources import AutomaticCertificates  # noqa: PLC0415

    hosts = ("127.0.0.1", "::1", "localhost")
    material = AutomaticCertificates(Path(folder), hosts, reactor.seconds).load()
    secure: IStreamServerEndpoint = TLSEndpoint(
        reactor, endpoint, TLSConnectionCreator(make_context(material, TLSOptions()))
    )
    return secure
