"""``/v2/_catalog``: all repositories, an endpoint of Docker's that the specification lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_registry.api.answers import Answer
from twisted_registry.api.tags import next_page
from twisted_registry.errors import ErrorCode, RegistryError

if TYPE_CHECKING:
    from twisted_registry.api.exchange import Exchange

#: Names on a page when a client does not say how many, as in Distribution.
_DEFAULT = 100


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
    names, more = await exchange.registry.catalog(last, number) if number else ([], False)
    headers = [("Link", next_page(exchange, names[-1], number))] if more else []
    return Answer.json({"repositories": names}, headers=headers)
