"""A driver that is another one, but for the URLs that it gives to clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from twisted.internet.defer import fail
from twisted.python.components import proxyForInterface

from twisted_registry.storage.interfaces import IStorageDriver, MethodUnsupported

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from twisted.internet.defer import Deferred

#: What a client may do without us.
_METHODS: Final = frozenset({"GET", "HEAD"})

_Proxy: Any = proxyForInterface(IStorageDriver, "driver")


class URLMiddleware(_Proxy):  # type: ignore[misc]
    """Passes everything on to :attr:`driver`, and has URLs of its own."""

    driver: IStorageDriver
    presigns = True

    def presign(self, path: str, method: str, expires: int, client: str = "") -> Deferred[str]:
        """Fire with a URL that lets its bearer do ``method`` on the file without us."""
        if method not in _METHODS:
            return fail(MethodUnsupported(path, f"no URL for {method}"))
        return self.make_url(path, method, expires, client)

    def make_url(self, path: str, method: str, expires: int, client: str) -> Deferred[str]:
        """Fire with the URL; the method is one of :data:`_METHODS`."""
        return self.driver.presign(path, method, expires, client)


def parse_base_url(url: str, *, scheme: str = "") -> SplitResult:
    """Take the URL apart that others are to begin with.

    :param scheme: that is meant if the URL has none.
    :returns: its parts; the path ends with a slash.
    :raises ValueError: if it has no scheme or host, or a query or fragment.
    """
    parts = urlsplit(url if "://" in url or not scheme else f"{scheme}://{url}")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{url!r} is no URL with a scheme and a host")
    if parts.query or parts.fragment:
        raise ValueError(f"{url!r} has more than a scheme, a host and a path")
    return parts._replace(path=f"{parts.path.rstrip('/')}/")
