"""The whole file: ``version`` and the sections, each with its class in a module beside this.

Sections about what may be pushed and how lists are cut: validation, policy, catalog, tags.

The ``log`` section: what is written, how, and what goes along with every line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_registry.config import values
from twisted_registry.config.access import AccessRules, Auth, Tokens, effective_tokens
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
from twisted_registry.config.sections import Section, SectionBase, key, schema, section
from twisted_registry.config.storage import Storage
from twisted_registry.config.unserved import Health, Notifications, Proxy, Redis

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping

    from twisted_registry.config.document import Node

DEFAULT_PAGE_SIZE = 1000


def _entries(node: Node) -> int:
    entries = values.integer(node)
    return entries if entries > 0 else DEFAULT_PAGE_SIZE


def _tags(node: Node) -> int:
    tags = values.integer(node)
    if tags < 0:
        raise ValueError
    return tags or DEFAULT_PAGE_SIZE


def _patterns() -> ListOf:
    return ListOf(
        "a list of regular expressions",
        Scalar("a regular expression that Go and Python read alike", values.pattern),
    )


@schema
class Catalog(SectionBase):
    """``catalog``."""

    maxentries: int = key(
        Scalar("a whole number", _entries), "The largest page of ``_catalog``; 0 or less is 1000.",
        default=DEFAULT_PAGE_SIZE,
    )  # fmt: skip


@schema
class Tags(SectionBase):
    """``tags``."""

    maxtags: int = key(
        Scalar("a whole number from 0", _tags), "The largest page of a tag list; 0 is 1000.",
        default=DEFAULT_PAGE_SIZE,
    )  # fmt: skip


@schema
class Urls(SectionBase):
    """``validation.manifests.urls``."""

    allow: tuple[re.Pattern[str], ...] = key(
        _patterns(), "URLs of layers must match one of these (found anywhere in the URL).",
        default=(),
    )  # fmt: skip
    deny: tuple[re.Pattern[str], ...] = key(
        _patterns(), "URLs of layers must match none of these.", default=()
    )


@schema
class Platform(SectionBase):
    """``validation.manifests.indexes.platformlist[]``."""

    architecture: str = key(text(), "As in an index, e.g. amd64.", default="")
    os: str = key(text(), "As in an index, e.g. linux.", default="")


@schema
class Indexes(SectionBase):
    """``validation.manifests.indexes``."""

    platforms: str = key(
        choice("all", "none", "list", ignore_case=True),
        "Which manifests of an index must be there when it is pushed.", default="all",
    )  # fmt: skip
    platformlist: tuple[Platform, ...] = key(
        ListOf("a list of platforms", Section("a section", Platform)),
        "The platforms, if ``platforms`` is list.", default=(),
    )  # fmt: skip


@schema
class Manifests(SectionBase):
    """``validation.manifests``."""

    urls: Urls = section(Urls, "URLs in manifests; without this section every URL is accepted.")
    indexes: Indexes = section(Indexes, "Indexes whose manifests are partly elsewhere.")


@schema
class Validation(SectionBase):
    """``validation``."""

    disabled: bool = key(boolean(), "Check none of this.", default=False)
    enabled: bool | None = key(boolean(), "The old opposite of ``disabled``; has no effect.")
    manifests: Manifests = section(Manifests, "Manifests that are pushed.")


@schema
class RepositoryPolicy(SectionBase):
    """``policy.repository``."""

    classes: tuple[str, ...] = key(
        ListOf("a list of classes", choice("image", "plugin")),
        "What may be pushed, told by the media type of a manifest's config; empty is anything.",
        default=(),
    )  # fmt: skip


@schema
class Policy(SectionBase):
    """``policy``."""

    repository: RepositoryPolicy = section(RepositoryPolicy, "Repositories.")


LEVELS = ("error", "warn", "info", "debug")


@schema
class AccessLog(SectionBase):
    """``log.accesslog``."""

    disabled: bool = key(
        boolean(), "Write no access log. Else one line a request goes to standard output, in the"
        " combined format of Apache.", default=False,
    )  # fmt: skip


@schema
class Smtp(SectionBase):
    """``log.hooks[].options.smtp``."""

    addr: str = key(text(), "HOST:PORT of the mail server.", default="")
    username: str = key(text(), "User name at the mail server.", default="")
    password: str = key(text(), "Password at the mail server.", default="", secret=True)
    insecure: bool = key(boolean(), "Do not check the server's certificate.", default=False)


@schema
class HookOptions(SectionBase):
    """``log.hooks[].options``."""

    smtp: Smtp = section(Smtp, "The mail server.")
    from_: str = key(text(), "The sender.", default="", name="from")
    to: tuple[str, ...] = key(text_list(), "The recipients.", default=())


@schema
class Hook(SectionBase):
    """``log.hooks[]``."""

    type: str = key(choice("mail"), "What the hook does.", default="mail")
    disabled: bool = key(boolean(), "Leave the hook out.", default=False)
    levels: tuple[str, ...] = key(
        ListOf(
            "a list of levels",
            choice("panic", "fatal", "error", "warn", "warning", "info", "debug"),
        ),
        "The levels that it acts on.", default=(),
    )  # fmt: skip
    options: HookOptions = section(HookOptions, "How to send.")


@schema
class Log(SectionBase):
    """``log``."""

    level: str = key(
        choice(*LEVELS, ignore_case=True), "The least level that is written.", default="info"
    )
    formatter: str = key(
        choice("text", "json", "logstash"), "The shape of a line: text is ``key=value`` pairs.",
        default="text",
    )  # fmt: skip
    fields: Mapping[str, object] = key(
        MapOf("a mapping", Anything()), "Fields that are added to every line.", default={}
    )
    accesslog: AccessLog = section(AccessLog, "The log of requests.")
    reportcaller: bool = key(boolean(), "Accepted; has no effect.", default=False)
    hooks: tuple[Hook, ...] = key(
        ListOf("a list of hooks", Section("a section", Hook)),
        "Mail for log lines. Not served yet: warned of, and left out.", default=(),
    )  # fmt: skip


VERSION = "0.1"


@schema
class Configuration(SectionBase):
    """A configuration: typed, with every default filled in."""

    version: str = key(text(f"{VERSION}"), "The version of the format, always 0.1.", default="")
    log: Log = section(Log, "What is logged, and how.")
    loglevel: str | None = key(choice(*LEVELS, ignore_case=True), "The old place of ``log.level``.")
    storage: Storage = section(
        Storage,
        "Where content is kept: exactly one driver, and what holds for each.",
        allows_bare_name=True,
    )
    auth: Auth = section(
        Auth, "Who may do what. ``auth: none`` is short for that one key.",
        allows_bare_name=True, strict=True,
    )  # fmt: skip
    access: AccessRules | None = key(
        Section("a section", AccessRules, strict=True, allows_empty=True),
        "Who may do what. With the section, what it does not allow is not allowed; without it,"
        " whoever has logged in may do everything, and a token opens what it says.", extension=True,
    )  # fmt: skip
    http: Http = section(Http, "Where the registry listens and what its answers say.")
    validation: Validation = section(Validation, "What may be pushed.")
    policy: Policy = section(Policy, "What kind of content is taken.")
    catalog: Catalog = section(Catalog, "The list of repositories.")
    tags: Tags = section(Tags, "Lists of tags.")
    notifications: Notifications = section(
        Notifications, "Not served yet: warned of, and left out."
    )
    redis: Redis | None = key(
        Section("a section", Redis), "Not served yet: warned of, and left out."
    )
    health: Health | None = key(
        Section("a section", Health), "Not served yet: warned of, and left out."
    )
    proxy: Proxy = section(Proxy, "Not served yet: refused when ``remoteurl`` is set.")
    middleware: Middlewares = section(
        Middlewares, "Not served: refused, unless ``disabled`` is true."
    )
    reporting: object = key(Anything(), "Gone from Distribution; accepted, no effect.", secret=True)
    compatibility: object = key(
        Anything(), "Gone from Distribution; accepted, no effect.", secret=True
    )

    @property
    def controls_access(self) -> bool:
        """Whether anybody is asked who they are, or refused anything."""
        users = self.http.tls.clientusers
        return self.auth.is_enabled or self.access is not None or bool(users)

    @property
    def tokens(self) -> Tokens | None:
        """How this registry gives tokens of its own; None if it gives none."""
        return effective_tokens(self.access, self.auth)
