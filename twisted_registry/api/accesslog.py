"""One line for each request, in Apache's combined format."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from zope.interface import Interface, implementer

if TYPE_CHECKING:
    from twisted.web.server import Request

# What could end the line or the field, or steer a terminal.
_ESCAPES: dict[int, str] = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0x100))}
_ESCAPES[ord('"')] = '\\"'
_ESCAPES[ord("\\")] = "\\\\"


class IAccessLog(Interface):
    """Something that wants to know of every request when it is over."""

    def log(request: Request) -> None:  # noqa: N805 (zope's methods have no self)
        """A request was answered, or its client left: then ``code`` is 499 unless an answer
        had begun, or the status with which the channel refused it.

        ``code``, ``sentLength``, ``duration`` (seconds), ``user`` and everything that
        the client sent can be asked for.
        """


@implementer(IAccessLog)
class AccessLog:
    """Writes to a text stream, one ``write`` for each line.

    The time of a line is that of the request's site. The user is ``request.user``, which the
    API sets to the name that it has verified; what a client merely says is not logged.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._cached_time = (-1, "")

    def log(self, request: Any) -> None:
        """Write the line of ``request``."""
        self._stream.write(
            f"{_address(request)} - {_user(request)} [{self._now(request)}]"
            f' "{_quoted(request.method)} {_quoted(request.uri)} {_quoted(request.clientproto)}"'
            f" {request.code} {request.sentLength or '-'}"
            f' "{_header(request, b"referer")}" "{_header(request, b"user-agent")}"\n'
        )

    def _now(self, request: Any) -> str:
        now = int(request.site.clock.seconds())
        second, text = self._cached_time
        if second != now:
            text = datetime.fromtimestamp(now, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")
            self._cached_time = (now, text)
        return text


def _address(request: Any) -> str:
    """The client's host; a Unix socket has none."""
    return getattr(request.getClientAddress(), "host", None) or "-"


def _quoted(value: bytes) -> str:
    return value.decode("latin-1").translate(_ESCAPES)


def _user(request: Any) -> str:
    """The name stands without quotes and so may hold no space either."""
    user: bytes = getattr(request, "user", b"")
    return _quoted(user).replace(" ", "\\x20") or "-"


def _header(request: Any, name: bytes) -> str:
    value = request.getHeader(name)
    return "-" if value is None else _quoted(value)
