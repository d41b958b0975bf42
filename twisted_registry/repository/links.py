"""Link files: a digest as text, whose path says what it means.

CNCF Distribution overwrites them in place, so that its crashes leave empty ones. An empty link
counts as missing, and is repaired by the next push. So does a damaged one, which has other content
than a digest, for clients that push; for pulls it is an error, because the content may exist.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

from twisted_registry.oci.digest import Digest, DigestInvalid
from twisted_registry.repository import layout
from twisted_registry.storage.interfaces import PathNotFound, Put, StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_registry.storage.interfaces import IBulkLookup, IStorageDriver

log = Logger()

#: Reads of a link without a valid digest: the transfer may be at fault, and not the stored bytes.
_MAX_READS = 2


class LinkDamaged(StorageError):
    """A link has content, but not the digest that it should have."""


async def read_link(driver: IStorageDriver, path: str, *, strict: bool = False) -> Digest | None:
    """Return the digest in a link, or None if there is no valid link.

    :param strict: whether a damaged link is an error.
    :raises LinkDamaged: if ``strict``, for a link with content but without a digest.
    """
    digest, content = None, b""
    try:
        for _ in range(_MAX_READS):
            content = await driver.get(path, layout.MAX_LINK_BYTES)
            digest = parse_link(content)
            if digest is not None:
                break
    except PathNotFound:
        return None
    if digest is None:
        if strict and content.strip():
            raise LinkDamaged(path, "has no valid digest; push the same content again to repair it")
        log.warn(
            "link {path} has no valid digest and counts as missing; push the same content again to "
            "repair it",
            path=path,
        )
    return digest


def parse_link(content: bytes) -> Digest | None:
    """Return the digest in the content of a link, or None if it is not valid."""
    try:
        return Digest.parse(content.decode("ascii").strip())
    except (UnicodeDecodeError, DigestInvalid):
        return None


async def match_links(bulk: IBulkLookup, digest: Digest, paths: Sequence[str]) -> list[bool]:
    """Return for each path whether it is a link to ``digest``."""
    contents = await bulk.get_many(paths, layout.MAX_LINK_BYTES)
    wanted = str(digest)
    return [
        content is not None and content.decode("ascii", "replace").strip() == wanted
        for content in contents
    ]


def put_link(path: str, digest: Digest) -> Put:
    """Return the change that stores a link."""
    return Put(path, str(digest).encode("ascii"))


async def write_link(driver: IStorageDriver, path: str, digest: Digest) -> None:
    """Store a link durably."""
    await driver.put(path, put_link(path, digest).content)
