"""``/v2/_catalog``: all repositories, an endpoint of Docker's that the specification lacks.

Whoever may not pull everything gets the names that they may pull. The walk goes from one to the
next place where such names can be, so that a page costs what it answers, however many others
there are; where a pattern begins with a star and most names do not match, it ends early, and its
Link hides the name where it did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_registry.api import cursor
from twisted_registry.api.answers import Answer
from twisted_registry.api.tags import next_page
from twisted_registry.errors import ErrorCode, RegistryError

if TYPE_CHECKING:
    from twisted_registry.api.exchange import Exchange
    from twisted_registry.auth.interfaces import IVisible
    from twisted_registry.repository.registry import Registry

#: Names on a page when a client does not say how many, as in Distribution.
_DEFAULT = 100
#: Names that one request looks at, at most, to find those that may be seen.
_LOOKED_AT = 10_000
#: Names that are asked for at once.
_AT_ONCE = 1000


async def get(exchange: Exchange) -> Answer:
    """List ``n`` repositories after ``last``, in the order of whole names.

    :raises RegistryError: PAGINATION_NUMBER_INVALID.
    """
    number, last = exchange.query.number("n"), exchange.query.first("last") or ""
    limit = exchange.settings.catalog_limit
    if number is None:
        number = min(_DEFAULT, limit)
    if number > limit:
        raise RegistryError(
            ErrorCode.PAGINATION_NUMBER_INVALID, detail={"n": number, "most": limit}
        )
    if last.startswith(cursor.MARK):
        last = await _unsealed(exchange, last)
    visible = exchange.grant.visible
    following = None
    names: list[str] = []
    if number and visible is None:
        names, more = await exchange.registry.catalog(last, number)
        following = names[-1] if more else None
    elif number and visible is not None:
        names, following = await _seen(exchange, visible, last, number)
    headers = [] if following is None else [("Link", next_page(exchange, following, number))]
    return Answer.json({"repositories": names}, headers=headers)


async def _seen(
    exchange: Exchange, visible: IVisible, last: str, number: int
) -> tuple[list[str], str | None]:
    """A page of what may be seen, and where the next one begins."""
    search = _Search(exchange.registry, visible, last, number)
    await search.run()
    if not search.more:
        return search.found, None
    if len(search.found) == number:
        return search.found, search.found[-1]
    return search.found, cursor.seal(search.position, await exchange.registry.upload_secret())


async def _unsealed(exchange: Exchange, last: str) -> str:
    name = cursor.unseal(last, await exchange.registry.upload_secret())
    if name is None:
        raise RegistryError(
            ErrorCode.PAGINATION_NUMBER_INVALID, message="last is no place in this list"
        )
    return name


class _Search:
    """Looks for ``wanted`` names that may be seen.

    :ivar position: the last name that was looked at.
    :ivar more: whether there may be more after that.
    """

    def __init__(self, registry: Registry, visible: IVisible, position: str, wanted: int) -> None:
        self.registry = registry
        self.visible = visible
        self.position = position
        self.wanted = wanted
        self.found: list[str] = []
        self.more = False
        self._left = _LOOKED_AT
        self._size = min(self.wanted + 1, _AT_ONCE)

    async def run(self) -> None:
        """Look until they are found, or there are no more, or it takes too long."""
        for prefix in self.visible.prefixes:
            if self.position > prefix and not self.position.startswith(prefix):
                continue
            await self._below(prefix)
            if self.more:
                return

    async def _below(self, prefix: str) -> None:
        """Look at the names with a prefix that are after the position."""
        after = max(self.position, _before(prefix))
        while True:
            if not self._left:
                self.more = True
                return
            names, more = await self.registry.catalog(after, min(self._size, self._left))
            self._size = min(2 * self._size, _AT_ONCE)
            for name in names:
                if not name.startswith(prefix):
                    return
                if self.visible.shows(name):
                    if len(self.found) == self.wanted:
                        self.more = True
                        return
                    self.found.append(name)
                self.position = after = name
            self._left -= len(names)
            if not more:
                return


def _before(prefix: str) -> str:
    """A text before all that begin with a prefix, and after all others that come before them."""
    return f"{prefix[:-1]}{chr(ord(prefix[-1]) - 1)}\x7f" if prefix else ""
