"""The heads of answers as bytes, and the answers that are given without a Resource."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING

from twisted.web.http import NO_BODY_CODES
from twisted.web.http_headers import Headers

from twisted_registry.oci.errors import ErrorCode, RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterable

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: Statuses of answers without a body.
NO_BODY = frozenset(NO_BODY_CODES)
_UNSUPPORTED = frozenset({HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED})


def has_body(method: bytes, status: int) -> bool:
    """Whether an answer has a body at all (RFC 9112 section 6.3)."""
    return method != b"HEAD" and status not in NO_BODY


class ResponseHead:
    """A status line and header fields, read for what the channel must know.

    :ivar length: of the body, None if there is none or the fields do not say.
    :ivar framed: whether the fields say where the answer ends, if it is not chunked.
    :ivar close: whether the Resource wants the connection closed.
    """

    def __init__(
        self,
        method: bytes,
        status: bytes,
        reason: bytes,
        fields: Headers | Iterable[tuple[bytes, bytes]],
    ) -> None:
        """:param fields: older twisted.web hands over pairs, newer the Headers."""
        self.length: int | None = None
        self.close = False
        # RFC 9110 section 6.2: the version is ours, whatever the client's
        self._lines = [b"HTTP/1.1 %b %b" % (status, reason)]
        bodiless = not has_body(method, int(status))
        self.framed = bodiless
        pairs = (
            [(name, value) for name, values in fields.getAllRawHeaders() for value in values]
            if isinstance(fields, Headers)
            else fields
        )
        for name, value in pairs:
            if name == b"Content-Length":
                if status == b"204" or (status == b"304" and value == b"0"):
                    # RFC 9110 section 8.6: not in a 204; in a 304 it would be the entity's
                    continue
                if not bodiless:
                    self.length = int(value)
                    self.framed = True
            elif name == b"Connection":
                # Ours to say; and a Resource may wish it.
                self.close = self.close or value.lower() == b"close"
                continue
            self._lines.append(b"%b: %b" % (name, value))

    def render(self, *, closing: bool) -> bytes:
        """The bytes, up to and with the empty line."""
        lines = self._lines
        if closing:
            lines.append(b"Connection: close")
        head = b"\r\n".join(lines)
        if head.count(b"\n") >= len(lines) or head.count(b"\r") >= len(lines):
            # twisted.web keeps line breaks out of fields, not out of the reason
            head = b"\r\n".join(b" ".join(line.splitlines()) for line in lines)
        return head + b"\r\n\r\n"


def response_head(
    status: int, reason: bytes, date: bytes, fields: bytes, length: int, *, closing: bool
) -> bytes:
    """The head of an answer whose fields are ready, each with its line break."""
    # RFC 9110 section 8.6: not in a 204; in a 304 it would be the entity's.
    said = b"" if status in NO_BODY else b"Content-Length: %d\r\n" % length
    end = b"Connection: close\r\n\r\n" if closing else b"\r\n"
    return b"HTTP/1.1 %d %b\r\nDate: %b\r\n%b%b%b" % (status, reason, date, fields, said, end)


def error_body(code: ErrorCode, message: str) -> bytes:
    """The specification's JSON for an error that no Resource answers."""
    return json.dumps(RegistryError(code, message=message).as_json()).encode()


def error_response(method: bytes, status: int, date: bytes) -> bytes:
    """A whole answer to what is not, or no longer, a request; the connection ends with it."""
    phrase = HTTPStatus(status).phrase
    code = ErrorCode.UNSUPPORTED if status in _UNSUPPORTED else ErrorCode.UNKNOWN
    body = error_body(code, phrase.lower())
    head = (
        b"HTTP/1.1 %d %b\r\nDate: %b\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\nConnection: close\r\n\r\n"
        % (status, phrase.encode(), date, len(body))
    )
    return head + body if has_body(method, status) else head
