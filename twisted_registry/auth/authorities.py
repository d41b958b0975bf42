"""Authorities whose certificates vouch for the keys of tokens (``x5c``, RFC 7515 section 4.1.6)."""

from __future__ import annotations

import binascii
from base64 import b64decode
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from attrs import define, field
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import load_der_x509_certificate, load_pem_x509_certificates
from OpenSSL.crypto import X509, X509Store, X509StoreContext, X509StoreContextError, X509StoreFlags

from twisted_registry.auth.signingkeys import KeyUnusable, SigningKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.x509 import Certificate

#: Certificates in one chain; a token with more wants to keep us busy.
_MAX_CHAIN = 10


@define(eq=False, repr=False)
class TrustAnchors:
    """Certificates that are trusted, and whatever they have vouched for.

    :ivar certificates: any of them ends a chain, be it an authority's or not.
    """

    certificates: Sequence[Certificate]
    _store: X509Store = field(init=False, factory=X509Store)

    def __attrs_post_init__(self) -> None:
        self._store.set_flags(X509StoreFlags.PARTIAL_CHAIN)
        for certificate in self.certificates:
            self._store.add_cert(X509.from_cryptography(certificate))

    @classmethod
    def from_pem(cls, content: bytes) -> TrustAnchors:
        """Read a bundle.

        :raises ValueError: if it holds no certificate, or one that is broken.
        """
        return cls(load_pem_x509_certificates(content))

    def verify_chain(self, chain: Any, now: float) -> SigningKey:
        """The key of the first certificate of a chain, if the others lead to one of ours.

        :param chain: what a token gives as ``x5c``.
        :param now: for how long certificates are good, in seconds since 1970.
        :raises KeyUnusable: if they do not.
        """
        if not isinstance(chain, list) or not 0 < len(chain) <= _MAX_CHAIN:
            raise KeyUnusable("x5c is no list of certificates")
        leaf, *others = [_certificate(each) for each in chain]
        self._store.set_time(datetime.fromtimestamp(now, UTC))
        context = X509StoreContext(self._store, leaf, others)
        try:
            context.verify_certificate()
        except X509StoreContextError as error:
            raise KeyUnusable(f"x5c leads to no certificate that is trusted: {error}") from None
        return SigningKey.from_public_key(leaf.get_pubkey().to_cryptography_key())


def _certificate(text: object) -> X509:
    try:
        content = b64decode(str(text), validate=True)
        return X509.from_cryptography(load_der_x509_certificate(content))
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        raise KeyUnusable("x5c holds something that is no certificate") from None
