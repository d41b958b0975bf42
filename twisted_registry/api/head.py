"""The head of a request, and the same with and without the credentials in it.

What is remembered of requests that were read before holds no secret: credentials are cut out of the
bytes that it is found by, and put into a copy of the head that is found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

if TYPE_CHECKING:
    from twisted_registry.auth.interfaces import Shown

#: What stands before credentials, the usual way.
SHOWN = b"\r\nAuthorization: "
#: Credentials of these characters, with no space at an end, need no second look.
_SOUND = bytes(range(0x20, 0x7F))
_SPACE = 0x20
#: The end of a head.
END = b"\r\n\r\n"


@define(eq=False, repr=False, slots=True)
class Head:
    """A request line with its header fields, and how much of the body has come so far.

    :ivar target: in origin form, or ``*``.
    :ivar headers: names as sent, values without surrounding white space.
    :ivar fields: the last value of each, by its name in lower case.
    :ivar keep: whether the client wants, and its version allows, another request after this.
    :ivar length: the body's length in bytes, None if it is chunked.
    :ivar expects: whether ``100 Continue`` is waited for.
    :ivar arrived: bytes of the body read so far.
    :ivar complete: whether the body's end has been read.
    :ivar shown: the credentials in it, if the connection keeps them for its next request.
    """

    method: bytes
    target: bytes
    version: bytes
    headers: list[tuple[bytes, bytes]]
    fields: dict[bytes, bytes]
    keep: bool
    length: int | None = 0
    expects: bool = False
    arrived: int = 0
    complete: bool = True
    shown: Shown | None = None


def apart(data: bytes) -> tuple[bytes, bytes, int] | None:
    """Take the line with the credentials out of a request that ends with its head.

    If what is left :func:`is_one_head`, ``data`` is, too.

    :returns: what is left, the credentials, and how many header fields stood before them; None if
        it shows none, or not in the usual way.
    """
    place = data.find(SHOWN)
    # Behind its end, or in front of it, they would be none of the request.
    if place <= 0 or not data.endswith(END):
        return None
    begin = place + len(SHOWN)
    end = data.find(b"\r\n", begin)
    credentials = data[begin:end]
    if (
        not credentials
        or credentials.translate(None, _SOUND)
        or _SPACE in {credentials[0], credentials[-1]}
    ):
        return None
    return data[:place] + data[end:], credentials, data.count(b"\r\n", 0, place)


def is_one_head(data: bytes) -> bool:
    """Whether a request that could be read is nothing but its head, without empty lines around."""
    return data[:1].isalpha() and data.find(END) + len(END) == len(data)


def joined(head: Head, credentials: bytes, before: int, shown: Shown | None = None) -> Head:
    """A head with credentials, behind so many other fields.

    :param shown: the same credentials, if the connection keeps them.
    """
    headers = head.headers.copy()
    headers.insert(before, (b"Authorization", credentials))
    fields = {**head.fields, b"authorization": credentials}
    return Head(head.method, head.target, head.version, headers, fields, head.keep, shown=shown)


def without_credentials(head: Head) -> Head | None:
    """A head as if nobody had shown any; None if some are shown more than once."""
    headers = [field for field in head.headers if field[0].lower() != b"authorization"]
    if len(headers) != len(head.headers) - 1:
        return None
    fields = {name: value for name, value in head.fields.items() if name != b"authorization"}
    return Head(head.method, head.target, head.version, headers, fields, head.keep)
