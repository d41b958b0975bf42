"""Addresses of buckets: host and path of their URLs.

The bucket is either the first segment of the path (path style) or a label before the host name
(virtual-hosted style). AWS requires the latter; certificates and name servers must cover it.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from attrs import field, frozen

from twisted_registry.http.client_proxies import DEFAULT_PORTS
from twisted_registry.storage.s3.sigv4 import encoded_path

#: Region that most stores without regions use.
DEFAULT_REGION: Final = "us-east-1"
_REGION: Final = re.compile(r"[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}")
#: Bucket names that are a single host label, which a certificate for ``*.host`` covers.
_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{1,61}[a-z0-9])")
#: Bucket names that are one or more host labels.
_LABELS: Final = re.compile(r"(?=.{3,63}$)[a-z0-9]([a-z0-9.-]*[a-z0-9])")
_AWS_HOST: Final = re.compile(r"s3[.-]([a-z0-9-]+)\.amazonaws\.com(\.cn)?")
#: Domains of AWS partitions other than ``amazonaws.com``, by prefix of the region.
_DOMAINS: Final = {
    "cn-": "amazonaws.com.cn",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
    "us-isof-": "csp.hci.ic.gov",
    "eu-isoe-": "cloud.adc-e.uk",
    "eusc-": "amazonaws.eu",
}


class AddressError(ValueError):
    """Raised for settings that are no valid address; the message says which, and why."""


@frozen
class BucketAddress:
    """The address of a bucket.

    :ivar bucket: name of the bucket.
    :ivar region: region to sign requests for.
    :ivar scheme: ``http`` or ``https``.
    :ivar host: host name, with the port unless it is the default.
    :ivar root: path of the bucket, percent-encoded and without a trailing slash.
    """

    bucket: str
    region: str
    scheme: str
    host: str
    root: str = field(default="")

    def path(self, key: str = "") -> str:
        """Return the encoded path of an object or of the bucket, as it is sent and signed."""
        return f"{self.root}/{encoded_path(key)}" if key else self.root or "/"

    def url(self, path: str, query: str = "") -> str:
        """Return the URL of a path from :meth:`path` and an encoded query."""
        return f"{self.scheme}://{self.host}{path}{'?' if query else ''}{query}"


def is_region(name: str) -> bool:
    """Return whether a name has the form of an AWS region; a list would soon be out of date."""
    return _REGION.fullmatch(name) is not None


def aws_address(
    bucket: str,
    region: str,
    *,
    path_style: bool = False,
    secure: bool = True,
    accelerate: bool = False,
    dual_stack: bool = False,
    fips: bool = False,
) -> BucketAddress:
    """Return the address of a bucket on AWS.

    :param path_style: use path style. It is always used for bucket names that are no host label,
        or that contain dots over TLS.
    :param secure: use TLS.
    :param accelerate: use S3 Transfer Acceleration.
    :param dual_stack: use host names with IPv6 addresses.
    :param fips: use endpoints with FIPS-validated cryptography.
    :raises AddressError: if the settings exclude each other.
    """
    domain = next(
        (name for start, name in _DOMAINS.items() if region.startswith(start)), "amazonaws.com"
    )
    path_style_needed = path_style or not _is_host_label(bucket, secure=secure)
    stack = ".dualstack" if dual_stack else ""
    if accelerate:
        if path_style:
            raise AddressError("accelerate cannot be combined with forcepathstyle")
        if fips:
            raise AddressError("accelerate cannot be combined with usefipsendpoint")
        if not _LABEL.fullmatch(bucket):
            raise AddressError(f"accelerate cannot be used with the bucket name {bucket!r}")
        host = f"s3-accelerate{stack}.{domain}"
    else:
        host = f"s3{'-fips' if fips else ''}{stack}.{region}.{domain}"
    scheme = "https" if secure else "http"
    return _make_address(
        bucket, region, SplitResult(scheme, host, "", "", ""), path_style=path_style_needed
    )


def endpoint_address(
    bucket: str,
    endpoint: str,
    *,
    region: str = "",
    path_style: bool | None = None,
    secure: bool = True,
) -> BucketAddress:
    """Return the address of a bucket on a store with a configured endpoint.

    :param endpoint: host, optionally with scheme, port and path.
    :param region: region to sign requests for. If empty, the region in an AWS host name, otherwise
        ``us-east-1``.
    :param path_style: whether to use path style; None means True, which most stores require.
    :param secure: use TLS if the endpoint has no scheme.
    :raises AddressError: if the endpoint is invalid, or is an IP address with
        ``path_style=False``.
    """
    address = _split_endpoint(endpoint, secure=secure)
    if path_style is None:
        path_style = True
    elif not path_style:
        host = address.hostname or ""
        if _is_ip(host):
            raise AddressError(
                f"{host} is an IP address and cannot follow a bucket name: set forcepathstyle: true"
            )
        path_style = not _is_host_label(bucket, secure=address.scheme == "https")
    return _make_address(bucket, region or _region_of(address), address, path_style=path_style)


def _split_endpoint(endpoint: str, *, secure: bool) -> SplitResult:
    text = endpoint.strip()
    if "://" not in text:
        text = f"{'https' if secure else 'http'}://{text}"
    try:
        address = urlsplit(text)
        port = address.port
    except ValueError as error:
        raise AddressError(f"{endpoint!r} is not an endpoint: {error}") from error
    if address.scheme not in DEFAULT_PORTS:
        raise AddressError(f"{endpoint!r} is not an endpoint: the scheme is neither http nor https")
    if not address.hostname or not re.fullmatch(r"[A-Za-z0-9.:_-]+", address.hostname):
        raise AddressError(f"{endpoint!r} is not an endpoint: it has no valid host")
    if address.username is not None or address.query or address.fragment:
        raise AddressError(
            f"{endpoint!r} is not an endpoint: only scheme, host, port and path are allowed"
        )
    host = f"[{address.hostname}]" if ":" in address.hostname else address.hostname
    if port is not None and port != DEFAULT_PORTS[address.scheme]:
        host = f"{host}:{port}"
    return address._replace(netloc=host, path=address.path.rstrip("/"))


def _make_address(
    bucket: str, region: str, address: SplitResult, *, path_style: bool
) -> BucketAddress:
    scheme, host, root = address.scheme, address.netloc, encoded_path(address.path)
    if path_style:
        return BucketAddress(bucket, region, scheme, host, f"{root}/{encoded_path(bucket)}")
    return BucketAddress(bucket, region, scheme, f"{bucket}.{host}", root)


def _is_host_label(bucket: str, *, secure: bool) -> bool:
    return (_LABEL if secure else _LABELS).fullmatch(bucket) is not None


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _region_of(address: SplitResult) -> str:
    found = _AWS_HOST.fullmatch(address.hostname or "")
    return found[1] if found and is_region(found[1]) else DEFAULT_REGION
