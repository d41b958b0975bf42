"""Drivers that wrap a driver and replace the URLs that it gives to clients.

``redirect``: clients fetch files from a web server over the same storage.

``rewrite``: clients reach the store at another address than the driver.
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

#: Methods that URLs may permit.
_METHODS: Final = frozenset({"GET", "HEAD"})

_Proxy: Any = proxyForInterface(IStorageDriver, "driver")


class URLMiddleware(_Proxy):  # type: ignore[misc]
    """Base class: passes all calls to :attr:`driver`, except those for URLs."""

    driver: IStorageDriver

    def __init__(self, driver: IStorageDriver) -> None:
        super().__init__(driver)
        #: the driver's URLs; None if it has none
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
        """Whether this driver returns URLs."""
        return True

    def presign(self, path: str, method: str, expires: int, client: str = "") -> Deferred[str]:
        """Fire with a URL that permits ``method`` on the file."""
        if method not in _METHODS:
            return fail(MethodUnsupported(path, f"there is no URL for {method}"))
        return self.make_url(path, method, expires, client)

    def make_url(self, path: str, method: str, expires: int, client: str) -> Deferred[str]:
        """Fire with the URL. ``method`` is GET or HEAD."""
        if self.presigner is None:
            return fail(MethodUnsupported(path, f"{self.driver.name} has no URLs"))
        return self.presigner.presign(path, method, expires, client)


def parse_base_url(url: str, *, scheme: str = "") -> SplitResult:
    """Parse a URL that is the beginning of others.

    :param scheme: default scheme; empty if the URL must have one.
    :returns: its parts; the path ends with a slash.
    :raises ValueError: if it has no scheme or host, or has a query or fragment.
    """
    parts = urlsplit(url if "://" in url or not scheme else f"{scheme}://{url}")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{url!r} is not an http or https URL with a host")
    if parts.query or parts.fragment:
        raise ValueError(f"{url!r} has a query or a fragment")
    return parts._replace(path=f"{parts.path.rstrip('/')}/")


class Redirect(URLMiddleware):
    """Returns URLs of a base and the path of the file."""

    def __init__(self, driver: IStorageDriver, base: str) -> None:
        """Redirect clients to ``base``.

        :param base: URL with scheme and host, optionally with a path.
        :raises ValueError: if it is invalid.
        """
        super().__init__(driver)
        self._base = parse_base_url(base).geturl()

    def make_url(self, path: str, method: str, expires: int, client: str) -> Deferred[str]:  # noqa: ARG002
        """Fire with the base followed by the path."""
        return succeed(self._base + quote(path, safe="/"))


class Rewrite(URLMiddleware):
    """Returns URLs of the driver with some parts replaced."""

    def __init__(
        self, driver: IStorageDriver, scheme: str = "", host: str = "", trim: str = ""
    ) -> None:
        """Replace the parts that are not empty.

        :param scheme: new scheme.
        :param host: new host, optionally with a port.
        :param trim: prefix to remove from the path.
        """
        super().__init__(driver)
        self._scheme = scheme
        self._host = host
        self._trim = quote(trim, safe="/%")

    @property
    def has_urls(self) -> bool:
        """Whether the driver returns URLs."""
        return self.presigner is not None

    def make_url(self, path: str, method: str, expires: int, client: str) -> Deferred[str]:
        """Fire with the changed URL of the driver."""
        return super().make_url(path, method, expires, client).addCallback(self._rewrite)

    def _rewrite(self, url: str) -> str:
        parts = urlsplit(url)
        rest = parts.path.removeprefix(self._trim)
        return parts._replace(
            scheme=self._scheme or parts.scheme,
            netloc=self._host or parts.netloc,
            path=f"/{rest.removeprefix('/')}" if self._trim else rest,
        ).geturl()
