"""Where a bucket is found: the host and path of its URLs.

A bucket is either the first step of the path (path style) or a name before that of the host
(virtual-hosted style), which AWS asks for and certificates and name servers must know.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from attrs import field, frozen

from twisted_registry.storage.s3.sigv4 import encoded_path

#: What a store that has no regions calls its own, as a rule.
DEFAULT_REGION: Final = "us-east-1"
_REGION: Final = re.compile(r"[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}")
#: A bucket that can stand before a host name, and be covered by a certificate of ``*.host``.
_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{1,61}[a-z0-9])")
_LABELS: Final = re.compile(r"(?=.{3,63}$)[a-z0-9]([a-z0-9.-]*[a-z0-9])")
_AWS_HOST: Final = re.compile(r"s3[.-]([a-z0-9-]+)\.amazonaws\.com(\.cn)?")
_PORTS: Final = {"http": 80, "https": 443}
#: Domains of the partitions of AWS other than the usual one, by the beginning of the region.
_DOMAINS: Final = {
    "cn-": "amazonaws.com.cn",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
    "us-isof-": "csp.hci.ic.gov",
    "eu-isoe-": "cloud.adc-e.uk",
    "eusc-": "amazonaws.eu",
}


class AddressError(ValueError):
    """The settings do not make an address; the text says which of them, and why."""


@frozen
class BucketAddress:
    """Where a bucket is found.

    :ivar bucket: its name.
    :ivar region: what to sign for.
    :ivar scheme: ``http`` or ``https``.
    :ivar host: with the port, if it is not the usual one.
    :ivar root: the path of the bucket, encoded and without a slash at its end.
    """

    bucket: str
    region: str
    scheme: str
    host: str
    root: str = field(default="")

    def path(self, key: str = "") -> str:
        """The path of an object, or of the bucket itself, as it is sent and signed."""
        return f"{self.root}/{encoded_path(key)}" if key else self.root or "/"

    def url(self, path: str, query: str = "") -> str:
        """The URL of a path of :meth:`path`, with an encoded query."""
        return f"{self.scheme}://{self.host}{path}{'?' if query else ''}{query}"


def is_region(name: str) -> bool:
    """Whether AWS could have a region of this name; a list of those would be out of date soon."""
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
    """Answer where AWS keeps a bucket.

    :param path_style: put the bucket into the path. Buckets whose names can not stand before a
        host, or with dots over TLS, go there in any case.
    :param secure: use TLS.
    :param accelerate: go through the nearest edge of AWS's own net.
    :param dual_stack: use names that have IPv6 addresses as well.
    :param fips: use hosts with certified cryptography.
    :raises AddressError: if the settings exclude each other.
    """
    domain = next(
        (name for start, name in _DOMAINS.items() if region.startswith(start)), "amazonaws.com"
    )
    fits = _is_host_label(bucket, secure=secure)
    stack = ".dualstack" if dual_stack else ""
    if accelerate:
        if path_style:
            raise AddressError("accelerate does not go with forcepathstyle")
        if fips:
            raise AddressError("accelerate does not go with usefipsendpoint")
        if not _LABEL.fullmatch(bucket):
            raise AddressError(f"accelerate does not go with the name of the bucket {bucket!r}")
        host = f"s3-accelerate{stack}.{domain}"
    else:
        host = f"s3{'-fips' if fips else ''}{stack}.{region}.{domain}"
    scheme = "https" if secure else "http"
    return _make_address(
        bucket, region, SplitResult(scheme, host, "", "", ""), path_style or not fits
    )


def endpoint_address(
    bucket: str,
    endpoint: str,
    *,
    region: str = "",
    path_style: bool | None = None,
    secure: bool = True,
) -> BucketAddress:
    """Answer where another store keeps a bucket.

    :param endpoint: host, perhaps with a port, a scheme before it and a path behind it.
    :param region: what to sign for; if empty, what a host of AWS names, else ``us-east-1``.
    :param path_style: None means yes, as most stores want it.
    :param secure: use TLS where the endpoint names no scheme.
    :raises AddressError: if the endpoint is none, or a bucket can not stand before its host.
    """
    address = _split_endpoint(endpoint, secure=secure)
    if path_style is None:
        path_style = True
    elif not path_style:
        host = address.hostname or ""
        if _is_ip(host):
            raise AddressError(f"a bucket can not stand before {host}: set forcepathstyle: true")
        path_style = not _is_host_label(bucket, secure=address.scheme == "https")
    return _make_address(bucket, region or _region_of(address), address, path_style)


def _split_endpoint(endpoint: str, *, secure: bool) -> SplitResult:
    text = endpoint.strip()
    if "://" not in text:
        text = f"{'https' if secure else 'http'}://{text}"
    try:
        address = urlsplit(text)
        port = address.port
    except ValueError as error:
        raise AddressError(f"{endpoint!r} is no endpoint: {error}") from error
    if address.scheme not in _PORTS:
        raise AddressError(f"{endpoint!r} is no endpoint: neither http nor https")
    if not address.hostname or not re.fullmatch(r"[A-Za-z0-9.:_-]+", address.hostname):
        raise AddressError(f"{endpoint!r} is no endpoint: it names no host")
    if address.username is not None or address.query or address.fragment:
        raise AddressError(f"{endpoint!r} is no endpoint: only host, port and path may be given")
    host = f"[{address.hostname}]" if ":" in address.hostname else address.hostname
    if port is not None and port != _PORTS[address.scheme]:
        host = f"{host}:{port}"
    return address._replace(netloc=host, path=address.path.rstrip("/"))


def _make_address(
    bucket: str, region: str, address: SplitResult, path_style: bool
) -> BucketAddress:  # noqa: FBT001
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
