"""Request ids: one name for a request in its response, in log lines, the audit log and events.

A proxy in front of the registry may have chosen the id already. Its header is used if it is short
and consists of characters that are safe in any log.
"""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar
from itertools import count
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from twisted.web.server import Request

#: The field of a log line with the id, as in Distribution.
REQUEST_ID_FIELD: Final = "http.request.id"
#: The id of the request whose coroutine runs; empty outside of requests.
current_request_id: ContextVar[str] = ContextVar("current_request_id", default="")
_HEADER: Final = b"x-request-id"
_ACCEPTED: Final = re.compile(rb"[A-Za-z0-9._~+/=:@-]{1,128}")
_PROCESS: Final = secrets.token_hex(6)
_numbers = count(1)


def choose_request_id(sent: bytes | None) -> str:
    """Return the id of a request: what its header says, if that is well-formed, or a new one.

    :param sent: the value of ``X-Request-Id``; None without the header.
    """
    if sent is not None and _ACCEPTED.fullmatch(sent):
        return sent.decode("ascii")
    return f"{_PROCESS}-{next(_numbers)}"


def get_request_id(request: Request) -> str:
    """Return the id of a request, also of one of another web server."""
    known: Any = request
    found: str = getattr(known, "request_id", "")
    if not found:
        values = request.requestHeaders.getRawHeaders(_HEADER)
        found = known.request_id = choose_request_id(values[-1] if values else None)
    return found


def request_id_field(request_id: str) -> bytes:
    """Return the header field of a response, with its line break."""
    return b"X-Request-Id: %b\r\n" % request_id.encode("ascii")
