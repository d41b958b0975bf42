"""AWS Signature Version 4 for S3: signed headers and presigned URLs.

Source: "Authenticating Requests (AWS Signature Version 4)" in the Amazon S3 API Reference. Unlike
for other services, the path is percent-encoded once, and not normalised. All functions are pure.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from twisted_registry.storage.s3.credentials import Credentials

ALGORITHM: Final = "AWS4-HMAC-SHA256"
#: Used instead of the SHA-256 of a body that is not signed.
UNSIGNED_PAYLOAD: Final = "UNSIGNED-PAYLOAD"
#: SHA-256 of an empty body.
EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()


def encoded_path(path: str) -> str:
    """Percent-encode a path, except slashes, as it is sent and signed."""
    return quote(path, safe="/")


def encoded_query(parameters: Iterable[tuple[str, str]]) -> str:
    """Encode and sort a query as it is sent and signed."""
    pairs = sorted((quote(name, safe=""), quote(value, safe="")) for name, value in parameters)
    return "&".join([f"{name}={value}" for name, value in pairs])


@define(eq=False)
class Signer:
    """Signs with one key pair for one region. The derived signing key is kept for its day.

    :ivar region: region of the bucket.
    :ivar service: AWS service.
    """

    credentials: Credentials
    region: str
    service: str = "s3"
    _day: str = field(init=False, default="")
    _key: bytes = field(init=False, default=b"", repr=False)

    def headers(
        self,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        payload: str,
        now: float,
    ) -> dict[str, str]:
        """Return the headers to add to a request, including the signature.

        :param path: from :func:`encoded_path`, as it is sent.
        :param query: from :func:`encoded_query`, as it is sent.
        :param headers: headers to sign, with lower-case names: ``host``, and all that begin with
            ``x-amz-``.
        :param payload: hexadecimal SHA-256 of the body, or :data:`UNSIGNED_PAYLOAD`.
        :param now: seconds since the epoch, by the clock of the store.
        """
        stamp = _stamp(now)
        added = {"x-amz-content-sha256": payload, "x-amz-date": stamp}
        if self.credentials.token:
            added["x-amz-security-token"] = self.credentials.token
        signed = {**headers, **added}
        signature = self._signature(method, path, query, signed, payload, stamp)
        added["authorization"] = (
            f"{ALGORITHM} Credential={self.credentials.access_key}/{self._scope(stamp)},"
            f" SignedHeaders={';'.join(sorted(signed))}, Signature={signature}"
        )
        return added

    def query(
        self,
        method: str,
        host: str,
        path: str,
        parameters: Iterable[tuple[str, str]],
        expires: int,
        now: float,
    ) -> str:
        """Return the query of a presigned URL.

        :param host: host name, with the port unless it is the default.
        :param path: from :func:`encoded_path`, as it is sent.
        :param parameters: additional query parameters, not encoded.
        :param expires: seconds from ``now``.
        :param now: seconds since the epoch, by the clock of the store.
        """
        stamp = _stamp(now)
        signed = [
            *parameters,
            ("X-Amz-Algorithm", ALGORITHM),
            ("X-Amz-Credential", f"{self.credentials.access_key}/{self._scope(stamp)}"),
            ("X-Amz-Date", stamp),
            ("X-Amz-Expires", str(expires)),
            ("X-Amz-SignedHeaders", "host"),
        ]
        if self.credentials.token:
            signed.append(("X-Amz-Security-Token", self.credentials.token))
        query = encoded_query(signed)
        signature = self._signature(method, path, query, {"host": host}, UNSIGNED_PAYLOAD, stamp)
        return f"{query}&X-Amz-Signature={signature}"

    def _signature(
        self,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        payload: str,
        stamp: str,
    ) -> str:
        names = sorted(headers)
        lines = [method, path, query]
        lines += [f"{name}:{' '.join(headers[name].split())}" for name in names]
        lines += ["", ";".join(names), payload]
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        text = f"{ALGORITHM}\n{stamp}\n{self._scope(stamp)}\n{digest}"
        return _hmac_sha256(self._signing_key(stamp[:8]), text).hex()

    def _scope(self, stamp: str) -> str:
        return f"{stamp[:8]}/{self.region}/{self.service}/aws4_request"

    def _signing_key(self, day: str) -> bytes:
        if day != self._day:
            key = f"AWS4{self.credentials.secret_key}".encode()
            for word in (day, self.region, self.service, "aws4_request"):
                key = _hmac_sha256(key, word)
            self._day, self._key = day, key
        return self._key


def _stamp(now: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))


def _hmac_sha256(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
