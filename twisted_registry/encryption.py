"""``http.tls`` joined to constructors: a part of service.py, imported where it is configured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

from twisted_registry.listener import StartError
from twisted_registry.tls.context import ClientAuth, Terms, make_context, missing_ciphers
from twisted_registry.tls.endpoint import Switch, TLSEndpoint
from twisted_registry.tls.files import Files
from twisted_registry.tls.material import MaterialError

if TYPE_CHECKING:
    from twisted.internet.interfaces import IStreamServerEndpoint

    from twisted_registry.config.tls import Tls


class Encryption:
    """TLS as it is configured."""

    def __init__(self, section: Tls, reactor: Any) -> None:
        """Take what is configured; no file is read yet."""
        self._reactor = reactor
        self._files = Files(section.certificate, section.keyfile, section.clientcas)
        self._terms = _terms(section)
        self._switch: Switch | None = None

    def prepare(self) -> None:
        """Read the files: done before the process gives up rights that it may need for them.

        :raises StartError: if the files can not be read or used; the text names the key.
        """
        if missing := missing_ciphers(self._terms.ciphers):
            raise StartError(
                f"http.tls.ciphersuites: this OpenSSL has no {', '.join(missing)} (its name for it)"
            )
        try:
            context = make_context(self._files.read(), self._terms)
        except MaterialError as error:
            raise StartError(f"http.tls.{error}") from error
        self._switch = Switch(context)

    def around(self, endpoint: IStreamServerEndpoint) -> IStreamServerEndpoint:
        """An endpoint that listens on another one, with TLS."""
        assert self._switch is not None
        return TLSEndpoint(self._reactor, endpoint, self._switch)


def _terms(section: Tls) -> Terms:
    clients = section.clientauth or ClientAuth.REQUIRE.value
    return Terms(
        cast("Literal['tls1.2', 'tls1.3']", section.minimumtls or "tls1.2"),
        section.ciphers,
        ClientAuth(clients) if section.clientcas else ClientAuth.NONE,
    )
