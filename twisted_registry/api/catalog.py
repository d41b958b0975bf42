"""``/v2/_catalog``: the list of repositories, an endpoint of Docker's registry API.

A caller without access to the whole catalog gets the repositories that they may pull. The walk
jumps from one prefix that may contain such names to the next, so that a page costs what it
returns, however many other repositories exist. Where a pattern begins with a star and most names
do not match, the page ends early. The Link of such a page contains the last name that was looked
at; it is encrypted, because the caller may not be allowed to see it.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING

from twisted_registry.api.response import Response
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.names import MAX_NAME_LENGTH

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cryptography.fernet import Fernet

    from twisted_registry.api.context import RequestContext
    from twisted_registry.auth.interfaces import IRepositoryFilter
    from twisted_registry.repository.registry import Registry

#: First character of an encrypted ``last``; no repository name begins with it.
CURSOR_PREFIX = "~"
_CURSOR_PURPOSE = b"catalog cursor"

#: Page size if the client names none, as in Distribution.
_DEFAULT_PAGE_NAMES = 100
#: Maximum number of names that one request looks at.
_MAX_SCANNED_NAMES = 10_000
#: Maximum number of names in one call of ``Registry.catalog``.
_MAX_BATCH_NAMES = 1000


async def get(context: RequestContext) -> Response:
    """List ``n`` repositories after ``last``, in the order of whole names.

    :raises RegistryError: PAGINATION_NUMBER_INVALID.
    """
    number, last = context.query.number("n"), context.query.first("last") or ""
    limit = context.settings.catalog_limit
    if number is None:
        number = min(_DEFAULT_PAGE_NAMES, limit)
    if number > limit:
        raise RegistryError(
            ErrorCode.PAGINATION_NUMBER_INVALID, detail={"n": number, "most": limit}
        )
    if last.startswith(CURSOR_PREFIX):
        last = await _decrypt_last(context, last)
    visible = context.grant.visible_repositories
    next_last = None
    names: list[str] = []
    if number and visible is None:
        names, more = await context.registry.catalog(last, number)
        next_last = names[-1] if more else None
    elif number and visible is not None:
        names, next_last = await _visible_page(context, visible, last, number)
    headers = []
    if next_last is not None:
        query = [("last", next_last), ("n", str(number))]
        headers.append(context.next_page_link("_catalog", query=query))
    return Response.json({"repositories": names}, headers=headers)


def encrypt_cursor(name: str, secret: bytes) -> str:
    """Encrypt a name and its length.

    :param secret: shared by the registries over one store.
    """
    return CURSOR_PREFIX + _fernet(secret).encrypt(name.ljust(MAX_NAME_LENGTH).encode()).decode(
        "ascii"
    )


def decrypt_cursor(last: str, secret: bytes) -> str | None:
    """Return the name in a cursor; None if it was not encrypted with this secret."""
    from cryptography.fernet import InvalidToken  # noqa: PLC0415 - as in _fernet

    try:
        return _fernet(secret).decrypt(last.removeprefix(CURSOR_PREFIX).encode()).decode().rstrip()
    except InvalidToken:
        return None


def _fernet(secret: bytes) -> Fernet:
    # cryptography is heavy, and few installations restrict the catalog.
    from cryptography.fernet import Fernet  # noqa: PLC0415

    key = hmac.new(secret, _CURSOR_PURPOSE, hashlib.sha256).digest()
    return Fernet(urlsafe_b64encode(key))


async def _decrypt_last(context: RequestContext, last: str) -> str:
    name = decrypt_cursor(last, await context.registry.upload_secret.load())
    if name is None:
        raise RegistryError(
            ErrorCode.PAGINATION_NUMBER_INVALID, message="last is no position in this list"
        )
    return name


async def _visible_page(
    context: RequestContext, visible: IRepositoryFilter, last: str, number: int
) -> tuple[list[str], str | None]:
    """Return a page of visible names, and the ``last`` of the next page if there may be one."""
    found: list[str] = []
    scanned = 0
    async for name in _scan(context.registry, visible, last, number + 1):
        is_visible = visible.includes(name)
        if len(found) == number and (is_visible or scanned == _MAX_SCANNED_NAMES):
            return found, found[-1]
        if scanned == _MAX_SCANNED_NAMES:
            return found, encrypt_cursor(last, await context.registry.upload_secret.load())
        if is_visible:
            found.append(name)
        scanned += 1
        last = name
    return found, None


async def _scan(
    registry: Registry, visible: IRepositoryFilter, last: str, batch: int
) -> AsyncIterator[str]:
    """Yield the names after ``last`` that have a prefix of visible names.

    :param batch: the number of names that are probably needed.
    """
    for prefix in visible.prefixes:
        if last > prefix and not last.startswith(prefix):
            continue
        last = max(last, _key_before(prefix))
        more = True
        while more:
            names, more = await registry.catalog(last, min(batch, _MAX_BATCH_NAMES))
            batch *= 2
            for name in names:
                if not name.startswith(prefix):
                    more = False
                    break
                yield name
                last = name


def _key_before(prefix: str) -> str:
    """Return a key that sorts before all names with ``prefix``, and after all smaller names."""
    return f"{prefix[:-1]}{chr(ord(prefix[-1]) - 1)}\x7f" if prefix else ""
