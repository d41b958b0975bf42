"""The ``middleware`` section. Only storage middleware is served: redirect, rewrite, cloudfront."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted_registry.config import values
from twisted_registry.config.document import Node, quote_value
from twisted_registry.config.kinds import (
    Anything,
    ListOf,
    MapOf,
    Scalar,
    boolean,
    choice,
    duration,
    text,
)
from twisted_registry.config.sections import Section, SectionBase, key, section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted_registry.config.document import Report
    from twisted_registry.config.storage import Storage

REDIRECT: Final = "redirect"
REWRITE: Final = "rewrite"
CLOUDFRONT: Final = "cloudfront"
_REQUIRED_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    REDIRECT: ("baseurl",),
    REWRITE: (),
    CLOUDFRONT: ("baseurl", "privatekey", "keypairid"),
}


def _base_url(node: Node) -> str:
    """Check a URL to which a path can be appended; its scheme may be missing."""
    value = values.text(node)
    full = value if "://" in value else f"https://{value}"
    values.base_url(Node(full, full, node.origin))
    return value


def _ip_ranges_url(node: Node) -> str:
    value = values.text(node)
    return value if value.startswith("file:///") else values.url(node)


class Middleware(SectionBase):
    """``middleware.registry[]`` and ``middleware.repository[]``."""

    name: str = key(text(), "The name of the middleware.", required=True)
    options: Mapping[str, object] = key(MapOf("a section", Anything()), "Its options.", secret=True)
    disabled: bool = key(boolean(), "Ignore this entry.")


class StorageOptions(SectionBase):
    """``middleware.storage[].options``."""

    baseurl: str = key(
        Scalar("a URL with scheme and host, optionally with a path", _base_url),
        "``redirect`` and ``cloudfront``: the beginning of URLs. For ``cloudfront`` the scheme may"
        " be missing; it is https then.",
    )
    privatekey: str = key(
        text("a path"), "``cloudfront``: the file of the private key (RSA, PEM).", secret=True
    )
    keypairid: str = key(text(), "``cloudfront``: the ID of the key pair.")
    lifetime: float = key(
        duration(positive=True),
        "``cloudfront``: how long a URL is valid.",
        default=20 * 60.0,
        name="duration",
    )
    ipfilteredby: str = key(
        choice("none", "aws", "awsregion", change_case=str.lower),
        "``cloudfront``: which clients are redirected to the bucket instead: none, those within"
        " AWS, or those within some of its regions.",
        default="none",
    )
    awsregion: str = key(
        text("names of regions separated by commas"),
        "``cloudfront``: the regions of ``ipfilteredby: awsregion``.",
    )
    updatefrequency: float | None = key(
        duration(positive=True),
        "``cloudfront``: the time between two updates of the list of AWS addresses; 12h if not"
        " set.",
        default=None,
    )
    updatefrenquency: float | None = key(
        duration(positive=True),
        "The first spelling of ``updatefrequency`` in Distribution.",
        default=None,
    )
    iprangesurl: str = key(
        Scalar("an http, https or file URL", _ip_ranges_url),
        "``cloudfront``: the URL of the list of AWS addresses.",
        default="https://ip-ranges.amazonaws.com/ip-ranges.json",
    )
    scheme: str = key(
        choice("", "http", "https"), "``rewrite``: replaces the scheme. Empty: unchanged."
    )
    host: str = key(text("HOST or HOST:PORT"), "``rewrite``: replaces the host. Empty: unchanged.")
    trimpathprefix: str = key(
        text("a path"), "``rewrite``: removed from the beginning of the path."
    )

    @property
    def regions(self) -> tuple[str, ...]:
        """The names in ``awsregion``."""
        return tuple(name for name in self.awsregion.replace(",", " ").split() if name)

    @property
    def frequency(self) -> float:
        """The update frequency in seconds, under either of its names."""
        return self.updatefrequency or self.updatefrenquency or 12 * 3600.0


class StorageMiddleware(SectionBase):
    """``middleware.storage[]``: each entry wraps those before it."""

    name: str = key(
        text("redirect, rewrite or cloudfront"),
        "The name of the middleware: ``redirect`` redirects clients to a web server with the same"
        " content, ``rewrite`` changes the URLs of the driver, ``cloudfront`` redirects clients to"
        " Amazon CloudFront.",
        required=True,
    )
    options: StorageOptions = section(StorageOptions, "Its options.")
    disabled: bool = key(boolean(), "Ignore this entry.")


class Middlewares(SectionBase):
    """``middleware``."""

    registry: tuple[Middleware, ...] = key(
        ListOf("a list of middleware", Section(Middleware)),
        "Registry middleware. Not served: rejected unless ``disabled``.",
    )
    repository: tuple[Middleware, ...] = key(
        ListOf("a list of middleware", Section(Middleware)),
        "Repository middleware. Not served: rejected unless ``disabled``.",
    )
    storage: tuple[StorageMiddleware, ...] = key(
        ListOf("a list of middleware", Section(StorageMiddleware)),
        "Storage middleware: changes the URLs of redirects.",
    )


def check_middleware(middlewares: Middlewares, storage: Storage, report: Report) -> None:
    """Report middleware that is not served, and missing options."""
    for kind in ("registry", "repository"):
        for index, entry in enumerate(getattr(middlewares, kind)):
            if not entry.disabled:
                report.add_fault(
                    f"middleware.{kind}[{index}]",
                    None,
                    f"{kind} middleware is not served; remove it, or set its disabled to true",
                )
    for index, entry in enumerate(middlewares.storage):
        if not entry.disabled:
            _check_storage(f"middleware.storage[{index}]", entry, storage, report)


def _check_storage(path: str, entry: StorageMiddleware, storage: Storage, report: Report) -> None:
    if entry.name not in _REQUIRED_OPTIONS:
        if entry.name:
            report.add_fault(
                f"{path}.name", f"got {quote_value(entry.name)}", "redirect, rewrite or cloudfront"
            )
        return
    settings = entry.options
    for name in _REQUIRED_OPTIONS[entry.name]:
        if not getattr(settings, name):
            report.add_fault(
                f"{path}.options.{name}", None, f"this key is required by {entry.name}"
            )
    if entry.name == REDIRECT and settings.baseurl and "://" not in settings.baseurl:
        report.add_fault(
            f"{path}.options.baseurl", f"got {quote_value(settings.baseurl)}", "a URL with a scheme"
        )
    if entry.name == CLOUDFRONT:
        if storage.bucket is None:
            report.add_fault(path, None, "cloudfront requires storage.s3")
        if settings.ipfilteredby == "awsregion" and not settings.regions:
            report.add_fault(
                f"{path}.options.awsregion", None, "this key is required by ipfilteredby: awsregion"
            )
