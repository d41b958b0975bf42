"""``access``: what users, groups and strangers may do. Distribution has no such section.

``auth``: how users say who they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from twisted_registry.config import values
from twisted_registry.config.document import quote_value
from twisted_registry.config.kinds import (
    Duration,
    Kind,
    ListOf,
    MapOf,
    OpaqueSection,
    Scalar,
    boolean,
    choice,
    duration,
    text,
    text_list,
)
from twisted_registry.config.sections import Section, SectionBase, key, schema
from twisted_registry.oci import patterns as patterns_module

if TYPE_CHECKING:
    from collections.abc import Mapping

    # @@EMPTY
    from twisted_registry.config.document import Node, Report

#: Seconds. Clients take a token to be good for that long, at least.
_MIN_LIFETIME_S = 60.0
#: Seconds. A key is believed for one such time after it has signed last.
_MIN_ROTATION_S = 3600.0
#: Hosts to which the way is short.
_LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
#: What a rule can allow; ``push`` includes ``pull``, ``admin`` everything.
ACTIONS = ("pull", "push", "delete", "admin")


def _pattern(node: Node) -> str:
    """A pattern of :mod:`twisted_registry.oci.patterns`, perhaps with ``!`` in front."""
    said = values.text(node)
    patterns_module.Glob.parse(said.removeprefix("!"))
    return said


def actions(doc: str) -> Any:
    """A key that takes actions."""
    return key(ListOf("a list of actions", choice(*ACTIONS)), doc, default=(), extension=True)


def patterns(doc: str) -> Any:
    """A key that takes patterns."""
    kind = ListOf("a list of patterns", Scalar(patterns_module.GLOB_SYNTAX, _pattern))
    return key(kind, doc, default=(), required=True, extension=True)


@schema
class Rule(SectionBase):
    """``access.rules[]``: somebody may do something."""

    repositories: tuple[str, ...] = patterns(
        "Where: names and patterns, as ``library/*``, ``team/**`` or ``**``; one with ``!`` in"
        " front takes away what the others choose."
    )
    users: tuple[str, ...] = key(
        text_list("a list of users"), "Who: users by name.", default=(), extension=True
    )
    groups: tuple[str, ...] = key(
        text_list("a list of groups"), "Who: groups.", default=(), extension=True
    )
    authenticated: bool = key(
        boolean(), "Who: everybody who has logged in.", default=False, extension=True
    )
    anonymous: bool = key(boolean(), "Who: everybody.", default=False, extension=True)
    allow: tuple[str, ...] = actions(
        "What: ``pull``, ``push`` (which includes ``pull``), ``delete``, or ``admin``, which is all"
        " of them."
    )


def _duration_from(seconds: float) -> Kind:
    expected = f"a duration from {values.format_duration(seconds)}"

    def convert(node: Node) -> float:
        value = values.seconds(node)
        if value < seconds:
            raise ValueError
        return value

    return Duration(expected, convert)


@schema
class Tokens(SectionBase):
    """``access.tokens``: tokens that this registry gives, at ``/auth/token``."""

    disabled: bool = key(
        boolean(),
        "Give none, also where everybody may do something.",
        default=False,
        extension=True,
    )
    service: str = key(
        Scalar("text on one line", values.header_value), "What clients and tokens call this"
        " registry.", default="twisted-registry", extension=True,
    )  # fmt: skip
    lifetime: float = key(
        _duration_from(_MIN_LIFETIME_S), "How long a token is good.", default=300.0, extension=True
    )
    refresh: float = key(
        duration(), "How long a token that refreshes others is good, which ``docker login`` keeps"
        " in the place of the password; 0 gives none.", default=30 * 24 * 3600.0, extension=True,
    )  # fmt: skip
    rotation: float = key(
        _duration_from(_MIN_ROTATION_S), "How long a key signs, before the next one does.",
        default=24 * 3600.0, extension=True,
    )  # fmt: skip


@schema
class IssuerRule(SectionBase):
    """``access.issuers[].rules[]``: some of its tokens may do something."""

    claims: Mapping[str, str] = key(
        MapOf("a mapping of claims to patterns", text()), "Which: what claims have to be, all of"
        " them; ``*`` stands for any characters.", default={}, required=True, extension=True,
    )  # fmt: skip
    repositories: tuple[str, ...] = patterns("Where, as in ``access.rules[]``.")
    allow: tuple[str, ...] = actions("What, as in ``access.rules[]``.")


@schema
class Issuer(SectionBase):
    """``access.issuers[]``: a CI system that signs tokens for its jobs (OpenID Connect)."""

    issuer: str = key(
        Scalar("an http or https URL", values.url), "Its URL, as tokens have it in ``iss``.",
        default="", required=True, extension=True,
    )  # fmt: skip
    jwks: str = key(
        Scalar("an http or https URL", values.url), "The URL of its keys; without it the issuer is"
        " asked for that.", default="", extension=True,
    )  # fmt: skip
    audience: str = key(
        Scalar("text that is not empty", values.nonempty_text), "What tokens have to be for (``aud``).",
        default="", required=True, extension=True,
    )  # fmt: skip
    rules: tuple[IssuerRule, ...] = key(
        ListOf("a list of rules", Section("a section", IssuerRule, strict=True)), "Which of its"
        " tokens may do what.", default=(), required=True, extension=True,
    )  # fmt: skip


@schema
class AccessRules(SectionBase):
    """``access``: what is not allowed here is not allowed."""

    anonymous: tuple[str, ...] = actions("What everybody may do, in every repository.")
    authenticated: tuple[str, ...] = actions(
        "What everybody who has logged in may do, in every repository."
    )
    groups: Mapping[str, tuple[str, ...]] = key(
        MapOf("a mapping of groups to lists of users", text_list("a list of users")),
        "Groups: a name, and who is in it.", default={}, extension=True,
    )  # fmt: skip
    rules: tuple[Rule, ...] = key(
        ListOf("a list of rules", Section("a section", Rule, strict=True)),
        "Further rules; each one adds to what others allow.", default=(), extension=True,
    )  # fmt: skip
    issuers: tuple[Issuer, ...] = key(
        ListOf("a list of issuers", Section("a section", Issuer, strict=True)), "CI systems whose"
        " tokens are believed in the place of a password. Needs ``tokens``.", default=(), extension=True,
    )  # fmt: skip
    tokens: Tokens | None = key(
        Section("a section", Tokens, strict=True, allows_empty=True), "Give and believe tokens. It counts"
        " as said where ``auth.htpasswd`` is and strangers may do something: docker asks nobody but"
        " a giver of tokens without a login. Needs ``twisted-registry[auth]``.", extension=True,
    )  # fmt: skip

    @property
    def allows_anonymous(self) -> bool:
        """Whether they may do anything anywhere."""
        return bool(self.anonymous) or any(rule.anonymous for rule in self.rules)


def effective_tokens(access: AccessRules | None, auth: Auth) -> Tokens | None:
    """How tokens are given; None if they are not."""
    if access is None:
        return None
    implied = auth.htpasswd is not None and access.allows_anonymous
    tokens = access.tokens or (Tokens() if implied else None)
    return None if tokens is None or tokens.disabled else tokens


def check_access(access: AccessRules, auth: Auth, report: Report) -> None:
    """Report rules that say nothing, groups that nobody is in, and tokens for nobody."""
    _check_tokens(access.tokens, auth, report)
    if access.issuers and effective_tokens(access, auth) is None:
        report.fault("access.issuers", None, "access.tokens is needed to give them tokens")
    _check_issuers(access, report)
    for index, rule in enumerate(access.rules):
        path = f"access.rules[{index}]"
        if not (rule.users or rule.groups or rule.authenticated or rule.anonymous):
            report.fault(path, None, "the rule names nobody; it needs users, groups,"
                         " authenticated: true or anonymous: true")  # fmt: skip
        if "*" in rule.users:
            report.fault(f"{path}.users", f"got {quote_value('*')}", "names of users; authenticated: true"
                         " is everybody who has logged in")  # fmt: skip
        _check_right(path, rule, report)
        for group in rule.groups:
            if group not in access.groups:
                report.warn(
                    f"{path}.groups", f"nobody is in {quote_value(group)}, unless a login says so"
                )


def _check_patterns(path: str, chosen: tuple[str, ...], report: Report) -> None:
    """Report patterns that choose nothing, for all that they take away."""
    if all(text.startswith("!") for text in chosen):
        said = quote_value(", ".join(chosen)) if chosen else "nothing"
        report.fault(path, f"got {said}", "at least one pattern without !, as **")


def _check_issuers(access: AccessRules, report: Report) -> None:
    seen: set[str] = set()
    for index, issuer in enumerate(access.issuers):
        path = f"access.issuers[{index}]"
        if issuer.issuer in seen:
            report.fault(
                f"{path}.issuer", f"got {quote_value(issuer.issuer)} again", "each but once"
            )
        seen.add(issuer.issuer)
        for name in ("issuer", "jwks"):
            url = urlsplit(getattr(issuer, name))
            if url.scheme == "http" and url.hostname not in _LOOPBACK_HOSTS:
                report.fault(f"{path}.{name}", f"got {quote_value(url.geturl())}", "an https URL: whoever"
                             " is on the way could sign tokens")  # fmt: skip
        for number, rule in enumerate(issuer.rules):
            below = f"{path}.rules[{number}]"
            if not rule.claims:
                report.fault(f"{below}.claims", "got nothing", "a claim, as sub: an issuer speaks"
                             " for everybody who uses it")  # fmt: skip
            _check_right(below, rule, report)


def _check_right(path: str, rule: Rule | IssuerRule, report: Report) -> None:
    if not rule.allow:
        report.fault(f"{path}.allow", "got nothing", f"some of {', '.join(ACTIONS)}")
    _check_patterns(f"{path}.repositories", rule.repositories, report)


def _check_tokens(tokens: Tokens | None, auth: Auth, report: Report) -> None:
    if tokens is None or tokens.disabled:
        return
    others = [name for name in auth.schemes if name != "htpasswd"]
    if others:
        report.fault("access.tokens", None, f"auth.{others[0]} has tokens of its own; it goes with"
                     " auth.htpasswd, or without auth")  # fmt: skip
    if tokens.rotation < tokens.lifetime:
        report.fault("access.tokens.rotation", f"got {values.format_duration(tokens.rotation)}",
                     "at least the lifetime of a token")  # fmt: skip


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
