"""``middleware``: what stands between the registry and its storage; only that kind is served."""

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
from twisted_registry.config.sections import Section, SectionBase, key, schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted_registry.config.document import Report
    from twisted_registry.config.storage import Storage

REDIRECT: Final = "redirect"
REWRITE: Final = "rewrite"
CLOUDFRONT: Final = "cloudfront"
#: What each needs among the options.
_NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    REDIRECT: ("baseurl",),
    REWRITE: (),
    CLOUDFRONT: ("baseurl", "privatekey", "keypairid"),
}


@schema
class Middleware(SectionBase):
    """``middleware.registry[]`` and ``.repository[]``."""

    name: str = key(text(), "Which one.", default="", required=True)
    options: Mapping[str, object] = key(
        MapOf("a section", Anything()), "Its options.", default={}, secret=True
    )
    disabled: bool = key(boolean(), "Leave it out.", default=False)


def _base(node: Node) -> str:
    """A URL that others can begin with; its scheme may be missing."""
    value = values.text(node)
    full = value if "://" in value else f"https://{value}"
    values.base_url(Node(full, full, node.origin))
    return value


def _ranges(node: Node) -> str:
    value = values.text(node)
    return value if value.startswith("file:///") else values.url(node)


@schema
class StorageOptions(SectionBase):
    """``middleware.storage[].options`` of all of them."""

    baseurl: str = key(
        Scalar("a URL with a scheme and a host, perhaps with a path", _base), "``redirect`` and"
        " ``cloudfront``: what the URLs begin with. For ``cloudfront`` it is https unless it says"
        " otherwise.", default="",
    )  # fmt: skip
    privatekey: str = key(
        text("a path"), "``cloudfront``: the file with the private key, RSA in PEM.", default="",
        secret=True,
    )  # fmt: skip
    keypairid: str = key(text(), "``cloudfront``: the id of the key pair.", default="")
    lifetime: float = key(
        duration(positive=True), "``cloudfront``: how long a URL is good.", default=20 * 60.0,
        name="duration",
    )  # fmt: skip
    ipfilteredby: str = key(
        choice("none", "aws", "awsregion", ignore_case=True), "``cloudfront``: which clients are"
        " sent to the bucket instead: those inside AWS, or inside some of its regions.",
        default="none",
    )  # fmt: skip
    awsregion: str = key(
        text("names of regions with commas between them"), "``cloudfront``: the regions of"
        " ``ipfilteredby: awsregion``.", default="",
    )  # fmt: skip
    updatefrequency: float | None = key(
        duration(positive=True), "``cloudfront``: for how long the list of AWS's addresses is"
        " good; 12h unless it says otherwise.",
    )  # fmt: skip
    updatefrenquency: float | None = key(
        duration(positive=True), "The same; how Distribution spelled it at first."
    )
    iprangesurl: str = key(
        Scalar("an http, https or file URL", _ranges), "``cloudfront``: where that list is.",
        default="https://ip-ranges.amazonaws.com/ip-ranges.json",
    )  # fmt: skip
    scheme: str = key(choice("", "http", "https"), "``rewrite``: the scheme instead.", default="")
    host: str = key(text("HOST or HOST:PORT"), "``rewrite``: the host instead.", default="")
    trimpathprefix: str = key(
        text("a path"), "``rewrite``: what the path loses at its beginning.", default=""
    )

    @property
    def regions(self) -> tuple[str, ...]:
        """The names in ``awsregion``."""
        return tuple(name for name in self.awsregion.replace(",", " ").split() if name)

    @property
    def frequency(self) -> float:
        """Seconds, under whichever name they were given."""
        return self.updatefrequency or self.updatefrenquency or 12 * 3600.0


@schema
class StorageMiddleware(SectionBase):
    """``middleware.storage[]``: each is around those before it."""

    name: str = key(
        text("redirect, rewrite or cloudfront"), "Which one: ``redirect`` sends clients to a web"
        " server that has the same storage, ``rewrite`` changes the URLs of the driver,"
        " ``cloudfront`` sends clients to Amazon's CDN.", default="", required=True,
    )  # fmt: skip
    options: StorageOptions | None = key(Section("a section", StorageOptions), "Its options.")
    disabled: bool = key(boolean(), "Leave it out.", default=False)

    @property
    def settings(self) -> StorageOptions:
        """The options, with every default."""
        return self.options or StorageOptions()


@schema
class Middlewares(SectionBase):
    """``middleware``."""

    registry: tuple[Middleware, ...] = key(
        ListOf("a list", Section("a section", Middleware)), "For the registry.", default=()
    )
    repository: tuple[Middleware, ...] = key(
        ListOf("a list", Section("a section", Middleware)), "For repositories.", default=()
    )
    storage: tuple[StorageMiddleware, ...] = key(
        ListOf("a list", Section("a section", StorageMiddleware)), "For the storage.", default=()
    )


def check_middleware(middlewares: Middlewares, storage: Storage, report: Report) -> None:
    """Report what can not be served, and options that are missing."""
    for sort in ("registry", "repository"):
        for index, entry in enumerate(getattr(middlewares, sort)):
            if not entry.disabled:
                report.fault(f"middleware.{sort}[{index}]", None, "this is not served;"
                             " remove it, or set its disabled to true")  # fmt: skip
    for index, entry in enumerate(middlewares.storage):
        if not entry.disabled:
            _check_storage(f"middleware.storage[{index}]", entry, storage, report)


def _check_storage(path: str, entry: StorageMiddleware, storage: Storage, report: Report) -> None:
    if entry.name not in _NEEDS:
        if entry.name:
            report.fault(
                f"{path}.name", f"got {quote_value(entry.name)}", "redirect, rewrite or cloudfront"
            )
        return
    settings = entry.settings
    for name in _NEEDS[entry.name]:
        if not getattr(settings, name):
            report.fault(f"{path}.options.{name}", None, f"{entry.name} needs it")
    if entry.name == REDIRECT and settings.baseurl and "://" not in settings.baseurl:
        report.fault(
            f"{path}.options.baseurl", f"got {quote_value(settings.baseurl)}", "a URL with a scheme"
        )
    if entry.name == CLOUDFRONT:
        if storage.bucket is None:
            report.fault(path, None, "cloudfront needs storage.s3")
        if settings.ipfilteredby == "awsregion" and not settings.regions:
            report.fault(f"{path}.options.awsregion", None, "ipfilteredby: awsregion needs it")
