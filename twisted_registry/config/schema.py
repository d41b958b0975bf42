"""The whole file: ``version`` and the sections, each with its class in a module beside this."""

from __future__ import annotations

from twisted_registry.config.access import AccessRules, Tokens, effective_tokens
from twisted_registry.config.auth import Auth
from twisted_registry.config.content import Catalog, Policy, Tags, Validation
from twisted_registry.config.forms import choice, text
from twisted_registry.config.kinds import Anything
from twisted_registry.config.logs import LEVELS, Log
from twisted_registry.config.middleware import Middlewares
from twisted_registry.config.outside import Health, Notifications, Proxy, Redis
from twisted_registry.config.sections import Section, SectionBase, key, schema, section
from twisted_registry.config.serving import Http
from twisted_registry.config.storing import Storage

VERSION = "0.1"


@schema
class Configuration(SectionBase):
    """A configuration: typed, with every default filled in."""

    version: str = key(text(f"{VERSION}"), "The version of the format, always 0.1.", default="")
    log: Log = section(Log, "What is logged, and how.")
    loglevel: str | None = key(choice(*LEVELS, ignore_case=True), "The old place of ``log.level``.")
    storage: Storage = section(
        Storage, "Where content is kept: exactly one driver, and what holds for each.", allows_bare_name=True
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
