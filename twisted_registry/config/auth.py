"""``auth``: how users say who they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_registry.config import values
from twisted_registry.config.forms import choice, boolean, text
from twisted_registry.config.kinds import ListOf, OpaqueSection, Scalar
from twisted_registry.config.sections import Section, SectionBase, key, schema

if TYPE_CHECKING:
    from twisted_registry.config.document import Node

#: How a token may be signed (RFC 7518 section 3.1, RFC 8037).
ALGORITHMS = (
    *("EdDSA", "HS256", "HS384", "HS512", "RS256", "RS384", "RS512"),
    *("ES256", "ES384", "ES512", "PS256", "PS384", "PS512"),
)


def _path(node: Node) -> str:
    """A path that a URL can hold."""
    value = values.text(node)
    if not value.startswith("/") or not value.isascii() or not value.isprintable():
        raise ValueError
    return value


def _line(doc: str) -> Any:
    """Text that a header can hold."""
    return key(Scalar("text on one line", values.header_value), doc, default="", required=True)


@schema
class Silly(SectionBase):
    """``auth.silly``."""

    realm: str = _line("The realm that challenges name.")
    service: str = _line("The service that challenges name.")


@schema
class Htpasswd(SectionBase):
    """``auth.htpasswd``."""

    realm: str = _line("The realm that the challenge names.")
    path: str = key(
        Scalar("a path", values.nonempty_text),
        "A file of users, as ``htpasswd -B`` makes it: entries that are not bcrypt are ignored. It"
        " is read again when it changes. Without such a file one is made at the start, with a user"
        " ``docker`` and a password that the log tells once.",
        default="", required=True,
    )  # fmt: skip


@schema
class Token(SectionBase):
    """``auth.token``."""

    realm: str = _line("The URL that gives tokens, named in challenges.")
    service: str = _line("What tokens must be for (``aud``); named in challenges.")
    issuer: str = key(
        Scalar("text", values.nonempty_text), "Who must have issued tokens (``iss``).",
        default="", required=True,
    )  # fmt: skip
    rootcertbundle: str = key(
        text("a path"),
        "A PEM file of certificates whose keys sign tokens, or vouch for keys that do (``x5c``)."
        " This or ``jwks`` must be there.",
        default="",
    )
    jwks: str = key(
        text("a path"), "A file of public keys that sign tokens, a JWK Set.", default=""
    )
    signingalgorithms: tuple[str, ...] = key(
        ListOf("a list of algorithms", choice(*ALGORITHMS)),
        "How tokens may be signed; a key always signs by algorithms of its kind alone.",
        default=ALGORITHMS,
    )
    autoredirect: bool = key(
        boolean(), "Name the host that the client asked, in place of ``realm``.", default=False
    )
    autoredirectpath: str = key(
        Scalar("a path that begins with /", _path), "Where on that host tokens are given.",
        default="/auth/token",
    )  # fmt: skip


@schema
class Auth(SectionBase):
    """``auth``: at most one key."""

    none: object = key(OpaqueSection(), "Everybody may do everything; the same as no section.")
    silly: Silly | None = key(
        Section("a section", Silly, allows_empty=True),
        "Take whoever sends an Authorization header, whatever it says. For trials only.",
    )
    htpasswd: Htpasswd | None = key(
        Section("a section", Htpasswd, allows_empty=True),
        "Ask for a name and a password. Needs ``twisted-registry[auth]``.",
    )
    token: Token | None = key(
        Section("a section", Token, allows_empty=True),
        "Take tokens (JWT) that another service gives. Needs ``twisted-registry[auth]``.",
    )

    @property
    def is_enabled(self) -> bool:
        """Whether anybody is asked who they are."""
        return bool(self.schemes)

    @property
    def schemes(self) -> tuple[str, ...]:
        """The keys that say how somebody is asked."""
        return tuple(
            name for name in ("silly", "htpasswd", "token") if getattr(self, name) is not None
        )
