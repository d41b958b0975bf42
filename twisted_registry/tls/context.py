"""Building an OpenSSL context from PEM data. Files are not read again, so they may change later."""

from __future__ import annotations

import secrets
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from OpenSSL.crypto import X509

from twisted_registry.tls.interfaces import CertificateError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted_registry.tls.interfaces import CertificateBundle


#: The protocol offered with ALPN (RFC 7301).
_HTTP_PROTOCOL: Final = b"http/1.1"
#: The protocol that an ACME server offers to validate a host (RFC 8737).
_ACME_PROTOCOL: Final = b"acme-tls/1"
_OPTIONS: Final = (
    SSL.OP_NO_COMPRESSION
    # Renegotiation would let a client repeat the expensive half of a handshake.
    | SSL.OP_NO_RENEGOTIATION
    | SSL.OP_CIPHER_SERVER_PREFERENCE
    # Each process would have different ticket keys.
    | SSL.OP_NO_TICKET
)
#: OpenSSL's SSL_MODE_ENABLE_PARTIAL_WRITE. pyOpenSSL sets it without naming it; with it, each call
#: sends one record.
_MODE_ENABLE_PARTIAL_WRITE: Final = 0x1
#: Cipher suites of TLS 1.3, the fastest first, in the order of Go and of Mozilla's recommendations.
#: OpenSSL's default order begins with AES-256.
_TLS13_SUITES: Final = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
_VERSIONS: Final = {"tls1.2": SSL.TLS1_2_VERSION, "tls1.3": SSL.TLS1_3_VERSION}


class ClientAuth(Enum):
    """How client certificates are requested and verified; the names are those of Go."""

    NONE = SSL.VERIFY_NONE
    REQUEST = "request-client-cert"
    REQUIRE_ANY = "require-any-client-cert"
    VERIFY_IF_GIVEN = "verify-client-cert-if-given"
    REQUIRE = "require-and-verify-client-cert"

    @property
    def verifies(self) -> bool:
        """Whether presented certificates are verified against the authorities."""
        return self in {ClientAuth.VERIFY_IF_GIVEN, ClientAuth.REQUIRE}

    @property
    def flags(self) -> int:
        """The verify mode of OpenSSL."""
        if self is ClientAuth.NONE:
            return SSL.VERIFY_NONE
        if self in {ClientAuth.REQUIRE_ANY, ClientAuth.REQUIRE}:
            return SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        return SSL.VERIFY_PEER


@frozen
class TLSOptions:
    """The configured options of TLS connections.

    :ivar minimum: the minimum version.
    :ivar ciphers: OpenSSL's names of the cipher suites for TLS 1.2; empty for the default.
    :ivar client_auth: whether client certificates are requested and verified.
    :ivar challenge_certificate: returns the certificate that answers an ACME challenge for a host,
        or None if there is no challenge. None without ACME.
    """

    minimum: Literal["tls1.2", "tls1.3"] = "tls1.2"
    ciphers: Sequence[str] = ()
    client_auth: ClientAuth = ClientAuth.NONE
    challenge_certificate: Callable[[str], CertificateBundle | None] | None = None


def make_context(bundle: CertificateBundle, options: TLSOptions) -> SSL.Context:
    """Return a context for server connections.

    :raises CertificateError: if certificate, key or authorities cannot be used.
    """
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_options(_OPTIONS)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_min_proto_version(_VERSIONS[options.minimum])
    _tune_for_large_bodies(context)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # OpenSSL requires a session id context if client certificates are requested.
    context.set_session_id(secrets.token_bytes(16))
    if options.ciphers:
        context.set_cipher_list(":".join(options.ciphers).encode())
    challenge_certificate = options.challenge_certificate
    context.set_alpn_select_callback(
        _select_protocol
        if challenge_certificate is None
        else _answer_challenges(challenge_certificate)
    )
    _use_certificate(context, bundle)
    _request_client_certificates(context, bundle, options.client_auth)
    return context


def _tune_for_large_bodies(context: SSL.Context) -> None:
    """Set what only newer releases of pyOpenSSL support."""
    if hasattr(context, "clear_mode"):
        context.clear_mode(_MODE_ENABLE_PARTIAL_WRITE)
    if hasattr(context, "set_tls13_ciphersuites"):
        context.set_tls13_ciphersuites(_TLS13_SUITES)


def missing_ciphers(names: Sequence[str]) -> list[str]:
    """Return the cipher names that this build of OpenSSL does not support."""
    missing = []
    for name in names:
        context = SSL.Context(SSL.TLS_METHOD)
        try:
            context.set_cipher_list(name.encode())
        except SSL.Error:
            missing.append(name)
    return missing


def _use_certificate(context: SSL.Context, bundle: CertificateBundle) -> None:
    certificates = _load_certificates("certificate", bundle.certificate)
    try:
        key = load_pem_private_key(bundle.key, None)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError("key", "contains no private key in PEM") from error
    except TypeError as error:
        raise CertificateError("key", "must not have a passphrase") from error
    own, *others = certificates
    if own.public_key() != key.public_key():
        raise CertificateError("key", "does not match the certificate")
    try:
        context.use_certificate(own)
        for other in others:
            context.add_extra_chain_cert(other)
        context.use_privatekey(key)  # type: ignore[arg-type]
    except (SSL.Error, TypeError) as error:
        raise CertificateError(
            "certificate", f"is rejected by OpenSSL: {openssl_message(error)}"
        ) from error


def _request_client_certificates(
    context: SSL.Context, bundle: CertificateBundle, client_auth: ClientAuth
) -> None:
    if client_auth is ClientAuth.NONE:
        return
    store = context.get_cert_store()
    assert store is not None
    for path, content in bundle.authorities:
        for authority in _load_certificates("clientcas", content, path):
            store.add_cert(X509.from_cryptography(authority))
            # Sent to clients, which may choose a certificate by it.
            context.add_client_ca(authority)
    context.set_verify(client_auth.flags, None if client_auth.verifies else _accept_any)


def _load_certificates(name: str, content: bytes, path: str = "") -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        where = f"{path}: " if path else ""
        raise CertificateError(name, f"{where}contains no certificate in PEM") from error


def openssl_message(error: Exception) -> str:
    """Return the text of an OpenSSL error, without the names of library and function."""
    reasons = (item[-1] for item in error.args[0]) if isinstance(error, SSL.Error) else ()
    return "; ".join(reasons) or str(error) or type(error).__name__


def _select_protocol(connection: SSL.Connection, offered: list[bytes]) -> Any:
    del connection
    return _HTTP_PROTOCOL if _HTTP_PROTOCOL in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def _answer_challenges(
    challenge_certificate: Callable[[str], CertificateBundle | None],
) -> Callable[..., Any]:
    """Return an ALPN callback that also answers challenges.

    A challenge gets another certificate, and no client certificate is requested for it.
    """

    def choose(connection: SSL.Connection, offered: list[bytes]) -> Any:
        if _ACME_PROTOCOL not in offered:
            return _select_protocol(connection, offered)
        # Before TLS 1.3, OpenSSL chooses the certificate before the protocol.
        if connection.get_protocol_version() < SSL.TLS1_3_VERSION:
            return SSL.NO_OVERLAPPING_PROTOCOLS
        name = connection.get_servername() or b""
        bundle = challenge_certificate(name.decode("ascii", "replace").lower())
        if bundle is None:
            return SSL.NO_OVERLAPPING_PROTOCOLS
        context = SSL.Context(SSL.TLS_METHOD)
        _use_certificate(context, bundle)
        connection.set_context(context)
        connection.set_verify(SSL.VERIFY_NONE)
        return _ACME_PROTOCOL

    return choose


def _accept_any(*_: object) -> bool:
    """Accept any client certificate: it is requested but not verified."""
    return True
