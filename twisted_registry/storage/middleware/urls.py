"""A driver that is another one, but for the URLs that it gives to clients.

``redirect``: clients fetch files from a web server that has the same storage.

``rewrite``: clients reach the store by another way than the driver thinks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.components import proxyForInterface
from zope.interface import alsoProvides

from twisted_registry.storage.fallbacks import find_presigner
from twisted_registry.storage.interfaces import (
    OPTIONAL_INTERFACES,
    IPresigner,
    IStorageDriver,
    MethodUnsupported,
)

if TYPE_CHECKING:
    from urllib.parse import SplitResult

#: What a client may do without us.
_METHODS: Final = frozenset({"GET", "HEAD"})

_Proxy: Any = proxyForInterface(IStorageDriver, "driver")


class URLMiddleware(_Proxy):  # type: ignore[misc]
    """Passes everything on to :attr:`driver`, and has URLs of its own."""

    driver: IStorageDriver

    def __init__(self, driver: IStorageDriver) -> None:
        super().__init__(driver)
        #: what the driver has of URLs
        self.presigner = find_presigner(driver)
        if self.has_urls:
            alsoProvides(self, IPresigner)

    def __conform__(self, interface: Any) -> Any:
        """Return the driver's implementation of an optional interface, except for URLs."""
        if interface is IPresigner or interface not in OPTIONAL_INTERFACES:
            return None
        return interface(self.driver, None)

    @property
    def has_urls(self) -> bool:
        """Whether there are URLs at all."""
        return True

    def presign(self, path: str, method: str, expires: int, client: str = "") -> Deferred[str]:
        """Fire with a URL that lets its bearer do ``method`` on the file without us."""
        if method not in _METHODS:
            return fail(MethodUnsupported(path, f"no URL for {method}"))
        return self.make_url(path, method, expires, client)

    def make_url(self, path: str, method: str, expires: int, client: str) -> Deferred[str]:
        """Fire with the URL; the method is one of :data:`_METHODS`."""
        if self.presigner is None:
            return fail(MethodUnsupported(path, f"{self.driver.name} has no URLs"))
        return self.presigner.presign(path, method, expires, client)


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
        self._scheme = scheme
        self._host = host
        self._trim = quote(trim, safe="/%")

    @property
    def has_urls(self) -> bool:
        """Whether the driver has URLs."""
        return self.presigner is not None

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
