"""The head of a request, and the same with and without the credentials in it.

What is remembered of requests that were read before holds no secret: credentials are cut out of the
bytes that it is found by, and stand beside the head that is found, which all share.
"""

from __future__ import annotations

from attrs import define

from twisted_registry.auth.interfaces import RawCredentials

#: What stands before credentials, the usual way.
SHOWN = b"\r\nAuthorization: "
#: Credentials of these characters, with no space at an end, need no second look.
_SOUND = bytes(range(0x20, 0x7F))
_SPACE = 0x20
#: The end of a head.
END_OF_HEAD = b"\r\n\r\n"


@define(eq=False, repr=False, slots=True)
class RequestHead:
    """A request line with its header fields, and how much of the body has come so far.

    :ivar target: in origin form, or ``*``.
    :ivar headers: names as sent, values without surrounding white space.
    :ivar fields: the last value of each, by its name in lower case.
    :ivar keep: whether the client wants, and its version allows, another request after this.
    :ivar length: the body's length in bytes, None if it is chunked.
    :ivar expects: whether ``100 Continue`` is waited for.
    :ivar arrived: bytes of the body read so far.
    :ivar complete: whether the body's end has been read.
    """

    method: bytes
    target: bytes
    version: bytes
    headers: list[tuple[bytes, bytes]]
    fields: dict[bytes, bytes]
    keep_alive: bool
    length: int | None = 0
    expects_continue: bool = False
    body_bytes_read: int = 0
    complete: bool = True


@define(eq=False, repr=False, slots=True)
class ShownHead:
    """A head that was read before, with the credentials that stand in it this time.

    :ivar head: without them; it is shared, and nobody may change it.
    :ivar shown: the credentials.
    :ivar data: all of the request.
    :ivar place: where in it they begin, with the line break and the name before them.
    """

    head: RequestHead
    shown: RawCredentials
    data: bytes
    place: int

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """All header fields, as those of :class:`RequestHead`."""
        headers = self.head.headers.copy()
        before = self.data.count(b"\r\n", 0, self.place)
        headers.insert(before, (b"Authorization", self.shown.encode("ascii")))
        return headers


def credentials_in(data: bytes, place: int) -> RawCredentials | None:
    """The credentials in a request that ends with its head.

    :param place: where :data:`SHOWN` was found; before its end and behind its beginning if what
        is left without them :func:`is_one_head`.
    :returns: None if they would have to be looked at more closely.
    """
    begin = place + len(SHOWN)
    raw = data[begin : data.find(b"\r\n", begin)]
    if not raw or raw.translate(None, _SOUND) or raw[0] == _SPACE or raw[-1] == _SPACE:
        return None
    return RawCredentials(raw.decode("ascii"))


def apart(data: bytes) -> bytes | None:
    """Take the line with the credentials out of a request that ends with its head.

    :returns: what is left, which is as well :func:`is_one_head` if ``data`` is; None if it shows
        none, or not in the usual way.
    """
    place = data.find(SHOWN)
    shown = credentials_in(data, place) if place > 0 and data.endswith(END_OF_HEAD) else None
    return None if shown is None else data[:place] + data[place + len(SHOWN) + len(shown) :]


def is_one_head(data: bytes) -> bool:
    """Whether a request that could be read is nothing but its head, without empty lines around."""
    return data[:1].isalpha() and data.find(END_OF_HEAD) + len(END_OF_HEAD) == len(data)


def without_credentials(head: RequestHead) -> RequestHead | None:
    """A head as if nobody had shown any; None if some are shown more than once."""
    headers = [field for field in head.headers if field[0].lower() != b"authorization"]
    if len(headers) != len(head.headers) - 1:
        return None
    fields = {name: value for name, value in head.fields.items() if name != b"authorization"}
    return RequestHead(head.method, head.target, head.version, headers, fields, head.keep_alive)
