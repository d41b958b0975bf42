"""XML of S3 requests and responses.

The server is not fully trusted: documents with a DTD are refused, so that entities are never
expanded. The nesting depth is limited here, the size by the caller.
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
_NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"


class XMLError(Exception):
    """Raised for a document that is not well-formed or not accepted."""


@define(eq=False)
class Element:
    """An XML element, without namespace and attributes.

    :ivar name: local name.
    """

    name: str
    _children: list[Element] = field(factory=list)
    _text: list[str] = field(factory=list)

    def __iter__(self) -> Iterator[Element]:
        return iter(self._children)

    def all(self, name: str) -> Iterator[Element]:
        """Return the direct children of a name."""
        return (child for child in self._children if child.name == name)

    def text(self, *path: str) -> str:
        """Return the text of the first descendant along a path of names; empty if missing."""
        if path:
            found = next(self.all(path[0]), None)
            return "" if found is None else found.text(*path[1:])
        return "".join(self._text)

    def add_child(self, child: Element) -> None:
        """Append a child element."""
        self._children.append(child)

    def add_text(self, text: str) -> None:
        """Append text."""
        self._text.append(text)


def parse_xml(content: bytes) -> Element:
    """Parse a document and return its root element.

    :raises XMLError: if it is not well-formed, has a DTD or is nested too deeply.
    """
    top = Element("")
    open_elements = [top]

    def start(name: str, _: object) -> None:
        if len(open_elements) > _MAX_DEPTH:
            raise XMLError("nested too deeply")
        element = Element(name.rpartition(":")[2])
        open_elements[-1].add_child(element)
        open_elements.append(element)

    def add_text(text: str) -> None:
        open_elements[-1].add_text(text)

    def refuse(*_: object) -> None:
        raise XMLError("has a DTD")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: open_elements.pop()
    parser.CharacterDataHandler = add_text
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, LookupError, ValueError) as error:  # encodings raise the last two
        raise XMLError(str(error)) from error
    return next(iter(top))


def name_decoder(listing: Element) -> Callable[[str], str]:
    """Return the function that decodes the keys of a listing, which may be URL-encoded."""
    return unquote_plus if listing.text("EncodingType") == "url" else str


def delete_request_xml(keys: Iterable[str]) -> bytes:
    """Return the body of DeleteObjects in quiet mode, which reports failures only."""
    objects = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
    return _document("Delete", f"<Quiet>true</Quiet>{objects}")


def complete_request_xml(parts: Iterable[tuple[int, str]]) -> bytes:
    """Return the body of CompleteMultipartUpload for part numbers and ETags."""
    lines = "".join(
        f'<Part><PartNumber>{number}</PartNumber><ETag>"{escape(etag)}"</ETag></Part>'
        for number, etag in parts
    )
    return _document("CompleteMultipartUpload", lines)


def _document(name: str, content: str) -> bytes:
    return f'<{name} xmlns="{_NAMESPACE}">{content}</{name}>'.encode()
