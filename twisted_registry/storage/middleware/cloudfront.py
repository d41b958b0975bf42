"""``cloudfront``: clients fetch blobs from Amazon's CDN with signed URLs.

Source: "Create a signed URL using a canned policy" in the Amazon CloudFront Developer Guide.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from attrs import field, frozen
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from twisted.internet.defer import Deferred, inlineCallbacks, succeed

from twisted_registry.storage.middleware.urls import URLMiddleware, parse_base_url

if TYPE_CHECKING:
    from collections.abc import Generator

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.storage.interfaces import IStorageDriver
    from twisted_registry.storage.middleware.aws_ip_ranges import AWSClients

#: Replaces the characters of Base64 that a query cannot contain.
_TO_URL_SAFE: Final = bytes.maketrans(b"+=/", b"-_~")


@frozen
class CloudFrontSigner:
    """Signs URLs with a key pair.

    :ivar key_pair: id of the key pair.
    """

    key_pair: str
    _key: RSAPrivateKey = field(repr=False)

    @classmethod
    def load(cls, key_pair: str, pem: bytes) -> CloudFrontSigner:
        """Load the private key.

        :param key_pair: id of the key pair.
        :param pem: RSA key in PEM (PKCS#1 or PKCS#8) without a password.
        :raises ValueError: if it is not such a key.
        """
        try:
            key = serialization.load_pem_private_key(pem, None)
        except (ValueError, TypeError) as error:
            raise ValueError("not a private key in PEM without a password") from error
        if not isinstance(key, RSAPrivateKey):
            raise ValueError("not an RSA key")  # noqa: TRY004 - the content of a file
        return cls(key_pair, key)

    def sign(self, url: str, expires: int) -> str:
        """Return the signed URL.

        :param url: encoded, without a query.
        :param expires: seconds since the epoch.
        """
        condition = f'{{"DateLessThan":{{"AWS:EpochTime":{expires}}}}}'
        policy = f'{{"Statement":[{{"Resource":"{url}","Condition":{condition}}}]}}'
        # SHA-1 is the only digest that all CloudFront endpoints accept.
        signature = self._key.sign(policy.encode(), padding.PKCS1v15(), hashes.SHA1())  # noqa: S303
        text = base64.b64encode(signature).translate(_TO_URL_SAFE).decode()
        return f"{url}?Expires={expires}&Signature={text}&Key-Pair-Id={self.key_pair}"


class CloudFront(URLMiddleware):
    """Returns signed URLs of a distribution whose origin is the bucket, or URLs of the driver."""

    def __init__(
        self,
        driver: IStorageDriver,
        clock: IReactorTime,
        base: str,
        signer: CloudFrontSigner,
        *,
        root: str = "",
        duration_s: float = 20 * 60.0,
        inside: AWSClients | None = None,
    ) -> None:
        """Redirect clients to a distribution.

        :param base: URL of the distribution; ``https`` unless it has a scheme.
        :param root: prefix of all keys of the driver in its bucket.
        :param duration_s: how long a URL is valid.
        :param inside: clients that are sent to the bucket, because traffic inside AWS is cheaper;
            None for none.
        :raises ValueError: if ``base`` is invalid.
        """
        super().__init__(driver)
        prefix = root.strip("/")
        self._clock = clock
        self._base = parse_base_url(base, scheme="https").geturl() + (
            f"{quote(prefix, safe='/')}/" if prefix else ""
        )
        self._signer = signer
        self._duration_s = duration_s
        self.inside = inside

    def make_url(self, path: str, method: str, expires: int, client: str) -> Deferred[str]:
        """Fire with the URL of the distribution or, for clients inside AWS, of the bucket."""
        if self.inside is not None and client in self.inside:
            return super().make_url(path, method, expires, client)
        expires_at = int(self._clock.seconds() + self._duration_s)
        return succeed(self._signer.sign(self._base + quote(path, safe="/"), expires_at))

    @inlineCallbacks
    def close(self) -> Generator[Any, Any, None]:
        """Close the driver and the list of clients."""
        if self.inside is not None:
            yield self.inside.close()
        yield self.driver.close()
