"""``/v2/_catalog``: all repositories, an endpoint of Docker's that the specification lacks.

Whoever may not pull everything gets the names that they may pull. The walk goes from one to the
next place where such names can be, so that a page costs what it answers, however many others
there are; where a pattern begins with a star and most names do not match, it ends early, and its
Link hides the name where it did.

Where a list goes on, in a URL, for those who must not learn what stands there.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING

from twisted_registry.api.response import Response
from twisted_registry.api.tags import next_link
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.names import MAX_NAME_LENGTH

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

    from twisted_registry.api.context import RequestContext
    from twisted_registry.auth.interfaces import IRepositoryFilter
    from twisted_registry.repository.registry import Registry

#: What was hidden begins with it, and no name does.
CURSOR_PREFIX = "~"
_PURPOSE = b"catalog cursor"


def encrypt_cursor(name: str, secret: bytes) -> str:
    """Hide a name, and how long it is.

    :param secret: what only registries over the same store have.
    """
    return CURSOR_PREFIX + _fernet(secret).encrypt(name.ljust(MAX_NAME_LENGTH).encode()).decode(
        "ascii"
    )


def decrypt_cursor(last: str, secret: bytes) -> str | None:
    """The name that was hidden; None if it was not hidden with this secret."""
    from cryptography.fernet import InvalidToken  # noqa: PLC0415 - as below

    try:
        return _fernet(secret).decrypt(last.removeprefix(CURSOR_PREFIX).encode()).decode().rstrip()
    except InvalidToken:
        return None


def _fernet(secret: bytes) -> Fernet:
    from cryptography.fernet import Fernet  # noqa: PLC0415 - seldom needed, and heavy

    key = hmac.new(secret, _PURPOSE, hashlib.sha256).digest()
    return Fernet(urlsafe_b64encode(key))


#: Names on a page when a client does not say how many, as in Distribution.
_DEFAULT_PAGE_NAMES = 100
#: Names that one request looks at, at most, to find those that may be seen.
_MAX_SCANNED_NAMES = 10_000
#: Names that are asked for at once.
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
    following = None
    names: list[str] = []
    if number and visible is None:
        names, more = await context.registry.catalog(last, number)
        following = names[-1] if more else None
    elif number and visible is not None:
        names, following = await _visible_page(context, visible, last, number)
    headers = [] if following is None else [("Link", next_link(context, following, number))]
    return Response.json({"repositories": names}, headers=headers)


async def _visible_page(
    context: RequestContext, visible: IRepositoryFilter, last: str, number: int
) -> tuple[list[str], str | None]:
    """A page of what may be seen, and where the next one begins."""
    search = _VisibleNameSearch(context.registry, visible, last, number)
    await search.find_names()
    if not search.more:
        return search.found, None
    if len(search.found) == number:
        return search.found, search.found[-1]
    return search.found, encrypt_cursor(search.position, await context.registry.upload_secret())


async def _decrypt_last(context: RequestContext, last: str) -> str:
    name = decrypt_cursor(last, await context.registry.upload_secret())
    if name is None:
        raise RegistryError(
            ErrorCode.PAGINATION_NUMBER_INVALID, message="last is no place in this list"
        )
    return name


class _VisibleNameSearch:
    """Looks for ``wanted`` names that may be seen.

    :ivar position: the last name that was looked at.
    :ivar more: whether there may be more after that.
    """

    def __init__(
        self, registry: Registry, visible: IRepositoryFilter, position: str, wanted: int
    ) -> None:
        self.registry = registry
        self.visible = visible
        self.position = position
        self.wanted = wanted
        self.found: list[str] = []
        self.more = False
        self._names_left = _MAX_SCANNED_NAMES
        self._batch_names = min(self.wanted + 1, _MAX_BATCH_NAMES)

    async def find_names(self) -> None:
        """Look until they are found, or there are no more, or it takes too long."""
        for prefix in self.visible.prefixes:
            if self.position > prefix and not self.position.startswith(prefix):
                continue
            await self._scan_prefix(prefix)
            if self.more:
                return

    async def _scan_prefix(self, prefix: str) -> None:
        """Look at the names with a prefix that are after the position."""
        after = max(self.position, _key_before(prefix))
        while True:
            if not self._names_left:
                self.more = True
                return
            names, more = await self.registry.catalog(
                after, min(self._batch_names, self._names_left)
            )
            self._batch_names = min(2 * self._batch_names, _MAX_BATCH_NAMES)
            for name in names:
                if not name.startswith(prefix):
                    return
                if self.visible.includes(name):
                    if len(self.found) == self.wanted:
                        self.more = True
                        return
                    self.found.append(name)
                self.position = after = name
            self._names_left -= len(names)
            if not more:
                return


def _key_before(prefix: str) -> str:
    """A text before all that begin with a prefix, and after all others that come before them."""
    return f"{prefix[:-1]}{chr(ord(prefix[-1]) - 1)}\x7f" if prefix else ""
