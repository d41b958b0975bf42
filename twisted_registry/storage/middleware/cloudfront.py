"""``cloudfront``: clients fetch blobs from Amazon's CDN, by URLs that are signed for it.

The rules are those of "Create a signed URL using a canned policy" in the Amazon CloudFront
developer guide.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from urllib.parse import quote

from attrs import field, frozen
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from twisted.internet.defer import Deferred, inlineCallbacks, succeed

from twisted_registry.storage.middleware.urls import URLMiddleware, parse_base_url

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.storage.interfaces import IStorageDriver
    from twisted_registry.storage.middleware.aws_ip_ranges import AWSClients

#: Base64 with letters that may stand in a query.
_TO_URL_SAFE = bytes.maketrans(b"+=/", b"-_~")


@frozen
class CloudFrontSigner:
    """Signs URLs with a key pair.

    :ivar key_pair: its id.
    """

    key_pair: str
    _key: RSAPrivateKey = field(repr=False)

    @classmethod
    def load(cls, key_pair: str, pem: bytes) -> CloudFrontSigner:
        """Read the private key.

        :param pem: an RSA key in PEM, PKCS#1 or PKCS#8, without a password.
        :raises ValueError: if it is none.
        """
        try:
            key = serialization.load_pem_private_key(pem, None)
        except (ValueError, TypeError) as error:
            raise ValueError("not a private key in PEM without a password") from error
        if not isinstance(key, RSAPrivateKey):
            raise ValueError("not an RSA key")  # noqa: TRY004 - a matter of the file's content
        return cls(key_pair, key)

    def sign(self, url: str, expires: int) -> str:
        """Answer the URL with its signature.

        :param url: encoded, without a query.
        :param expires: seconds since the epoch.
        """
        condition = f'{{"DateLessThan":{{"AWS:EpochTime":{expires}}}}}'
        policy = f'{{"Statement":[{{"Resource":"{url}","Condition":{condition}}}]}}'
        # CloudFront takes SHA-1 from everybody, and other digests only of late.
        signature = self._key.sign(policy.encode(), padding.PKCS1v15(), hashes.SHA1())  # noqa: S303
        text = base64.b64encode(signature).translate(_TO_URL_SAFE).decode()
        return f"{url}?Expires={expires}&Signature={text}&Key-Pair-Id={self.key_pair}"


class CloudFront(URLMiddleware):
    """Signed URLs of a distribution whose origin is the bucket; or the driver's own."""

    def __init__(
        self,
        driver: IStorageDriver,
        clock: IReactorTime,
        base: str,
        signer: CloudFrontSigner,
        *,
        root: str = "",
        duration: float = 20 * 60.0,
        inside: AWSClients | None = None,
    ) -> None:
        """Send clients to a distribution.

        :param base: of the distribution; ``https`` unless it says otherwise.
        :param root: what all keys of the driver begin with in its bucket.
        :param duration: seconds that a URL is good for.
        :param inside: clients that are sent to the bucket, because traffic inside AWS is
            cheaper; None for nobody.
        :raises ValueError: if the base is none.
        """
        super().__init__(driver)
        prefix = root.strip("/")
        self._clock = clock
        self._base = parse_base_url(base, scheme="https").geturl() + (
            f"{quote(prefix, safe='/')}/" if prefix else ""
        )
        self._signer = signer
        self._duration = duration
        self._inside = inside

    def make_url(self, path: str, method: str, expires: int, client: str) -> Deferred[str]:
        """Fire with the URL at the distribution, or, for those inside, at the bucket."""
        if self._inside is not None and client in self._inside:
            return super().make_url(path, method, expires, client)
        until = int(self._clock.seconds() + self._duration)
        return succeed(self._signer.sign(self._base + quote(path, safe="/"), until))

    @inlineCallbacks
    def close(self) -> Generator[Any, Any, None]:
        """Close the driver, and what tells who is inside."""
        if self._inside is not None:
            yield self._inside.close()
        yield self.driver.close()
