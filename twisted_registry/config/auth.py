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


@schema
class Htpasswd(Values):
    """``auth.htpasswd``."""

    realm: str = _line("The realm that the challenge names.")
    path: str = key(
        Scalar("a path", values.some_text),
        "A file of users, as ``htpasswd -B`` makes it: entries that are not bcrypt are ignored. It"
        " is read again when it changes. Without such a file one is made at the start, with a user"
        " ``docker`` and a password that the log tells once.",
        default="", required=True,
    )  # fmt: skip


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
    htpasswd: Htpasswd | None = key(
        Section("a section", Htpasswd, empty=True),
        "Ask for a name and a password. Needs ``twisted-registry[auth]``.",
    )
    token: object = _later(
        """realm service issuer rootcertbundle jwks autoredirect autoredirectpath
        signingalgorithms"""
    )

    @property
    def wanted(self) -> bool:
        """Whether anybody is asked who they are."""
        return bool(self.schemes)

    @property
    def schemes(self) -> tuple[str, ...]:
        """The keys that say how somebody is asked."""
        return tuple(
            name for name in ("silly", "htpasswd", "token") if getattr(self, name) is not None
        )
