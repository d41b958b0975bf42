"""Whose a certificate is, in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509

#: A certificate that has no more than this should have been replaced: what renews certificates
#: does so with a third of their time left, of those for a week too.
_WARN_BEFORE: Final = timedelta(days=10)
_WARN_FRACTION: Final = 1 / 6


def describe_certificate(certificate: bytes, now: float) -> tuple[str, bool]:
    """One line about a certificate, and whether all is well: it is valid, and goes on to be.

    :param certificate: PEM; the first is meant.
    :param now: seconds since the epoch.
    """
    own = x509.load_pem_x509_certificate(certificate)
    whose = ", ".join(host_names(own)) or own.subject.rfc4514_string() or "nobody"
    begin, end = own.not_valid_before_utc, own.not_valid_after_utc
    moment = datetime.fromtimestamp(now, UTC)
    if moment < begin:
        return f"certificate for {whose} is not valid before {begin:%Y-%m-%d %H:%M} UTC", False
    if moment > end:
        return f"certificate for {whose} is not valid since {end:%Y-%m-%d %H:%M} UTC", False
    until = f"certificate for {whose}, valid until {end:%Y-%m-%d %H:%M} UTC"
    left = end - moment
    if left < min(_WARN_BEFORE, (end - begin) * _WARN_FRACTION):
        return f"{until}: in {_format_duration(left)} clients refuse it", False
    return until, True


def _format_duration(left: timedelta) -> str:
    hours = left // timedelta(hours=1)
    return f"{left.days} days" if left.days > 1 else f"{hours} hours"


def host_names(certificate: x509.Certificate) -> list[str]:
    """The host names and addresses that a certificate is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = map(str, found.get_values_for_type(x509.IPAddress))
    return [*found.get_values_for_type(x509.DNSName), *addresses]
