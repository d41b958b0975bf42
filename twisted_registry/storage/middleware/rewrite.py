"""``rewrite``: clients reach the store by another way than the driver thinks."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from twisted_registry.storage.middleware.elsewhere import URLMiddleware

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from twisted_registry.storage.interfaces import IStorageDriver


class Rewrite(URLMiddleware):
    """The URL of the driver, with other parts."""

    def __init__(
        self, driver: IStorageDriver, scheme: str = "", host: str = "", trim: str = ""
    ) -> None:
        """Change what is not empty.

        :param scheme: instead of the URL's own.
        :param host: instead of the URL's own; perhaps with a port.
        :param trim: what the path loses if it begins with that.
        """
        super().__init__(driver)
        self.presigns = driver.presigns
        self._scheme = scheme
        self._host = host
        self._trim = quote(trim, safe="/%")

    def make_url(self, path: str, method: str, expires: int, client: str) -> Deferred[str]:
        """Fire with the URL of the driver, changed."""
        return super().make_url(path, method, expires, client).addCallback(self._changed)

    def _changed(self, url: str) -> str:
        parts = urlsplit(url)
        rest = parts.path.removeprefix(self._trim)
        return parts._replace(
            scheme=self._scheme or parts.scheme,
            netloc=self._host or parts.netloc,
            path=f"/{rest.removeprefix('/')}" if self._trim else rest,
        ).geturl()
