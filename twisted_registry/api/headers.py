"""Reading request headers: whatever bytes a client sends are text in some way, never an error.

``Request.getHeader`` raises on a value that is not UTF-8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted.web.server import Request


def every_header(request: Request, name: str) -> list[str]:
    """All values of a header, in order."""
    values = request.requestHeaders.getRawHeaders(name.encode("ascii"), ())
    return [value.decode("utf-8", "replace") for value in values]


def header(request: Request, name: str) -> str | None:
    """The last value of a header, or None if it was not sent."""
    values = every_header(request, name)
    return values[-1] if values else None
