"""``redirect``: clients fetch files from a web server that has the same storage."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from twisted.internet.defer import Deferred, succeed

from twisted_registry.storage.middleware.elsewhere import URLMiddleware, parse_base_url

if TYPE_CHECKING:
    from twisted_registry.storage.interfaces import IStorageDriver


class Redirect(URLMiddleware):
    """The storage path of a file, behind a base."""

    def __init__(self, driver: IStorageDriver, base: str) -> None:
        """Send clients to ``base``.

        :param base: scheme and host, perhaps with a path.
        :raises ValueError: if it is none.
        """
        super().__init__(driver)
        self._base = parse_base_url(base).geturl()

    def make_url(self, path: str, method: str, expires: int, client: str) -> Deferred[str]:  # noqa: ARG002
        """Fire with the base and the path."""
        return succeed(self._base + quote(path, safe="/"))
