"""``storage.s3``: a bucket of an S3-compatible store.

The options, their ranges and their defaults are those of Distribution 2.8 and 3.x. Like there,
numbers and booleans may be quoted.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from twisted_registry.config import values
from twisted_registry.config.document import quote_value
from twisted_registry.config.kinds import Scalar, choice, text
from twisted_registry.config.sections import SectionBase, key, schema

if TYPE_CHECKING:
    from twisted_registry.config.document import Node, Report

_MIB: Final = 1024 * 1024
#: What S3 allows a part of a multipart upload to have, and a copy in one piece at most.
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
# Patterns are compiled by whoever has such a store, not at each start.
_REGION: Final = r"[a-z]{2,4}(?:-[a-z]+){1,3}-\d{1,2}"
_BUCKET: Final = r"[A-Za-z0-9._-]{1,255}"
_HOST: Final = r"[A-Za-z0-9._-]+(?::\d{1,5})?|\[[0-9A-Fa-f:.]+\](?::\d{1,5})?"


def _flag(doc: str, default: bool | None) -> Any:  # noqa: FBT001 - the default of a flag
    return key(Scalar("true or false", values.lenient_boolean), doc, default=default)


def _bytes(doc: str, default: int, minimum: int, maximum: int) -> Any:
    def convert(node: Node) -> int:
        try:
            value = values.lenient_integer(node)
        except ValueError:
            value = values.size(node)
        if not minimum <= value <= maximum:
            raise ValueError
        return value

    return key(
        Scalar(f"a number of bytes from {minimum} to {maximum}, as 10485760 or 10MiB", convert),
        doc, default=default,
    )  # fmt: skip


def _count(node: Node) -> int:
    value = values.lenient_integer(node)
    if value < 1:
        raise ValueError
    return value


def _bucket(node: Node) -> str:
    value = values.text(node)
    if not re.fullmatch(_BUCKET, value):
        raise ValueError
    return value


def _storage_class(node: Node) -> str:
    value = values.text(node).upper()
    if value not in STORAGE_CLASSES:
        raise ValueError
    return value


def _endpoint(node: Node) -> str:
    """A host, perhaps with a port, or the URL of one, perhaps with a path."""
    value = values.text(node).strip()
    if not value or re.fullmatch(_HOST, value):
        return value
    parts = urlsplit(value)
    _origin(f"{parts.scheme}://{parts.netloc}")
    if "?" in value or "#" in value or not value.isprintable() or " " in value:
        raise ValueError
    return value


def _public_endpoint(node: Node) -> str:
    value = values.text(node).strip()
    return _origin(value) if value else ""


def _origin(value: str) -> str:
    parts = urlsplit(value)
    _ = parts.port  # raises ValueError unless it is a port
    if parts.scheme not in {"http", "https"} or not re.fullmatch(_HOST, parts.netloc):
        raise ValueError
    if parts.path not in {"", "/"} or "?" in value or "#" in value:
        raise ValueError
    return value.rstrip("/")


def _folder(node: Node) -> str:
    """A key prefix, without the slashes around it."""
    value = values.text(node).strip("/")
    if value and ({"", ".", ".."} & set(value.split("/")) or not value.isprintable()):
        raise ValueError
    return value


@schema
class S3(SectionBase):
    """``storage.s3``, and under its other name ``storage.s3aws``."""

    bucket: str = key(
        Scalar("the name of a bucket", _bucket), "The bucket, which must exist. Required.",
        default="",
    )  # fmt: skip
    region: str = key(
        text("a region such as eu-central-1"), "The region of the bucket. Required unless"
        " ``regionendpoint`` is set; it is us-east-1 then.", default="",
    )  # fmt: skip
    regionendpoint: str = key(
        Scalar("a host, HOST:PORT, or an http or https URL", _endpoint),
        "Where a store that is not AWS listens. Without a scheme, ``secure`` decides.", default="",
    )  # fmt: skip
    forcepathstyle: bool | None = _flag(
        "Name the bucket in the path, not in the host. Without it: whenever ``regionendpoint`` is"
        " set (as Distribution 2.8 does; 3.x never does).", None,
    )  # fmt: skip
    redirectendpoint: str = key(
        Scalar("an http or https URL without a path", _public_endpoint), "Where clients reach the"
        " store, if not where we do: only the URLs of redirects name it.", default="",
    )  # fmt: skip
    rootdirectory: str = key(
        Scalar("a path without empty components, . and ..", _folder),
        "A prefix of all keys, with or without a slash before it.", default="",
    )  # fmt: skip
    accesskey: str = key(
        text(), "Credentials, together with ``secretkey``. Without both: those of the environment"
        " (``AWS_ACCESS_KEY_ID``...), then the shared credentials file.",
        default="", secret=True,
    )  # fmt: skip
    secretkey: str = key(text(), "See ``accesskey``.", default="", secret=True)
    sessiontoken: str = key(
        text(), "The session that ``accesskey`` belongs to, if it is temporary.",
        default="", secret=True,
    )  # fmt: skip
    secure: bool = _flag("Use https.", True)
    skipverify: bool = _flag("Accept any certificate of the store.", False)
    v4auth: bool = _flag(
        "Sign with version 4. There is no other here: false is warned of.",
        True,
    )
    encrypt: bool = _flag("Ask the store to encrypt: AES256, or with ``keyid``.", False)
    keyid: str = key(text(), "The KMS key to encrypt with.", default="")
    storageclass: str = key(
        Scalar(f"{', '.join(STORAGE_CLASSES[:-1])} or {STORAGE_CLASSES[-1]}", _storage_class),
        "The storage class of what is written, in any case; NONE sends none.", default="STANDARD",
    )  # fmt: skip
    objectacl: str = key(choice(*OBJECT_ACLS), "The canned ACL of what is written.",
                         default="private")  # fmt: skip
    chunksize: int = _bytes(
        "How large the parts of an upload are: also about what an upload holds in memory, twice."
        , 10 * _MIB, MIN_PART_BYTES, MAX_PART_BYTES,
    )  # fmt: skip
    multipartcopychunksize: int = _bytes(
        "How large the parts of a copy inside the store are.",
        32 * _MIB,
        MIN_PART_BYTES,
        MAX_PART_BYTES,
    )
    multipartcopymaxconcurrency: int = key(
        Scalar("a whole number from 1", _count), "How many parts are copied at once.", default=100
    )
    multipartcopythresholdsize: int = _bytes(
        "Larger objects are copied in parts.", 32 * _MIB, 0, MAX_PART_BYTES
    )
    useragent: str = key(
        Scalar("text on one line", values.header_value), "Added to our own in the User-Agent.",
        default="",
    )  # fmt: skip
    usedualstack: bool = _flag("Use AWS's endpoints for IPv4 and IPv6.", False)
    accelerate: bool = _flag("Use AWS's transfer acceleration.", False)
    usefipsendpoint: bool = _flag("Use AWS's FIPS endpoints.", False)
    loglevel: str = key(
        text(f"{', '.join(LOG_LEVELS[:-1])} or {LOG_LEVELS[-1]}"), "Log the requests to the"
        " store, without secrets. Unknown words mean off.", default="off",
    )  # fmt: skip

    @property
    def where(self) -> str:
        """Which store it is, for people."""
        return self.regionendpoint or f"AWS in {self.region}"


def check_s3(name: str, options: S3, report: Report) -> None:
    """Report what no single option can tell."""
    path = f"storage.{name}"
    if not options.bucket:
        report.fault(f"{path}.bucket", None, "the key is required")
    if not options.regionendpoint and not re.fullmatch(_REGION, options.region):
        got = f"got {quote_value(options.region) if options.region else 'nothing'}"
        expected = "a region of AWS such as eu-central-1, or regionendpoint beside it"
        report.fault(f"{path}.region", got, expected)
    if not options.v4auth:
        report.warn(f"{path}.v4auth", "no effect; requests are signed with version 4")
    if bool(options.accesskey) != bool(options.secretkey):
        report.warn(f"{path}.accesskey", "no effect; accesskey and secretkey go together")
    if options.keyid and not options.encrypt:
        report.warn(f"{path}.keyid", "no effect without encrypt: true")
    if options.loglevel.lower() not in {*LOG_LEVELS, "false"}:
        report.warn(
            f"{path}.loglevel", f"{quote_value(options.loglevel)} is unknown, nothing is logged"
        )
    if options.regionendpoint:
        for switch in ("usedualstack", "accelerate", "usefipsendpoint"):
            if getattr(options, switch):
                report.warn(f"{path}.{switch}", "no effect beside regionendpoint")
