"""The schema of the whole file: ``version`` and the sections.

Small sections are declared here: ``validation``, ``policy``, ``catalog`` and ``tags``. The
others have a module of their own in this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted_registry.config import values
from twisted_registry.config.access import AccessRules, Auth, Quota, Tokens, effective_tokens
from twisted_registry.config.health import Health
from twisted_registry.config.http import Http
from twisted_registry.config.kinds import (
    Anything,
    ListOf,
    Scalar,
    boolean,
    choice,
    text,
)
from twisted_registry.config.log import LEVELS, Log
from twisted_registry.config.middleware import Middlewares
from twisted_registry.config.notifications import Notifications
from twisted_registry.config.plugins import Plugin
from twisted_registry.config.sections import Section, SectionBase, key, section
from twisted_registry.config.storage import Redis, Storage
from twisted_registry.config.unserved import Proxy

if TYPE_CHECKING:
    from twisted_registry.config.document import Node
    from twisted_registry.oci.linear_regex import LinearRegex

#: The version of the file format.
VERSION: Final = "0.1"
DEFAULT_PAGE_SIZE: Final = 1000


def _catalog_page_size(node: Node) -> int:
    entries = values.integer(node)
    return entries if entries > 0 else DEFAULT_PAGE_SIZE


def _tags_page_size(node: Node) -> int:
    return values.bounded(values.integer, 0)(node) or DEFAULT_PAGE_SIZE


def _regex_list() -> ListOf:
    return ListOf(
        "a list of regular expressions",
        Scalar("a regular expression in the syntax of Go (RE2)", values.regex),
    )


class Urls(SectionBase):
    """``validation.manifests.urls``."""

    allow: tuple[LinearRegex, ...] = key(
        _regex_list(),
        "Each URL of a layer must match one of these; a match anywhere in the URL is enough.",
    )
    deny: tuple[LinearRegex, ...] = key(_regex_list(), "No URL of a layer may match one of these.")


class Platform(SectionBase):
    """``validation.manifests.indexes.platformlist[]``."""

    architecture: str = key(text(), "The architecture, such as amd64.")
    os: str = key(text(), "The operating system, such as linux.")


class Indexes(SectionBase):
    """``validation.manifests.indexes``."""

    platforms: str = key(
        choice("all", "none", "list", change_case=str.lower),
        "Which manifests of an index must exist when it is pushed.",
        default="all",
    )
    platformlist: tuple[Platform, ...] = key(
        ListOf("a list of platforms", Section(Platform)), "The platforms if ``platforms`` is list."
    )


class Manifests(SectionBase):
    """``validation.manifests``."""

    urls: Urls = section(
        Urls, "URLs of layers in manifests. Without this section every URL is accepted."
    )
    indexes: Indexes = section(Indexes, "References of indexes.")


class Validation(SectionBase):
    """``validation``."""

    disabled: bool = key(boolean(), "Do not validate pushed manifests.")
    enabled: bool | None = key(boolean(), "Replaced by ``disabled``; has no effect.", default=None)
    manifests: Manifests = section(Manifests, "Pushed manifests.")


class RepositoryPolicy(SectionBase):
    """``policy.repository``."""

    classes: tuple[str, ...] = key(
        ListOf("a list of classes", choice("image", "plugin")),
        "The kinds of content that may be pushed, by the media type of a manifest's config. Empty:"
        " any.",
    )


class Policy(SectionBase):
    """``policy``."""

    repository: RepositoryPolicy = section(RepositoryPolicy, "The policy of repositories.")


class Catalog(SectionBase):
    """``catalog``."""

    maxentries: int = key(
        Scalar("an integer", _catalog_page_size),
        "The largest page of ``_catalog``; 0 or less is 1000.",
        default=DEFAULT_PAGE_SIZE,
    )


class Tags(SectionBase):
    """``tags``."""

    maxtags: int = key(
        Scalar("an integer, 0 or more", _tags_page_size),
        "The largest page of a tag list; 0 is 1000.",
        default=DEFAULT_PAGE_SIZE,
    )


class Configuration(SectionBase):
    """The whole configuration."""

    version: str = key(text(VERSION), "The version of the format: 0.1.")
    log: Log = section(Log, "Logging.")
    loglevel: str | None = key(
        choice(*LEVELS, change_case=str.lower), "The old name of ``log.level``.", default=None
    )
    storage: Storage = section(
        Storage,
        "Where content is stored: exactly one driver, and options for all of them.",
        allows_bare_name=True,
    )
    auth: Auth = section(
        Auth,
        "Authentication. ``auth: none`` is short for that one key.",
        allows_bare_name=True,
        strict=True,
    )
    access: AccessRules | None = key(
        Section(AccessRules, strict=True, allows_empty=True),
        "Access rules. With this section, everything that it does not allow is denied. Without it,"
        " every authenticated user may do everything, and a token allows what its scope says.",
        extension=True,
    )
    http: Http = section(Http, "The HTTP server.")
    validation: Validation = section(Validation, "Validation of pushed manifests.")
    policy: Policy = section(Policy, "The kinds of content that may be pushed.")
    catalog: Catalog = section(Catalog, "The list of repositories.")
    tags: Tags = section(Tags, "Lists of tags.")
    notifications: Notifications = section(
        Notifications, "Events of pushes, pulls, mounts and deletes, sent to other programs."
    )
    listeners: tuple[Plugin, ...] = key(
        ListOf("a list of listeners", Section(Plugin, strict=True)),
        "Listeners of other packages, which receive an event for each push, pull, mount and delete;"
        " named by their entry points in the group ``twisted_registry.listeners``.",
        extension=True,
    )
    redis: Redis | None = key(
        Section(Redis),
        "The Redis server of ``storage.cache.blobdescriptor: redis``. The registry uses the"
        " address, ``username``, ``password``, ``db``, ``poolsize``, ``dialtimeout``,"
        " ``readtimeout`` and ``tls``; the other keys have no effect. Needs the"
        " extra ``redis``.",
    )
    health: Health = section(
        Health,
        "Checks of what the registry needs. While one of them fails, every request is answered 503"
        " ``UNAVAILABLE``. The first process checks for all.",
    )
    proxy: Proxy = section(
        Proxy, "A pull-through cache. Not served yet: rejected if ``remoteurl`` is set."
    )
    database: object = key(
        Anything(),
        "The database of GitLab's registry. Not served: rejected unless ``enabled`` is false.",
        secret=True,
    )
    middleware: Middlewares = section(Middlewares, "Middleware. Only storage middleware is served.")
    reporting: object = key(
        Anything(), "Removed from Distribution. Accepted; has no effect.", secret=True
    )
    compatibility: object = key(
        Anything(), "Removed from Distribution. Accepted; has no effect.", secret=True
    )

    @property
    def controls_access(self) -> bool:
        """Whether clients have to authenticate, or may be denied anything."""
        has_rules = self.access is not None and not self.access.has_only_quotas
        return self.auth.is_enabled or has_rules or bool(self.http.tls.clientusers)

    @property
    def quotas(self) -> tuple[Quota, ...]:
        """The quotas of ``access.quotas``."""
        return () if self.access is None else self.access.quotas

    @property
    def tokens(self) -> Tokens | None:
        """The settings of the token server; None if this registry issues no tokens."""
        return effective_tokens(self.access, self.auth)
