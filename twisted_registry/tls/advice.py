"""What to do on a client that is to trust an authority of our own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Where clients look for authorities of one registry. containerd does if its ``config_path`` is
#: this, and needs no ``hosts.toml`` beside it.
_TRUST_DIRECTORIES: Final = {
    "docker": "/etc/docker/certs.d",
    "podman, buildah and skopeo": "/etc/containers/certs.d",
    "containerd": "/etc/containerd/certs.d",
}


def last_certificate(chain: bytes) -> bytes:
    """The last certificate of a chain; both PEM."""
    begin = chain.rindex(b"-----BEGIN CERTIFICATE-----")
    return chain[begin:]


def fingerprint(certificate: bytes) -> str:
    """The SHA-256 of a certificate in PEM, as ``openssl x509 -fingerprint`` shows it."""
    return x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256()).hex(":").upper()


def advice(host: str, port: int, path: str, certificate: bytes) -> Iterator[str]:
    """Lines for an operator.

    :param host: what clients call this registry.
    :param path: where the certificate can be downloaded from.
    :param certificate: of the authority, PEM.
    """
    place = host if port == 443 else f"{host}:{port}"
    url = f"https://{place}{path}"
    yield f"clients have to trust our authority: {url}, SHA-256 {fingerprint(certificate)}"
    for program, folder in _TRUST_DIRECTORIES.items():
        below = f"{folder}/{place}"
        yield f"to trust it, {program}: mkdir -p {below} && curl -ko {below}/ca.crt {url}"
