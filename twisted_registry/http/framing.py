"""Response heads as bytes, and responses that are made without a Resource."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from twisted.web.http import NO_BODY_CODES
from twisted.web.http_headers import Headers

from twisted_registry.http.request_id import request_id_field

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted_registry.http.interfaces import MakeErrorBody

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: Statuses of responses without a body.
NO_BODY = frozenset(NO_BODY_CODES)


def has_body(method: bytes, status: int) -> bool:
    """Return whether a response has a body (RFC 9112 section 6.3)."""
    return method != b"HEAD" and status not in NO_BODY


class ResponseHead:
    """A status line and header fields, with what the connection needs to know of them.

    :ivar length: of the body in bytes; None if it has none or the fields do not say.
    :ivar framed: whether the fields say where the response ends, if it is not chunked.
    :ivar close: whether the Resource wants the connection closed.
    """

    def __init__(
        self,
        method: bytes,
        status: bytes,
        reason: bytes,
        fields: Headers | Iterable[tuple[bytes, bytes]],
        request_id: str,
    ) -> None:
        """:param fields: Headers, or the pairs that Twisted 24.11 passes.

        :param request_id: becomes a header, unless a Resource has set that.
        """
        self.length: int | None = None
        self.close = False
        # RFC 9110 section 6.2: the server's own version, whatever the client's is.
        self._lines = [b"HTTP/1.1 %b %b" % (status, reason)]
        bodiless = not has_body(method, int(status))
        self.framed = bodiless
        has_id = False
        pairs = (
            [(name, value) for name, values in fields.getAllRawHeaders() for value in values]
            if isinstance(fields, Headers)
            else fields
        )
        for name, value in pairs:
            if name == b"Content-Length":
                if status == b"204" or (status == b"304" and value == b"0"):
                    # RFC 9110 section 8.6: not in a 204; in a 304 it would be the entity's.
                    continue
                if not bodiless:
                    self.length = int(value)
                    self.framed = True
            elif name == b"Connection":
                # The connection writes this field itself; a Resource can only ask to close.
                self.close = self.close or value.lower() == b"close"
                continue
            self._lines.append(b"%b: %b" % (name, value))
            has_id = has_id or name.lower() == b"x-request-id"
        if not has_id:
            self._lines.append(request_id_field(request_id).rstrip())

    def render(self, *, closing: bool) -> bytes:
        """Return the bytes, including the empty line."""
        lines = self._lines
        if closing:
            lines.append(b"Connection: close")
        head = b"\r\n".join(lines)
        if head.count(b"\n") >= len(lines) or head.count(b"\r") >= len(lines):
            # twisted.web keeps line breaks out of fields, not out of the reason.
            head = b"\r\n".join(b" ".join(line.splitlines()) for line in lines)
        return head + b"\r\n\r\n"


def response_head(
    status: int, reason: bytes, date: bytes, fields: bytes, length: int, *, closing: bool
) -> bytes:
    """Return the head of a response.

    :param fields: encoded header fields, each with its line break.
    :param length: Content-Length; left out for a status without a body.
    """
    # RFC 9110 section 8.6: not in a 204; in a 304 it would be the entity's.
    content_length = b"" if status in NO_BODY else b"Content-Length: %d\r\n" % length
    end = b"Connection: close\r\n\r\n" if closing else b"\r\n"
    return b"HTTP/1.1 %d %b\r\nDate: %b\r\n%b%b%b" % (
        status,
        reason,
        date,
        fields,
        content_length,
        end,
    )


def plain_error_body(status: int, message: str) -> tuple[bytes, bytes]:
    """Make the body of an error as plain text: a ``MakeErrorBody``."""
    return b"text/plain; charset=utf-8", f"{status} {message}\n".encode()


def error_response(
    method: bytes, status: int, date: bytes, request_id: str, make_body: MakeErrorBody
) -> bytes:
    """Return a complete error response after which the connection closes."""
    phrase = HTTPStatus(status).phrase
    content_type, body = make_body(status, phrase.lower())
    fields = request_id_field(request_id) + b"Content-Type: %b\r\n" % content_type
    head = response_head(status, phrase.encode(), date, fields, len(body), closing=True)
    return head + body if has_body(method, status) else head
