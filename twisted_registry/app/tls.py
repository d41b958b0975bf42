"""TLS of a configuration, ``http.tls``: certificates, their reload and renewal.

Imported only if it is configured.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast

from twisted.application.service import MultiService
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from twisted_registry.acme.cache import ACMECache
from twisted_registry.api.response import Response
from twisted_registry.api.root import PageResource
from twisted_registry.config.loading import explain_read_error
from twisted_registry.frame.errors import StartError, require_extra
from twisted_registry.tls.authority import last_certificate, trust_instructions
from twisted_registry.tls.context import ClientAuth, TLSOptions, make_context, missing_ciphers
from twisted_registry.tls.endpoint import TLSConnectionCreator, TLSEndpoint
from twisted_registry.tls.interfaces import CertificateError
from twisted_registry.tls.reload import CertificateReloader, ExpiryWarning
from twisted_registry.tls.sources import AutomaticCertificates, CertificateFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IStreamServerEndpoint

    from twisted_registry.acme.renewal import CertificateRenewal
    from twisted_registry.config.schema import Configuration
    from twisted_registry.config.tls import Tls
    from twisted_registry.tls.interfaces import CertificateBundle, ICertificateSource

log = Logger()

T = TypeVar("T")

#: The download of the certificate of the authority that the registry has made (``auto``).
_CA_FILE: Final = "ca.crt"


class TLSService(MultiService):
    """Certificates and TLS options of a registry.

    The first process reads the certificate files, and sends their content to the workers.
    """

    def __init__(
        self, configuration: Configuration, reactor: Any, bundle: CertificateBundle | None = None
    ) -> None:
        """Prepare TLS; no file is read yet.

        :param bundle: in a worker, the certificates that the first process has read.
        :raises StartError: if the extra ``acme`` is missing, and ``letsencrypt`` is configured.
        """
        super().__init__()
        self.setName("tls")
        self._section = configuration.http.tls
        self._download_path = f"{configuration.http.prefix or '/'}{_CA_FILE}"
        self._bundle = bundle
        self._share: Callable[[CertificateBundle], object] | None = None
        self._reactor = reactor
        self._source = make_certificate_source(configuration, reactor.seconds)
        self._options = make_tls_options(configuration, self._source)
        self._renewal = self._make_renewal() if bundle is None else None
        self._connection_creator: TLSConnectionCreator | None = None
        self._reloader: CertificateReloader | None = None
        self._expiry_warning: ExpiryWarning | None = None

    @property
    def downloads(self) -> Mapping[str, PageResource]:
        """The documents that clients can download, by name."""
        if not self._section.auto.hosts:
            return {}
        return {_CA_FILE: PageResource(self._make_authority_page)}

    def prepare(self) -> None:
        """Read the files, before the process drops privileges that it may need for that.

        :raises StartError: if the files cannot be read or used; the text names the key.
        """
        if missing := missing_ciphers(self._options.ciphers):
            raise StartError(
                f"http.tls.ciphersuites: this OpenSSL has no {', '.join(missing)} (its name for it)"
            )
        try:
            if self._bundle is None:
                # The reloader stats the files first, so that it notices a change during the load.
                self._reloader = CertificateReloader(
                    self._reactor, self._source, self._load_in_thread, self.use_certificate
                )
                self._reloader.setServiceParent(self)
                self._expiry_warning = ExpiryWarning(self._reactor, self._current_bundle)
                self._expiry_warning.setServiceParent(self)
                if self._renewal is not None:
                    self._renewal.setServiceParent(self)
                self._bundle = self._source.load()
            self._connection_creator = TLSConnectionCreator(
                make_context(self._bundle, self._options), self._options.client_auth.verifies
            )
        except CertificateError as error:
            raise StartError(describe_certificate_error(error, self._section)) from error

    def public_host(self, host: str) -> str:
        """Return ``host:port`` for clients: with a host name of the certificate, if it is known.

        :param host: ``host:port`` for clients on this machine.
        """
        hosts = self._section.auto.hosts or self._section.letsencrypt.hosts
        port = host.rpartition(":")[2]
        if not (hosts and port):
            return host
        return hosts[0] if port == "443" else f"{hosts[0]}:{port}"

    def log_client_advice(self, address: object) -> None:
        """Log how clients come to trust an authority that the registry has made.

        :param address: the address of the listening port.
        """
        hosts = self._section.auto.hosts
        if hosts and isinstance(address, IPv4Address | IPv6Address):
            for line in trust_instructions(
                hosts[0], address.port, self._download_path, self._authority()
            ):
                log.info("{line}", line=line)

    def wrap_endpoint(self, endpoint: IStreamServerEndpoint) -> IStreamServerEndpoint:
        """Return an endpoint that uses TLS on another one."""
        assert self._connection_creator is not None
        return TLSEndpoint(self._reactor, endpoint, self._connection_creator)

    def share_with(self, set_certificate: Callable[[CertificateBundle], object]) -> None:
        """Send the certificate to other processes, now and after each change."""
        self._share = set_certificate
        set_certificate(self._current_bundle())

    async def check_files(self) -> None:
        """Read the files, and check whether they could be used; not in workers.

        :raises StartError: if not; the text names the key.
        """
        if self._reloader is not None and self._renewal is None:
            try:
                await self._load_in_thread()
            except CertificateError as error:
                raise StartError(describe_certificate_error(error, self._section)) from error

    def reload(self) -> None:
        """Read the files again, and try again to renew a certificate whose renewal failed."""
        if self._reloader is not None:
            self._reloader.reload()
        if self._renewal is not None:
            self._renewal.retry_now()

    def use_certificate(self, bundle: CertificateBundle) -> None:
        """Use another certificate for new connections, in all processes.

        :raises CertificateError: if it cannot be used.
        """
        assert self._connection_creator is not None
        self._connection_creator.context = make_context(bundle, self._options)
        self._bundle = bundle
        if self._expiry_warning is not None:
            self._expiry_warning.log_expiry()
        if self._share is not None:
            self._share(bundle)

    def _make_renewal(self) -> CertificateRenewal | None:
        acme = self._section.letsencrypt
        if not isinstance(self._source, ACMECache):
            return None
        with require_extra("acme", "http.tls.letsencrypt"):
            from twisted_registry.acme.renewal import CertificateRenewal, Orders  # noqa: PLC0415
        cache, reactor = self._source, self._reactor
        orders = Orders(reactor, cache, acme.directory, acme.email, self._in_thread)
        return CertificateRenewal(reactor, cache, orders, self._in_thread, self._renewed)

    def _renewed(self) -> None:
        assert self._reloader is not None
        self._reloader.reload()

    def _in_thread(self, call: Callable[..., T], *arguments: object) -> Deferred[T]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), call, *arguments)

    def _load_in_thread(self) -> Deferred[CertificateBundle]:
        return self._in_thread(self._load_and_check)

    def _load_and_check(self) -> CertificateBundle:
        bundle = self._source.load()
        make_context(bundle, self._options)
        return bundle

    def _current_bundle(self) -> CertificateBundle:
        assert self._bundle is not None
        return self._bundle

    async def _make_authority_page(self) -> Response:
        return Response(200, [("Content-Type", "application/x-pem-file")], self._authority())

    def _authority(self) -> bytes:
        return last_certificate(self._current_bundle().certificate)


def describe_certificate_error(error: CertificateError, section: Tls) -> str:
    """Return the key, the file and the reason, in one line.

    :param section: ``http.tls``, which names the files.
    """
    name, reason, cause = error.name, error.reason, error.__cause__
    path = {"certificate": section.certificate, "key": section.keyfile}.get(name, "")
    if isinstance(cause, PermissionError):
        path = str(Path(cause.filename).absolute())
        reason = f"{path}: {explain_read_error(cause, path)}"
    elif path and not isinstance(cause, OSError):
        reason = f"{Path(path).absolute()} {reason}"
    return f"http.tls.{name}: {reason}"


def make_certificate_source(
    configuration: Configuration, now: Callable[[], float]
) -> ICertificateSource:
    """Make the source of the certificate of ``http.tls``; nothing is read yet.

    :param now: returns the time in seconds since the epoch.
    """
    section = configuration.http.tls
    acme = section.letsencrypt
    # Absolute, as a daemon may change its working directory before the files are read again.
    authorities = tuple(str(Path(path).absolute()) for path in section.clientcas)
    if acme.cachefile:
        return ACMECache(Path(acme.cachefile).absolute(), acme.hosts, now, authorities)
    if not section.auto.hosts:
        certificate, key = (
            str(Path(path).absolute()) for path in (section.certificate, section.keyfile)
        )
        return CertificateFiles(certificate, key, authorities)
    filesystem = configuration.storage.filesystem
    if section.auto.folder or filesystem is None:
        folder = Path(section.auto.folder)
    else:
        folder = Path(filesystem.rootdirectory) / "twisted-registry" / "tls"
    return AutomaticCertificates(folder.absolute(), section.auto.hosts, now, authorities)


def make_tls_options(configuration: Configuration, source: ICertificateSource) -> TLSOptions:
    """Make the options of ``http.tls``."""
    section = configuration.http.tls
    client_auth = section.clientauth or ClientAuth.REQUIRE.value
    return TLSOptions(
        cast("Literal['tls1.2', 'tls1.3']", section.minimumtls or "tls1.2"),
        section.ciphers,
        ClientAuth(client_auth) if section.clientcas else ClientAuth.NONE,
        source.challenge_certificate if isinstance(source, ACMECache) else None,
    )
