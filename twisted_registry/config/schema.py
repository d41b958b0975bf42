"""The schema of the whole file: ``version`` and the sections.

Small sections are declared here: ``log``, ``validation``, ``policy``, ``catalog`` and ``tags``. The
others have a module of their own in this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted_registry.config import values
from twisted_registry.config.access import AccessRules, Auth, Tokens, effective_tokens
from twisted_registry.config.health import Health
from twisted_registry.config.http import Http
from twisted_registry.config.kinds import (
    Anything,
    ListOf,
    MapOf,
    Scalar,
    boolean,
    choice,
    text,
    text_list,
)
from twisted_registry.config.middleware import Middlewares
from twisted_registry.config.notifications import Notifications
from twisted_registry.config.plugins import Plugin
from twisted_registry.config.sections import Section, SectionBase, key, section
from twisted_registry.config.storage import Redis, Storage
from twisted_registry.config.unserved import Proxy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted_registry.config.document import Node
    from twisted_registry.oci.linear_regex import LinearRegex

#: The version of the file format.
VERSION: Final = "0.1"
DEFAULT_PAGE_SIZE: Final = 1000
LEVELS: Final = ("error", "warn", "info", "debug")


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


class AccessLog(SectionBase):
    """``log.accesslog``."""

    disabled: bool = key(
        boolean(),
        "Write no access log. Otherwise each request is a line on standard output, in Apache's"
        " combined format.",
    )


class Smtp(SectionBase):
    """``log.hooks[].options.smtp``."""

    addr: str = key(text(), "HOST:PORT of the mail server.")
    username: str = key(text(), "The user name at the mail server.")
    password: str = key(text(), "The password at the mail server.", secret=True)
    insecure: bool = key(boolean(), "Do not verify the server's certificate.")


class HookOptions(SectionBase):
    """``log.hooks[].options``."""

    smtp: Smtp = section(Smtp, "The mail server.")
    from_: str = key(text(), "The sender.", name="from")
    to: tuple[str, ...] = key(text_list(), "The recipients.")


class Hook(SectionBase):
    """``log.hooks[]``."""

    type: str = key(choice("mail"), "The type of the hook.", default="mail")
    disabled: bool = key(boolean(), "Ignore this entry.")
    levels: tuple[str, ...] = key(
        ListOf(
            "a list of levels",
            choice("panic", "fatal", "error", "warn", "warning", "info", "debug"),
        ),
        "The levels that are sent.",
    )
    options: HookOptions = section(HookOptions, "The options of the hook.")


class Log(SectionBase):
    """``log``."""

    level: str = key(
        choice(*LEVELS, change_case=str.lower), "The lowest level that is logged.", default="info"
    )
    formatter: str = key(
        choice("text", "json", "logstash"),
        "The format of a line; text is ``key=value`` pairs.",
        default="text",
    )
    fields: Mapping[str, object] = key(
        MapOf("a mapping", Anything()), "Fields that are added to every line."
    )
    accesslog: AccessLog = section(AccessLog, "The access log.")
    audit: str = key(
        text("a path, or stdout"),
        "The audit log: one line of JSON for each login, refusal, push, delete, token made or"
        " revoked, and change of the rules. A file, which commands write to as well and which can"
        " be rotated, or ``stdout``.",
        extension=True,
    )
    reportcaller: bool = key(
        boolean(), "Add the function and the line of code to each line: ``func`` and ``file``."
    )
    hooks: tuple[Hook, ...] = key(
        ListOf("a list of hooks", Section(Hook)),
        "Log lines that are sent by mail. Not served yet: ignored with a warning.",
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
    def tokens(self) -> Tokens | None:
        """The settings of the token server; None if this registry issues no tokens."""
        return effective_tokens(self.access, self.auth)
