"""``/v2/<name>/tags/list``: end-8."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from twisted_registry.api.answers import JSON, Answer
from twisted_registry.errors import ErrorCode, RegistryError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from twisted_registry.api.exchange import Exchange
    from twisted_registry.repository.registry import Repository

#: A longer list is sent in pieces.
_AT_ONCE = 5000


async def get(exchange: Exchange) -> Answer:
    """List tags: all of them, or a page of ``n`` after ``last``.

    :raises RegistryError: NAME_UNKNOWN, PAGINATION_NUMBER_INVALID.
    """
    number, last = exchange.query.number("n"), exchange.query.first("last") or ""
    if number is None:
        return await _all(exchange, last)
    limit = min(number, exchange.settings.tags_limit)
    # Asking for nothing gets nothing, and no link to more of it.
    names, more = await exchange.repository.tags.page(last, limit) if limit else ([], False)
    await _insist(exchange, names)
    headers = [("Link", next_page(exchange, names[-1], number))] if more else []
    return Answer.json({"name": exchange.name, "tags": names}, headers=headers)


def next_page(exchange: Exchange, last: str, number: int) -> str:
    """The Link header of a page (RFC 8288): where the list goes on."""
    path = [*exchange.name.split("/"), "tags", "list"] if exchange.name else ["_catalog"]
    url = exchange.url(*path, query=[("last", last), ("n", str(number))])
    return f'<{url}>; rel="next"'


async def _insist(exchange: Exchange, tags: Sequence[str]) -> None:
    """Raise NAME_UNKNOWN if there is no such repository: what has a tag is one."""
    if not tags and not await exchange.repository.exists():
        raise RegistryError(ErrorCode.NAME_UNKNOWN, detail={"name": exchange.name})


async def _all(exchange: Exchange, last: str) -> Answer:
    repository = exchange.repository
    names, more = await repository.tags.page(last, _AT_ONCE)
    if not more:
        await _insist(exchange, names)
        return Answer.json({"name": exchange.name, "tags": names})
    return Answer(200, [("Content-Type", JSON)], _pieces(repository, names))


async def _pieces(repository: Repository, names: list[str]) -> AsyncIterator[bytes]:
    """The document in pieces, so that no list is too long to be held."""
    yield b'{"name":' + json.dumps(repository.name).encode() + b',"tags":[' + _inside(names)
    async for more in repository.tags.pages(names[-1]):
        yield b"," + _inside(more)
    yield b"]}"


def _inside(names: list[str]) -> bytes:
    return json.dumps(names, separators=(",", ":"))[1:-1].encode()
