"""The ``storage.s3`` section: a bucket of an S3-compatible store.

The options, their ranges and their defaults are those of Distribution 2.8 and 3.x. As there,
numbers and booleans may be quoted.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from twisted_registry.config import values
from twisted_registry.config.document import quote_value
from twisted_registry.config.kinds import Scalar, choice, text
from twisted_registry.config.sections import SectionBase, key

if TYPE_CHECKING:
    from twisted_registry.config.document import Node, Report

_MIB: Final = 1024 * 1024
#: The limits of S3 for the parts of a multipart upload; the maximum also applies to one copy.
MIN_PART_BYTES: Final = 5 * _MIB
MAX_PART_BYTES: Final = 5 * 1024 * _MIB

STORAGE_CLASSES: Final = (
    "NONE",
    "STANDARD",
    "REDUCED_REDUNDANCY",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "OUTPOSTS",
    "GLACIER_IR",
    "EXPRESS_ONEZONE",
)
OBJECT_ACLS: Final = (
    "private",
    "public-read",
    "public-read-write",
    "authenticated-read",
    "aws-exec-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
)
LOG_LEVELS: Final = (
    "off",
    "debug",
    "debugwithsigning",
    "debugwithhttpbody",
    "debugwithrequestretries",
    "debugwithrequesterrors",
    "debugwitheventstreambody",
)
_REGION: Final = re.compile(r"[a-z]{2,4}(?:-[a-z]+){1,3}-\d{1,2}")
_BUCKET: Final = re.compile(r"[A-Za-z0-9._-]{1,255}")
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+(?::\d{1,5})?|\[[0-9A-Fa-f:.]+\](?::\d{1,5})?")


def _flag_key(doc: str, *, default: bool | None = False) -> Any:
    return key(Scalar("true or false", values.lenient_boolean), doc, default=default)


def _size_key(doc: str, default: int, minimum: int = MIN_PART_BYTES) -> Any:
    """Declare a key that takes a number of bytes, at most the largest part."""
    expected = f"a number of bytes from {minimum} to {MAX_PART_BYTES}, such as 10485760 or 10MiB"
    convert = values.bounded(_lenient_size, minimum, MAX_PART_BYTES)
    return key(Scalar(expected, convert), doc, default=default)


def _lenient_size(node: Node) -> int:
    try:
        return values.lenient_integer(node)
    except ValueError:
        return values.size(node)


def _endpoint(node: Node) -> str:
    """Check a host with an optional port, or an http or https URL with an optional path."""
    value = values.text(node).strip()
    if not value or _HOST.fullmatch(value):
        return value
    parts = urlsplit(value)
    _url_without_path(f"{parts.scheme}://{parts.netloc}")
    if "?" in value or "#" in value or not value.isprintable() or " " in value:
        raise ValueError
    return value


def _public_endpoint(node: Node) -> str:
    value = values.text(node).strip()
    return _url_without_path(value) if value else ""


def _url_without_path(value: str) -> str:
    parts = urlsplit(value)
    _ = parts.port  # raises ValueError if it is not a port
    if parts.scheme not in {"http", "https"} or not _HOST.fullmatch(parts.netloc):
        raise ValueError
    if parts.path not in {"", "/"} or "?" in value or "#" in value:
        raise ValueError
    return value.rstrip("/")


def _key_prefix(node: Node) -> str:
    """Check a prefix of keys, and return it without slashes around it."""
    value = values.text(node).strip("/")
    if value and ({"", ".", ".."} & set(value.split("/")) or not value.isprintable()):
        raise ValueError
    return value


class S3(SectionBase):
    """``storage.s3``, and under its other name ``storage.s3aws``."""

    bucket: str = key(
        Scalar("the name of a bucket", values.matching(_BUCKET)),
        "The bucket, which must exist. Required.",
    )
    region: str = key(
        text("a region such as eu-central-1"),
        "The region of the bucket. Required unless ``regionendpoint`` is set; then the default is"
        " us-east-1.",
    )
    regionendpoint: str = key(
        Scalar("a host, HOST:PORT, or an http or https URL", _endpoint),
        "The address of a store other than AWS. Without a scheme, ``secure`` selects it.",
    )
    forcepathstyle: bool | None = _flag_key(
        "Put the name of the bucket into the path instead of the host. If not set: true if"
        " ``regionendpoint`` is set (as in Distribution 2.8; 3.x has false).",
        default=None,
    )
    redirectendpoint: str = key(
        Scalar("an http or https URL without a path", _public_endpoint),
        "The address of the store for clients, if it differs from the one that the registry uses."
        " It is only used in redirects.",
    )
    rootdirectory: str = key(
        Scalar("a path without empty components, . and ..", _key_prefix),
        "A prefix of all keys, with or without a leading slash.",
    )
    accesskey: str = key(
        text(),
        "The access key; needs ``secretkey``. If neither is set, credentials are read from the"
        " environment (``AWS_ACCESS_KEY_ID`` etc.), then from the shared credentials file.",
        secret=True,
    )
    secretkey: str = key(text(), "The secret key of ``accesskey``.", secret=True)
    sessiontoken: str = key(
        text(), "The session token of ``accesskey``, if it is temporary.", secret=True
    )
    secure: bool = _flag_key("Use https.", default=True)
    payloadsigning: bool = _flag_key(
        "Send the SHA-256 of everything that is stored, which the store verifies. Without https it"
        " is always sent; with https, false leaves it out above 64 KiB, which saves processor time"
        " (the AWS command line calls this ``payload_signing_enabled``).",
        default=True,
    )
    skipverify: bool = _flag_key("Do not verify the certificate of the store.")
    v4auth: bool = _flag_key(
        "Sign requests with signature version 4. No other version is supported: false has no effect"
        " and adds a warning.",
        default=True,
    )
    encrypt: bool = _flag_key(
        "Request server-side encryption: with the KMS key ``keyid``, or AES256 without it."
    )
    keyid: str = key(text(), "The KMS key of ``encrypt``.")
    storageclass: str = key(
        choice(*STORAGE_CLASSES, change_case=str.upper),
        "The storage class of new objects, in any case. NONE sends no storage class.",
        default="STANDARD",
    )
    objectacl: str = key(choice(*OBJECT_ACLS), "The canned ACL of new objects.", default="private")
    chunksize: int = _size_key(
        "The size of the parts of an upload. An upload holds up to three in memory; all uploads"
        " together hold at most 40 MiB, or two parts if that is more.",
        10 * _MIB,
    )
    multipartcopychunksize: int = _size_key(
        "The size of the parts of a copy within the store.",
        32 * _MIB,
    )
    multipartcopymaxconcurrency: int = key(
        Scalar("an integer, 1 or more", values.bounded(values.lenient_integer, 1)),
        "How many parts are copied at the same time.",
        default=100,
    )
    multipartcopythresholdsize: int = _size_key(
        "The size above which an object is copied in parts.", 32 * _MIB, 0
    )
    useragent: str = key(
        Scalar("text on one line", values.header_value),
        "Text added to the registry's own User-Agent header.",
    )
    usedualstack: bool = _flag_key("Use the dual-stack endpoints of AWS (IPv4 and IPv6).")
    accelerate: bool = _flag_key("Use the transfer acceleration of AWS.")
    usefipsendpoint: bool = _flag_key("Use the FIPS endpoints of AWS.")
    loglevel: str = key(
        text(f"{', '.join(LOG_LEVELS[:-1])} or {LOG_LEVELS[-1]}"),
        "Log requests to the store, without secrets. Other values mean off.",
        default="off",
    )

    @property
    def description(self) -> str:
        """The store in words, for logs and messages."""
        return self.regionendpoint or f"AWS in {self.region}"


def check_s3(name: str, options: S3, report: Report) -> None:
    """Report combinations of options that are wrong or have no effect.

    :param name: the name of the section: ``s3`` or ``s3aws``.
    """
    path = f"storage.{name}"
    if not options.bucket:
        report.add_fault(f"{path}.bucket", None, "this key is required")
    if not options.regionendpoint and not _REGION.fullmatch(options.region):
        got = f"got {quote_value(options.region)}" if options.region else "not set"
        expected = "a region of AWS such as eu-central-1, or regionendpoint for another store"
        report.add_fault(f"{path}.region", got, expected)
    if not options.v4auth:
        report.add_warning(f"{path}.v4auth", "no effect; requests are signed with version 4")
    if bool(options.accesskey) != bool(options.secretkey):
        report.add_warning(f"{path}.accesskey", "no effect without both accesskey and secretkey")
    if options.keyid and not options.encrypt:
        report.add_warning(f"{path}.keyid", "no effect without encrypt: true")
    if options.loglevel.lower() not in {*LOG_LEVELS, "false"}:
        report.add_warning(
            f"{path}.loglevel", f"{quote_value(options.loglevel)} is unknown; nothing is logged"
        )
    if options.regionendpoint:
        for switch in ("usedualstack", "accelerate", "usefipsendpoint"):
            if getattr(options, switch):
                report.add_warning(f"{path}.{switch}", "no effect with regionendpoint")
