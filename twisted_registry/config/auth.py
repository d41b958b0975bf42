"""``auth``: how users say who they are."""

from __future__ import annotations

from typing import Any

from twisted_registry.config import values
from twisted_registry.config.kinds import Options, Scalar
from twisted_registry.config.sections import Section, Values, key, schema


def _line(doc: str) -> Any:
    """Text that a header can hold."""
    return key(Scalar("text on one line", values.header_value), doc, default="", required=True)


@schema
class Silly(Values):
    """``auth.silly``."""

    realm: str = _line("The realm that challenges name.")
    service: str = _line("The service that challenges name.")


def _later(names: str) -> Any:
    return key(Options(known=dict.fromkeys(names.split())), "Not served yet: refused.", secret=True)


@schema
class Auth(Values):
    """``auth``: at most one key."""

    none: object = key(Options(), "Everybody may do everything; the same as no section.")
    silly: Silly | None = key(
        Section("a section", Silly, empty=True),
        "Take whoever sends an Authorization header, whatever it says. For trials only.",
    )
    htpasswd: object = _later("realm path")
    token: object = _later(
        """realm service issuer rootcertbundle jwks autoredirect autoredirectpath
        signingalgorithms"""
    )

    @property
    def wanted(self) -> bool:
        """Whether anybody is asked who they are."""
        return any(scheme is not None for scheme in (self.silly, self.htpasswd, self.token))
