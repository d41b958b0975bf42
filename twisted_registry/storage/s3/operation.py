"""One operation of the S3 API, as a request that is not signed yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted_registry.storage.s3.interfaces import Content


@frozen
class Operation:
    """A request.

    :ivar name: what the API calls it, such as ``PutObject``.
    :ivar key: of the object; empty for the bucket itself.
    :ivar parameters: of the query, not encoded.
    :ivar headers: with lower-case names; all are signed.
    :ivar content: the body.
    :ivar sha256: of the content in hexadecimal; empty if it is not known, and then the content
        is signed only if it is small.
    :ivar slow: whether the store may work for minutes before it answers.
    """

    name: str
    method: str
    key: str = ""
    parameters: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(factory=dict)
    content: Content = field(default=b"", repr=False)
    sha256: str = ""
    slow: bool = False
