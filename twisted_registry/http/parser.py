"""Bytes in, requests out: RFC 9112 as strictly as a server may read it.

llhttp (through ``httptools``) does the grammar. Around it stands what llhttp leaves to its
user: limits, one Host, one framing, no coding but chunked, no tunnel. A front-end proxy and
we must never disagree about where a request ends, so whatever two parsers might read in two
ways is refused.

Nothing is called from inside the parser: what was found is put into :attr:`RequestParser.events`
and handled after the bytes have been read to their end, so that no Resource runs, and no
exception of a Resource passes, in the middle of a parse.

A request that was read before is not read again: see :mod:`twisted_registry.http.parser`.

The head of a request, and the same with and without the credentials in it.

What is remembered of requests that were read before holds no secret: credentials are cut out of the
bytes that it is found by, and stand beside the head that is found, which all share.

Requests that were read before, and need not be read a second time.

Clients of one kind send the same request for the same thing, byte for byte. Between two requests a
parser knows nothing of what was before, so bytes that were one request are that request again.

What all connections share holds no credentials: those are cut out of it. But a client pulls with
one token: so a connection also keeps its last request with them. The same one again need not be
taken apart, and one that shows the same brings along the very object of which a mark was made
before. What it is good for is not kept here: that is asked for each request. The connection keeps
its last head until the next one is in, and this goes no later: no secret stays longer than it has
to.
"""

from __future__ import annotations

import re
from collections import deque
from hmac import compare_digest
from typing import TYPE_CHECKING, Final

from attrs import define, field, frozen
from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from twisted_registry.auth.interfaces import RawCredentials

if TYPE_CHECKING:
    from twisted_registry.http.interfaces import Limits

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


#: How many heads are remembered, and of what length in bytes.
REMEMBERED = 512
LONGEST = 1024
# A request that holds one of these is not: a secret should not stay longer than it has to, and an
# Upgrade leaves a parser of its own behind. Of one with credentials the rest is.
_FLEETING = frozenset({b"authorization", b"cookie", b"proxy-authorization", b"upgrade"})


@define(eq=False, repr=False)
class KnownHeads:
    """What one connection knows.

    :ivar limits: of requests.
    :ivar heads: what was read before under the same limits, by its bytes; shared by many.
    :ivar last: the last request, if it showed credentials, and the rest of it was known; when
        another one is in, or the connection is gone, it is to be forgotten.
    """

    _limits: Limits
    heads: dict[bytes, RequestHead]
    last: ShownHead | None = field(init=False, default=None)

    def find(self, data: bytes) -> RequestHead | ShownHead | None:
        """The head of a request that was read before, be it with other credentials."""
        last = self.last
        # Whoever shares the connection shall not find out by the time how much of theirs is right:
        # so what may hold credentials is compared in a time that does not depend on that.
        if last is not None:
            if len(data) == len(last.data) and compare_digest(data, last.data):
                return last
            self.last = None
        place = data.find(SHOWN)
        if place <= 0:
            return self.heads.get(data)
        limits = self._limits
        if len(data) > limits.header_bytes or not data.endswith(END_OF_HEAD):
            return None
        shown = (last and _same(data, place, last)) or credentials_in(data, place)
        if shown is None:
            return None
        head = self.heads.get(data[:place] + data[place + len(SHOWN) + len(shown) :])
        if head is None or len(head.headers) >= limits.header_count:
            return None
        self.last = ShownHead(head, shown, data, place)
        return self.last

    def remember(self, data: bytes, head: RequestHead) -> None:
        """Keep ``data``, which could be read, if it was a whole request and nothing else.

        :param head: it said that there is no body.
        """
        if not is_one_head(data):
            return
        if b"authorization" in head.fields:
            rest, bare = apart(data), without_credentials(head)
            if rest is None or bare is None:
                return
            data, head = rest, bare
        if len(data) <= LONGEST and _FLEETING.isdisjoint(head.fields):
            heads = self.heads
            heads[data] = head
            if len(heads) > REMEMBERED:
                del heads[next(iter(heads))]


def _same(data: bytes, place: int, last: ShownHead) -> RawCredentials | None:
    """The last credentials, if a request shows the same."""
    length = len(SHOWN) + len(last.shown) + 2
    begin = last.place
    same = compare_digest(data[place : place + length], last.data[begin : begin + length])
    return last.shown if same else None


# RFC 3986 section 3.2: host and port without userinfo; the registered characters of a name
_AUTHORITY = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*\Z")
# RFC 9112 section 3.2.1: visible ASCII, and no fragment
_TARGET = re.compile(rb"[!-\"$-~]+\Z")
_ABSOLUTE_FORM = re.compile(rb"https?://([^/?]+)(.*)\Z", re.IGNORECASE | re.DOTALL)
_CONTENT_LENGTH = re.compile(rb"[0-9]{1,18}\Z")
# Bytes of a read of which a copy is worth avoiding.
_BYPASS_MIN_BYTES = 64 * 1024
# What the frame of one chunk may cost beside the chunk, in bytes: its size line and CRLFs.
_CHUNK_OVERHEAD_BYTES = 32


@frozen
class ParseError:
    """The rest of the input can not be read: answer with this status and close."""

    status: int


class _ParseAborted(Exception):
    """Raised inside a callback to stop llhttp."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


#: The body of the last :class:`RequestHead` is complete. Not sent for a request without a body.
END_OF_BODY: Final = object()


class RequestParser:
    """Turns the bytes of one connection into a queue of events.

    :ivar events: in order: a :class:`RequestHead` or :class:`ShownHead`; if it is not complete, pieces of
        its body as bytes, then :data:`END_OF_BODY`; a :class:`ParseError` is always the last.
    :ivar in_head: whether the first byte of a request has been read and its head not yet.
    :ivar stopped: whether further bytes are ignored: after a refusal, and after a request that
        asked to close.
    """

    def __init__(self, limits: Limits, heads: dict[bytes, RequestHead] | None = None) -> None:
        """:param heads: what was read before under the same limits, shared by many parsers."""
        self._known = KnownHeads(limits, {} if heads is None else heads)
        self.events: deque[RequestHead | ShownHead | bytes | ParseError | object] = deque()
        self.in_head = False
        self.stopped = False
        self._limits = limits
        self._parser = HttpRequestParser(self)
        self._head: RequestHead | None = None
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._fields_bytes = 0  # of the header fields or of the trailer fields
        self._bytes_read = 0  # read since the head or the chunked body began, beyond the first read
        self._allowed_bytes = 0  # of which so much had a good reason
        self._began_in_this_read = False  # whether that beginning lies in the read at hand
        self._ignoring_callbacks = False
        self._bypassing = False  # whether the parser was not shown the body at hand from here on

    def feed(self, data: bytes) -> None:
        """Read all of ``data``. Never raises on what it holds."""
        between = not (self.in_head or self.stopped) and self._head is None
        if between:
            head = self._known.find(data)
            if head is not None:
                self.events.append(head)
                return
        before = len(self.events)
        self._parse(data)
        if between and len(self.events) == before + 1 and not (self.in_head or self.stopped):
            event = self.events[-1]
            if isinstance(event, RequestHead) and event.length == 0:
                self._known.remember(data, event)

    def _parse(self, data: bytes) -> None:
        while data and not self.stopped:
            head = self._head
            if (
                head is not None
                and head.length is not None
                and (self._bypassing or len(data) >= _BYPASS_MIN_BYTES)
            ):
                data = self._bypass_body(data, head, head.length)
                continue
            try:
                self._parser.feed_data(data)
            except HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._ignore_upgrade()
            except HttpParserCallbackError as error:
                refused = error.__context__
                if not isinstance(refused, _ParseAborted):
                    raise
                self._refuse(refused.status)
            except HttpParserError as error:
                # llhttp has no code of its own for a version that it does not know
                self._refuse(505 if "HTTP version" in str(error) else 400)
            else:
                if self.in_head or self._head is not None:
                    self._limit_overhead(len(data))
                return

    def close(self) -> None:
        """Forget everything: the connection is gone."""
        self.stopped = True
        self.in_head = False
        self.events.clear()
        self._head = None
        self._known.last = None
        # The two refer to each other; the collector need not find out.
        del self._parser

    def _bypass_body(self, data: bytes, head: RequestHead, length: int) -> bytes:
        """Hand on what belongs to a body of known length, and answer what follows it.

        llhttp has nothing to find out about it, and would copy it. A new parser is put behind it.
        """
        self._bypassing = True
        rest = length - head.body_bytes_read
        self.on_body(data if len(data) <= rest else data[:rest])
        if head.body_bytes_read < length:
            return b""
        self._end_bypass(head)
        return data[rest:]

    def skip_body(self, amount: int) -> None:
        """So many bytes of a body of known length, and no more than it has, were read elsewhere."""
        head = self._head
        assert head is not None
        assert head.length is not None
        self._bypassing = True
        head.body_bytes_read += amount
        if head.body_bytes_read == head.length:
            self._end_bypass(head)

    def _end_bypass(self, head: RequestHead) -> None:
        self._bypassing = False
        self._parser = HttpRequestParser(self)
        self._end(head)

    def _refuse(self, status: int) -> None:
        self.stopped = True
        self.in_head = False
        self.events.append(ParseError(status))

    def _limit_overhead(self, amount: int) -> None:
        """Stop a head that never ends, and chunks that are nothing but frame."""
        chunked = self._head is not None and self._head.length is None
        if not (self.in_head or chunked):
            return
        if self._began_in_this_read:
            # Where it began in this read is not known; one read more does no harm.
            self._began_in_this_read = False
            return
        self._bytes_read += amount
        limits = self._limits
        if self.in_head:
            if self._bytes_read > limits.url_bytes + limits.header_bytes:
                self._refuse(431)
        elif self._bytes_read > self._allowed_bytes + 2 * limits.header_bytes:
            # twice, because trailer fields have their own limit, and should meet it first
            self._refuse(400)

    def _ignore_upgrade(self) -> None:
        """Go on as if no Upgrade had been asked for, as RFC 9110 section 7.8 allows.

        llhttp takes the request to end with its head then, whatever the framing says. A new
        parser is put where the old one would be: in front of the body.
        """
        self._parser = HttpRequestParser(self)
        head = self._head
        if head is not None:
            framing = (
                b"Transfer-Encoding: chunked"
                if head.length is None
                else b"Content-Length: %d" % head.length
            )
            self._ignoring_callbacks = True
            self._parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n")
            self._ignoring_callbacks = False

    # What llhttp calls

    def on_message_begin(self) -> None:
        """The first byte of a request was read."""
        if self._ignoring_callbacks:
            return
        self._target = b""
        self._headers = []
        self._fields_bytes = self._bytes_read = 0
        self.in_head = self._began_in_this_read = True

    def on_url(self, part: bytes) -> None:
        """A part of the target was read."""
        if self._ignoring_callbacks:
            return
        self._target += part
        if len(self._target) > self._limits.url_bytes:
            raise _ParseAborted(414)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header or trailer field was read."""
        if self._ignoring_callbacks:
            return
        self._fields_bytes += len(name) + len(value) + 4
        headers = self._headers
        if (
            self._fields_bytes > self._limits.header_bytes
            or len(headers) >= self._limits.header_count
        ):
            raise _ParseAborted(431)
        # Trailer fields are counted and dropped: nobody here may act on them.
        headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """The empty line after the header fields was read."""
        if self._ignoring_callbacks:
            return
        self.in_head = False
        head = self._make_head()
        self._headers = []
        self._fields_bytes = 0
        self.events.append(head)
        if not head.complete:
            self._head = head
            self._bytes_read = self._allowed_bytes = 0
            self._began_in_this_read = True
        elif not head.keep_alive:
            self.stopped = True

    def on_chunk_header(self) -> None:
        """The size of a chunk was read."""
        self._allowed_bytes += _CHUNK_OVERHEAD_BYTES

    def on_body(self, piece: bytes) -> None:
        """A part of the body was read."""
        head = self._head
        assert head is not None
        head.body_bytes_read += len(piece)
        self._allowed_bytes += len(piece)
        self.events.append(piece)

    def on_message_complete(self) -> None:
        """The last byte of a request was read."""
        head = self._head
        if head is not None and not self._parser.should_upgrade():
            self._end(head)

    def _end(self, head: RequestHead) -> None:
        head.complete = True
        self._head = None
        self.events.append(END_OF_BODY)
        if not head.keep_alive:
            self.stopped = True

    def _make_head(self) -> RequestHead:
        parser = self._parser
        version = parser.get_http_version()
        if version not in {"1.1", "1.0"}:
            raise _ParseAborted(505)
        fields: dict[bytes, bytes] = {}
        for name, value in self._headers:
            lower = name.lower()
            if lower in fields and lower in _SINGLETON_FIELDS:
                raise _ParseAborted(400)
            fields[lower] = value
        method = parser.get_method()
        target = self._origin_form(method, fields, version)
        modern = version == "1.1"
        head = RequestHead(
            method,
            target,
            b"HTTP/1.1" if modern else b"HTTP/1.0",
            self._headers,
            fields,
            keep_alive=modern and parser.should_keep_alive(),
        )
        if b"transfer-encoding" in fields:
            self._check_coding(fields, modern=modern)
            head.length = None
            head.complete = False
        elif b"content-length" in fields:
            digits = fields[b"content-length"]
            if _CONTENT_LENGTH.match(digits) is None:
                raise _ParseAborted(400)
            head.length = int(digits)
            head.complete = head.length == 0
        head.expects_continue = (
            modern and not head.complete and fields.get(b"expect", b"").lower() == b"100-continue"
        )
        return head

    def _check_coding(self, fields: dict[bytes, bytes], *, modern: bool) -> None:
        """Chunked and nothing else (RFC 9112 section 6.1)."""
        coding = fields[b"transfer-encoding"].lower()
        if not modern or b"content-length" in fields:
            raise _ParseAborted(400)
        if coding != b"chunked":
            # well framed, but coded in a way that we do not know
            last = coding.rpartition(b",")[2].strip()
            raise _ParseAborted(501 if last == b"chunked" else 400)

    def _origin_form(self, method: bytes, fields: dict[bytes, bytes], version: str) -> bytes:
        """Check Host and target (RFC 9112 section 3.2), and take an absolute target apart."""
        target = self._target
        host = fields.get(b"host")
        if host is None:
            if version == "1.1":
                raise _ParseAborted(400)
        elif _AUTHORITY.match(host) is None:
            raise _ParseAborted(400)
        if method == b"CONNECT" or _TARGET.match(target) is None:
            raise _ParseAborted(400)
        if target.startswith(b"/"):
            return target
        if target == b"*":
            if method != b"OPTIONS":
                raise _ParseAborted(400)
            return target
        absolute = _ABSOLUTE_FORM.match(target)
        if absolute is None or _AUTHORITY.match(absolute[1]) is None:
            raise _ParseAborted(400)
        # section 3.2.2: the target's authority replaces what Host said
        self._headers = [field for field in self._headers if field[0].lower() != b"host"]
        self._headers.append((b"Host", absolute[1]))
        fields[b"host"] = absolute[1]
        rest: bytes = absolute[2]
        return rest if rest.startswith(b"/") else b"/" + rest


_SINGLETON_FIELDS = frozenset({b"host", b"content-length", b"transfer-encoding"})
