"""``http.tls`` joined to constructors: a part of service.py, imported where it is configured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast

from twisted.application.service import MultiService
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from twisted_registry.acme.cache import ACMECache
from twisted_registry.api.root import DocumentResource
from twisted_registry.app.errors import StartError
from twisted_registry.tls.authority import last_certificate, trust_instructions
from twisted_registry.tls.context import (
    ClientAuth,
    TLSOptions,
    make_context,
    missing_ciphers,
)
from twisted_registry.tls.endpoint import TLSConnectionCreator, TLSEndpoint
from twisted_registry.tls.interfaces import CertificateError
from twisted_registry.tls.reload import CertificateReloader, ExpiryWarning
from twisted_registry.tls.sources import AutomaticCertificates, CertificateFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IStreamServerEndpoint

    from twisted_registry.acme.renewal import CertificateRenewal
    from twisted_registry.config.http import Tls
    from twisted_registry.config.schema import Configuration
    from twisted_registry.tls.interfaces import CertificateBundle, ICertificateSource

log = Logger()

T = TypeVar("T")

#: Where the certificate of an authority of our own can be downloaded.
_CA_FILE: Final = "ca.crt"


class TLSService(MultiService):
    """TLS as it is configured.

    The first of several processes looks after the files, and shows what they hold to the others.
    """

    def __init__(
        self, configuration: Configuration, reactor: Any, material: CertificateBundle | None = None
    ) -> None:
        """Take what is configured; no file is read yet.

        :param material: what the first process has read, if this is another.
        """
        super().__init__()
        self.setName("tls")
        section = configuration.http.tls
        self._download = f"{configuration.http.prefix or '/'}{_CA_FILE}"
        self._section = section
        self._material = material
        self._others: Callable[[CertificateBundle], object] | None = None
        self._reactor = reactor
        self._source = _source(configuration, reactor.seconds)
        self._tls_options = _tls_options(section, self._source)
        self._renewal = self._make_renewal() if material is None else None
        self._connection_creator: TLSConnectionCreator | None = None
        self._reloader: CertificateReloader | None = None
        self._reminder: ExpiryWarning | None = None

    @property
    def documents(self) -> Mapping[str, DocumentResource]:
        """What clients can download, by name."""
        if not self._section.auto.hosts:
            return {}
        return {_CA_FILE: DocumentResource("application/x-pem-file", self._authority)}

    def prepare(self) -> None:
        """Read the files: done before the process gives up rights that it may need for them.

        :raises StartError: if the files can not be read or used; the text names the key.
        """
        if missing := missing_ciphers(self._tls_options.ciphers):
            raise StartError(
                f"http.tls.ciphersuites: this OpenSSL has no {', '.join(missing)} (its name for it)"
            )
        try:
            if self._material is None:
                # It looks before we read: what changes in between is read again.
                self._reloader = CertificateReloader(
                    self._reactor, self._source, self._read, self.use
                )
                self._reloader.setServiceParent(self)
                self._reminder = ExpiryWarning(self._reactor, self._current_bundle)
                self._reminder.setServiceParent(self)
                if self._renewal is not None:
                    self._renewal.setServiceParent(self)
                self._material = self._source.load()
            context = make_context(self._material, self._tls_options)
            self._connection_creator = TLSConnectionCreator(
                context, self._tls_options.client_auth.verifies
            )
        except CertificateError as error:
            raise StartError(f"http.tls.{error}") from error

    def public_host(self, host: str) -> str:
        """What clients call ``host:port`` on this machine."""
        hosts = self._section.auto.hosts or self._section.letsencrypt.hosts
        port = host.rpartition(":")[2]
        if not (hosts and port):
            return host
        return hosts[0] if port == "443" else f"{hosts[0]}:{port}"

    def log_client_advice(self, address: object) -> None:
        """Say what is to be done on clients, if anything.

        :param address: where the registry listens.
        """
        hosts = self._section.auto.hosts
        if hosts and isinstance(address, IPv4Address | IPv6Address):
            for line in trust_instructions(
                hosts[0], address.port, self._download, self._authority()
            ):
                log.info("{line}", line=line)

    def wrap_endpoint(self, endpoint: IStreamServerEndpoint) -> IStreamServerEndpoint:
        """An endpoint that listens on another one, with TLS."""
        assert self._connection_creator is not None
        return TLSEndpoint(self._reactor, endpoint, self._connection_creator)

    def share_with(self, set_certificate: Callable[[CertificateBundle], object]) -> None:
        """Have other processes show the same, now and after each change."""
        self._others = set_certificate
        set_certificate(self._current_bundle())

    def reload(self) -> None:
        """Read the files again, now; what could not be ordered before is tried again."""
        if self._reloader is not None:
            self._reloader.reload()
        if self._renewal is not None:
            self._renewal.retry_now()

    def use(self, material: CertificateBundle) -> None:
        """Show something else to clients that connect from now on.

        :raises CertificateError: if that is not possible.
        """
        assert self._connection_creator is not None
        self._connection_creator.context = make_context(material, self._tls_options)
        self._material = material
        if self._reminder is not None:
            self._reminder.log_expiry()
        if self._others is not None:
            self._others(material)

    def _make_renewal(self) -> CertificateRenewal | None:
        acme = self._section.letsencrypt
        if not isinstance(self._source, ACMECache):
            return None
        try:
            from twisted_registry.acme.renewal import (  # noqa: PLC0415 - an extra
                CertificateRenewal,
                Orders,
            )
        except ModuleNotFoundError as error:
            raise StartError(
                f"http.tls.letsencrypt: needs the package {error.name}: install"
                " twisted-registry[acme]"
            ) from error
        cache, reactor = self._source, self._reactor
        orders = Orders(reactor, cache, acme.directory, acme.email, self._in_thread)
        return CertificateRenewal(reactor, cache, orders, self._in_thread, self._renewed)

    def _renewed(self) -> None:
        assert self._reloader is not None
        self._reloader.reload()

    def _in_thread(self, call: Callable[..., T], *arguments: object) -> Deferred[T]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), call, *arguments)

    def _read(self) -> Deferred[CertificateBundle]:
        return self._in_thread(self._read_checked)

    def _read_checked(self) -> CertificateBundle:
        material = self._source.load()
        make_context(material, self._tls_options)
        return material

    def _current_bundle(self) -> CertificateBundle:
        assert self._material is not None
        return self._material

    def _authority(self) -> bytes:
        return last_certificate(self._current_bundle().certificate)


def _source(configuration: Configuration, now: Callable[[], float]) -> ICertificateSource:
    section = configuration.http.tls
    acme = section.letsencrypt
    if acme.cachefile:
        cache: ICertificateSource = ACMECache(
            Path(acme.cachefile).absolute(), acme.hosts, now, section.clientcas
        )
        return cache
    if not section.auto.hosts:
        files: ICertificateSource = CertificateFiles(
            section.certificate, section.keyfile, section.clientcas
        )
        return files
    filesystem = configuration.storage.filesystem
    if section.auto.folder or filesystem is None:
        folder = Path(section.auto.folder)
    else:
        folder = Path(filesystem.rootdirectory) / "twisted-registry" / "tls"
    automatic: ICertificateSource = AutomaticCertificates(
        folder.absolute(), section.auto.hosts, now, section.clientcas
    )
    return automatic


def _tls_options(section: Tls, source: ICertificateSource) -> TLSOptions:
    clients = section.clientauth or ClientAuth.REQUIRE.value
    return TLSOptions(
        cast("Literal['tls1.2', 'tls1.3']", section.minimumtls or "tls1.2"),
        section.ciphers,
        ClientAuth(clients) if section.clientcas else ClientAuth.NONE,
        source.challenge_certificate if isinstance(source, ACMECache) else None,
    )
