"""Request targets without secrets, for logs and pages about requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from twisted.web.server import Request

#: Query parameters whose values are secrets: the signed state of an upload, credentials in requests
#: for tokens, and the signatures of presigned URLs.
_SECRETS: Final = frozenset(
    {
        *(b"_state", b"token", b"access_token", b"refresh_token", b"id_token"),
        *(b"password", b"client_secret", b"assertion", b"code"),
        *(b"signature", b"policy", b"awsaccesskeyid"),
        *(b"x-amz-signature", b"x-amz-credential", b"x-amz-security-token"),
    }
)


def redact_target(target: bytes) -> bytes:
    """Return a request target, or a URL, whose secret parameters have the value ``REDACTED``."""
    path, mark, query = target.partition(b"?")
    if not mark:
        return target
    return path + mark + b"&".join(map(_redact, query.split(b"&")))


def _redact(parameter: bytes) -> bytes:
    name, equals, _ = parameter.partition(b"=")
    is_secret = equals and unquote_to_bytes(name).lower() in _SECRETS
    return name + b"=REDACTED" if is_secret else parameter


def describe_request(request: Request) -> str:
    """Return method and target of a request, without secrets, for a log line."""
    line = b"%b %b" % (request.method, redact_target(request.uri))
    return line.decode("ascii", "backslashreplace")
