"""What OpenSSL is told, from PEM: nothing of it is read later, so files may change meanwhile.

Certificates and keys as bytes, and what is wrong with them.
"""

from __future__ import annotations

import secrets
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal

from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from OpenSSL.crypto import X509
from zope.interface import Interface

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    # @@EMPTY


@frozen
class CertificateBundle:
    """What a server shows, and whom it believes; all of it PEM.

    :ivar certificate: the certificate, then those that vouch for it.
    :ivar key: its private key, never shown in a repr.
    :ivar authorities: certificates of the authorities for clients, by the name of their file.
    """

    certificate: bytes
    key: bytes = field(repr=False)
    authorities: tuple[tuple[str, bytes], ...] = ()


class ICertificateSource(Interface):
    """Where certificate, key and authorities come from."""

    def read() -> CertificateBundle:
        """Read them. Blocks.

        :raises CertificateError: if that is not possible.
        """

    def file_versions() -> tuple[object, ...]:
        """What changes when it is time to read them again. Takes a few calls of stat."""


@frozen(eq=False)
class CertificateError(Exception):
    """Certificate, key and authorities can not be used.

    :ivar name: which key of ``http.tls`` is to blame: ``certificate``, ``key``, ``clientcas``.
    :ivar reason: why; one line, never a secret.
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


#: What is offered in ALPN (RFC 7301).
_HTTP_PROTOCOL: Final = b"http/1.1"
#: What is offered by an ACME server that wants to see whether a host is ours (RFC 8737).
_ACME_PROTOCOL: Final = b"acme-tls/1"
_OPTIONS: Final = (
    SSL.OP_NO_COMPRESSION
    # A client could otherwise have us do the costly half of a handshake again and again.
    | SSL.OP_NO_RENEGOTIATION
    | SSL.OP_CIPHER_SERVER_PREFERENCE
    # Sessions would be known to one of several processes only.
    | SSL.OP_NO_TICKET
)
#: OpenSSL's SSL_MODE_ENABLE_PARTIAL_WRITE, which pyOpenSSL sets and does not name: each call ends
#: after one record.
_MODE_ENABLE_PARTIAL_WRITE: Final = 0x1
#: Suites of TLS 1.3, in the order of Go and of Mozilla's recommendations: the quickest first, of
#: those that nobody has to fear for. By itself OpenSSL begins with AES-256.
_TLS13_SUITES: Final = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
_VERSIONS: Final = {"tls1.2": SSL.TLS1_2_VERSION, "tls1.3": SSL.TLS1_3_VERSION}


class ClientAuth(Enum):
    """What is asked of clients; the names are Go's, and Distribution's."""

    NONE = SSL.VERIFY_NONE
    REQUEST = "request-client-cert"
    REQUIRE_ANY = "require-any-client-cert"
    VERIFY_IF_GIVEN = "verify-client-cert-if-given"
    REQUIRE = "require-and-verify-client-cert"

    @property
    def verifies(self) -> bool:
        """Whether a certificate that was shown is one that an authority vouched for."""
        return self in {ClientAuth.VERIFY_IF_GIVEN, ClientAuth.REQUIRE}

    @property
    def flags(self) -> int:
        """The same for OpenSSL."""
        if self is ClientAuth.NONE:
            return SSL.VERIFY_NONE
        if self in {ClientAuth.REQUIRE_ANY, ClientAuth.REQUIRE}:
            return SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        return SSL.VERIFY_PEER


@frozen
class TLSOptions:
    """What an operator says of connections.

    :ivar minimum: the oldest version.
    :ivar ciphers: OpenSSL's names of the cipher suites for TLS 1.2.
    :ivar clients: what is asked of clients.
    :ivar challenged: answers what to show to an ACME server that asks for a host, or None.
    """

    minimum: Literal["tls1.2", "tls1.3"] = "tls1.2"
    ciphers: Sequence[str] = ()
    clients: ClientAuth = ClientAuth.NONE
    challenge_certificate: Callable[[str], CertificateBundle | None] | None = None


def make_context(material: CertificateBundle, options: TLSOptions) -> SSL.Context:
    """A context for the server's side of connections.

    :raises CertificateError: if certificate, key and authorities can not be used.
    """
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_options(_OPTIONS)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_min_proto_version(_VERSIONS[options.minimum])
    _tune(context)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # OpenSSL wants one as soon as clients are asked for certificates.
    context.set_session_id(secrets.token_bytes(16))
    if options.ciphers:
        context.set_cipher_list(":".join(options.ciphers).encode())
    challenge_certificate = options.challenge_certificate
    context.set_alpn_select_callback(
        _select_protocol
        if challenge_certificate is None
        else _answer_challenges(challenge_certificate)
    )
    _use_certificate(context, material)
    _request_client_certificates(context, material, options.clients)
    return context


def _tune(context: SSL.Context) -> None:
    """Take what newer releases of pyOpenSSL have for large bodies."""
    if hasattr(context, "clear_mode"):
        context.clear_mode(_MODE_ENABLE_PARTIAL_WRITE)
    if hasattr(context, "set_tls13_ciphersuites"):
        context.set_tls13_ciphersuites(_TLS13_SUITES)


def missing_ciphers(names: Sequence[str]) -> list[str]:
    """Those of OpenSSL's names that this OpenSSL does not know, or was built without."""
    missing = []
    for name in names:
        context = SSL.Context(SSL.TLS_METHOD)
        try:
            context.set_cipher_list(name.encode())
        except SSL.Error:
            missing.append(name)
    return missing


def _use_certificate(context: SSL.Context, material: CertificateBundle) -> None:
    certificates = _load_certificates("certificate", material.certificate)
    try:
        key = load_pem_private_key(material.key, None)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError("key", "holds no private key in PEM") from error
    except TypeError as error:
        raise CertificateError("key", "has a passphrase, and must have none") from error
    own, *others = certificates
    if own.public_key() != key.public_key():
        raise CertificateError("key", "is not that of the certificate")
    try:
        context.use_certificate(own)
        for other in others:
            context.add_extra_chain_cert(other)
        context.use_privatekey(key)  # type: ignore[arg-type]
    except (SSL.Error, TypeError) as error:
        raise CertificateError(
            "certificate", f"is not accepted: {openssl_message(error)}"
        ) from error


def _request_client_certificates(
    context: SSL.Context, material: CertificateBundle, clients: ClientAuth
) -> None:
    if clients is ClientAuth.NONE:
        return
    store = context.get_cert_store()
    assert store is not None
    for path, content in material.authorities:
        for authority in _load_certificates("clientcas", content, path):
            store.add_cert(X509.from_cryptography(authority))
            # Told to clients, some of whom choose by it.
            context.add_client_ca(authority)
    context.set_verify(clients.flags, None if clients.verifies else _accept_any)


def _load_certificates(name: str, content: bytes, path: str = "") -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        where = f"{path}: " if path else ""
        raise CertificateError(name, f"{where}holds no certificate in PEM") from error


def openssl_message(error: Exception) -> str:
    """What OpenSSL says, without its library and function."""
    reasons = (item[-1] for item in error.args[0]) if isinstance(error, SSL.Error) else ()
    return "; ".join(reasons) or str(error) or type(error).__name__


def _select_protocol(connection: SSL.Connection, offered: list[bytes]) -> Any:
    del connection
    return _HTTP_PROTOCOL if _HTTP_PROTOCOL in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def _answer_challenges(
    challenge_certificate: Callable[[str], CertificateBundle | None],
) -> Callable[..., Any]:
    """Choose, and answer challenges: with another certificate, and nothing asked of the client."""

    def choose(connection: SSL.Connection, offered: list[bytes]) -> Any:
        if _ACME_PROTOCOL not in offered:
            return _select_protocol(connection, offered)
        # Before 1.3 the certificate is chosen before the protocol.
        if connection.get_protocol_version() < SSL.TLS1_3_VERSION:
            return SSL.NO_OVERLAPPING_PROTOCOLS
        name = connection.get_servername() or b""
        material = challenge_certificate(name.decode("ascii", "replace").lower())
        if material is None:
            return SSL.NO_OVERLAPPING_PROTOCOLS
        context = SSL.Context(SSL.TLS_METHOD)
        _use_certificate(context, material)
        connection.set_context(context)
        connection.set_verify(SSL.VERIFY_NONE)
        return _ACME_PROTOCOL

    return choose


def _accept_any(*_: object) -> bool:
    """Take any certificate: whoever asks for one without verifying it wants to see it only."""
    return True
