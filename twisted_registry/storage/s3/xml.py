"""The XML of answers and of requests.

Documents come from a server that we only half trust: those with a DTD are refused, so that no
entity is ever expanded, and depth and (by the caller) size are bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_plus
from xml.parsers import expat
from xml.sax.saxutils import escape

from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_MAX_DEPTH: Final = 16


class XMLError(Exception):
    """A document that is no XML, or XML that is not wanted."""


@define(eq=False)
class Element:
    """An element, without its namespace and attributes.

    :ivar name: its name.
    """

    name: str
    _children: list[Element] = field(factory=list)
    _text: list[str] = field(factory=list)

    def __iter__(self) -> Iterator[Element]:
        return iter(self._children)

    def all(self, name: str) -> Iterator[Element]:
        """The elements of a name directly in this one."""
        return (child for child in self._children if child.name == name)

    def text(self, *path: str) -> str:
        """The text of the first element along a path of names; empty if there is none."""
        if path:
            found = next(self.all(path[0]), None)
            return "" if found is None else found.text(*path[1:])
        return "".join(self._text)

    def add(self, child: Element) -> None:
        """Put an element at the end."""
        self._children.append(child)

    def write(self, text: str) -> None:
        """Put text at the end."""
        self._text.append(text)


def parse_xml(content: bytes) -> Element:
    """Answer the root of a document.

    :raises XMLError: if it has none, or one with a DTD, or is nested too deeply.
    """
    top = Element("")
    open_elements = [top]

    def start(name: str, _: object) -> None:
        if len(open_elements) > _MAX_DEPTH:
            raise XMLError("nested too deeply")
        element = Element(name.rpartition(":")[2])
        open_elements[-1].add(element)
        open_elements.append(element)

    def write(text: str) -> None:
        open_elements[-1].write(text)

    def refuse(*_: object) -> None:
        raise XMLError("has a DTD")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: open_elements.pop()
    parser.CharacterDataHandler = write
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, LookupError, ValueError) as error:  # encodings raise the latter
        raise XMLError(str(error)) from error
    return next(iter(top))


def name_decoder(listing: Element) -> Callable[[str], str]:
    """Answer what makes keys of the names in a listing, which may or may not be URL-encoded."""
    return unquote_plus if listing.text("EncodingType") == "url" else str


def delete_request_xml(keys: Iterable[str]) -> bytes:
    """The body of DeleteObjects; only failures are to be answered."""
    objects = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
    return _document("Delete", f"<Quiet>true</Quiet>{objects}")


def complete_request_xml(parts: Iterable[tuple[int, str]]) -> bytes:
    """The body of CompleteMultipartUpload, from numbers and ETags."""
    lines = "".join(
        f'<Part><PartNumber>{number}</PartNumber><ETag>"{escape(etag)}"</ETag></Part>'
        for number, etag in parts
    )
    return _document("CompleteMultipartUpload", lines)


def _document(name: str, content: str) -> bytes:
    namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
    return f'<{name} xmlns="{namespace}">{content}</{name}>'.encode()
