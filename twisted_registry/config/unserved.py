"""Sections that are read and checked, but not served: ``proxy``, and GitLab's ``database``."""

from __future__ import annotations

from twisted_registry.config.kinds import (
    duration,
    text,
)
from twisted_registry.config.sections import Section, SectionBase, key


class Exec(SectionBase):
    """``proxy.exec``."""

    command: str = key(text("a path"), "The docker-credential-helper.")
    lifetime: float | None = key(duration(), "How long its credentials are used.", default=None)


class Proxy(SectionBase):
    """``proxy``."""

    remoteurl: str = key(text("a URL"), "The upstream registry.")
    username: str = key(text(), "The user name at the upstream registry.")
    password: str = key(text(), "The password at the upstream registry.", secret=True)
    exec: Exec | None = key(Section(Exec), "A program that provides the credentials.")
    ttl: float = key(
        duration(), "How long content is kept; 0 is without a limit.", default=168 * 3600.0
    )
    cachewritetimeout: float = key(
        duration(), "The timeout of storing pulled content.", default=300.0
    )


def uses_database(section: object) -> bool:
    """Return whether ``database`` of GitLab's registry is used: tags are there, not in the store.

    :param section: its value; ``enabled`` may be true, false or prefer.
    """
    enabled = section.get("enabled") if isinstance(section, dict) else None
    return str(enabled).lower() not in {"none", "false", ""}
