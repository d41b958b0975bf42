"""Reading X.509 certificates: host names, validity, and the content of client certificates."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from twisted_registry.tls.interfaces import ClientCertificate

if TYPE_CHECKING:
    from OpenSSL.SSL import Connection

#: A certificate that expires within this time should have been renewed: renewal starts when a
#: third of the lifetime is left. The fraction is for certificates with a lifetime of a week.
_WARN_BEFORE: Final = timedelta(days=10)
_WARN_FRACTION: Final = 1 / 6


def describe_certificate(certificate: bytes, now: float) -> tuple[str, bool]:
    """Return one line about a certificate, and whether it is valid and not about to expire.

    :param certificate: PEM; the first certificate is described.
    :param now: in seconds since the epoch.
    """
    own = x509.load_pem_x509_certificate(certificate)
    hosts = ", ".join(host_names(own)) or own.subject.rfc4514_string() or "nobody"
    begin, end = own.not_valid_before_utc, own.not_valid_after_utc
    moment = datetime.fromtimestamp(now, UTC)
    if moment < begin:
        return f"certificate for {hosts} is not valid before {begin:%Y-%m-%d %H:%M} UTC", False
    if moment > end:
        return f"certificate for {hosts} expired at {end:%Y-%m-%d %H:%M} UTC", False
    text = f"certificate for {hosts}, valid until {end:%Y-%m-%d %H:%M} UTC"
    left = end - moment
    if left < min(_WARN_BEFORE, (end - begin) * _WARN_FRACTION):
        return f"{text}: expires in {_format_duration(left)}; renew it", False
    return text, True


def _format_duration(left: timedelta) -> str:
    hours = left // timedelta(hours=1)
    return f"{left.days} days" if left.days > 1 else f"{hours} hours"


def host_names(certificate: x509.Certificate) -> list[str]:
    """Return the host names and IP addresses among the alternative names of a certificate."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = map(str, names.get_values_for_type(x509.IPAddress))
    return [*names.get_values_for_type(x509.DNSName), *addresses]


def peer_certificate(connection: Connection) -> ClientCertificate | None:
    """Return the certificate of the peer; None before the end of the handshake and without one."""
    certificate = connection.get_peer_certificate(as_cryptography=True)
    return None if certificate is None else parse_client_certificate(certificate)


def parse_client_certificate(certificate: x509.Certificate) -> ClientCertificate:
    """Return the content of a certificate that access control uses."""
    subject = certificate.subject
    try:
        names: Any = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
    except (x509.ExtensionNotFound, ValueError):
        names = x509.SubjectAlternativeName([])
    return ClientCertificate(
        subject.rfc4514_string(),
        _name_attributes(subject, NameOID.COMMON_NAME),
        _name_attributes(subject, NameOID.ORGANIZATION_NAME),
        tuple(names.get_values_for_type(x509.DNSName)),
        tuple(names.get_values_for_type(x509.RFC822Name)),
        tuple(names.get_values_for_type(x509.UniformResourceIdentifier)),
    )


def _name_attributes(subject: x509.Name, kind: x509.ObjectIdentifier) -> tuple[str, ...]:
    return tuple(str(each.value) for each in subject.get_attributes_for_oid(kind))
