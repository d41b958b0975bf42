"""Link files: a digest as text, under a name that says what it means.

Distribution writes them in place, so that a crash of its leaves empty ones. An empty or
malformed link counts as not there, is reported, and is healed by the next push.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

from twisted_registry.oci.digest import Digest, DigestInvalid
from twisted_registry.repository import layout
from twisted_registry.storage.interfaces import PathNotFound, Put

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_registry.storage.interfaces import IBulkLookup, IStorageDriver

log = Logger()

#: How often one is read that holds no digest: the way may be bad, and not the store.
_READ_ATTEMPTS = 2


async def read_link(driver: IStorageDriver, path: str) -> Digest | None:
    """The digest that a link holds, or None if there is no sound link."""
    digest = None
    try:
        for _ in range(_READ_ATTEMPTS):
            digest = parse_link(await driver.get(path, layout.MAX_LINK_BYTES))
            if digest is not None:
                break
    except PathNotFound:
        return None
    if digest is None:
        log.warn(
            "the link {path} holds no digest and counts as missing; a push of the same content "
            "repairs it",
            path=path,
        )
    return digest


def parse_link(content: bytes) -> Digest | None:
    """The digest that the bytes of a link are, or None."""
    try:
        return Digest.parse(content.decode("ascii").strip())
    except (UnicodeDecodeError, DigestInvalid):
        return None


async def match_links(bulk: IBulkLookup, digest: Digest, paths: Sequence[str]) -> list[bool]:
    """Which of some links hold a digest; what is not there, or no sound link, holds none."""
    contents = await bulk.get_many(paths, layout.MAX_LINK_BYTES)
    wanted = str(digest)
    return [
        content is not None and content.decode("ascii", "replace").strip() == wanted
        for content in contents
    ]


def put_link(path: str, digest: Digest) -> Put:
    """The change that stores a link."""
    return Put(path, str(digest).encode("ascii"))


async def write_link(driver: IStorageDriver, path: str, digest: Digest) -> None:
    """Store a link, durably."""
    await driver.put(path, put_link(path, digest).content)
