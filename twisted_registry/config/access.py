"""``access``: what users, groups and strangers may do. Distribution has no such section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from twisted_registry import globs
from twisted_registry.config import values
from twisted_registry.config.faults import shown
from twisted_registry.config.forms import choice, duration, flag, text, texts
from twisted_registry.config.kinds import Duration, Kind, Listing, Scalar, Table
from twisted_registry.config.sections import Section, Values, key, schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted_registry.config.auth import Auth
    from twisted_registry.config.document import Node
    from twisted_registry.config.faults import Report

#: Seconds. Clients take a token to be good for that long, at least.
_LEAST_LIFETIME = 60.0
#: Seconds. A key is believed for one such time after it has signed last.
_LEAST_ROTATION = 3600.0
#: Hosts to which the way is short.
_HERE = frozenset({"localhost", "127.0.0.1", "::1"})
#: What a rule can allow; ``push`` includes ``pull``, ``admin`` everything.
ACTIONS = ("pull", "push", "delete", "admin")


def _pattern(node: Node) -> str:
    """A pattern of :mod:`twisted_registry.globs`, perhaps with ``!`` in front."""
    said = values.text(node)
    globs.Glob.parse(said.removeprefix("!"))
    return said


def actions(doc: str) -> Any:
    """A key that takes actions."""
    return key(Listing("a list of actions", choice(*ACTIONS)), doc, default=(), ours=True)


def patterns(doc: str) -> Any:
    """A key that takes patterns."""
    kind = Listing("a list of patterns", Scalar(globs.EXPECTED, _pattern))
    return key(kind, doc, default=(), required=True, ours=True)


@schema
class Rule(Values):
    """``access.rules[]``: somebody may do something."""

    repositories: tuple[str, ...] = patterns(
        "Where: names and patterns, as ``library/*``, ``team/**`` or ``**``; one with ``!`` in"
        " front takes away what the others choose."
    )
    users: tuple[str, ...] = key(
        texts("a list of users"), "Who: users by name.", default=(), ours=True
    )
    groups: tuple[str, ...] = key(texts("a list of groups"), "Who: groups.", default=(), ours=True)
    authenticated: bool = key(flag(), "Who: everybody who has logged in.", default=False, ours=True)
    anonymous: bool = key(flag(), "Who: everybody.", default=False, ours=True)
    allow: tuple[str, ...] = actions(
        "What: ``pull``, ``push`` (which includes ``pull``), ``delete``, or ``admin``, which is all"
        " of them."
    )


def _at_least(seconds: float) -> Kind:
    expected = f"a duration from {values.spelled(seconds)}"

    def convert(node: Node) -> float:
        value = values.seconds(node)
        if value < seconds:
            raise ValueError
        return value

    return Duration(expected, convert)


@schema
class Tokens(Values):
    """``access.tokens``: tokens that this registry gives, at ``/auth/token``."""

    disabled: bool = key(
        flag(), "Give none, also where everybody may do something.", default=False, ours=True
    )
    service: str = key(
        Scalar("text on one line", values.header_value), "What clients and tokens call this"
        " registry.", default="twisted-registry", ours=True,
    )  # fmt: skip
    lifetime: float = key(
        _at_least(_LEAST_LIFETIME), "How long a token is good.", default=300.0, ours=True
    )
    refresh: float = key(
        duration(), "How long a token that refreshes others is good, which ``docker login`` keeps"
        " in the place of the password; 0 gives none.", default=30 * 24 * 3600.0, ours=True,
    )  # fmt: skip
    rotation: float = key(
        _at_least(_LEAST_ROTATION), "How long a key signs, before the next one does.",
        default=24 * 3600.0, ours=True,
    )  # fmt: skip


@schema
class IssuerRule(Values):
    """``access.issuers[].rules[]``: some of its tokens may do something."""

    claims: Mapping[str, str] = key(
        Table("a mapping of claims to patterns", text()), "Which: what claims have to be, all of"
        " them; ``*`` stands for any characters.", default={}, required=True, ours=True,
    )  # fmt: skip
    repositories: tuple[str, ...] = patterns("Where, as in ``access.rules[]``.")
    allow: tuple[str, ...] = actions("What, as in ``access.rules[]``.")


@schema
class Issuer(Values):
    """``access.issuers[]``: a CI system that signs tokens for its jobs (OpenID Connect)."""

    issuer: str = key(
        Scalar("an http or https URL", values.url), "Its URL, as tokens have it in ``iss``.",
        default="", required=True, ours=True,
    )  # fmt: skip
    jwks: str = key(
        Scalar("an http or https URL", values.url), "The URL of its keys; without it the issuer is"
        " asked for that.", default="", ours=True,
    )  # fmt: skip
    audience: str = key(
        Scalar("text that is not empty", values.some_text), "What tokens have to be for (``aud``).",
        default="", required=True, ours=True,
    )  # fmt: skip
    rules: tuple[IssuerRule, ...] = key(
        Listing("a list of rules", Section("a section", IssuerRule, closed=True)), "Which of its"
        " tokens may do what.", default=(), required=True, ours=True,
    )  # fmt: skip


@schema
class AccessRules(Values):
    """``access``: what is not allowed here is not allowed."""

    anonymous: tuple[str, ...] = actions("What everybody may do, in every repository.")
    authenticated: tuple[str, ...] = actions(
        "What everybody who has logged in may do, in every repository."
    )
    groups: Mapping[str, tuple[str, ...]] = key(
        Table("a mapping of groups to lists of users", texts("a list of users")),
        "Groups: a name, and who is in it.", default={}, ours=True,
    )  # fmt: skip
    rules: tuple[Rule, ...] = key(
        Listing("a list of rules", Section("a section", Rule, closed=True)),
        "Further rules; each one adds to what others allow.", default=(), ours=True,
    )  # fmt: skip
    issuers: tuple[Issuer, ...] = key(
        Listing("a list of issuers", Section("a section", Issuer, closed=True)), "CI systems whose"
        " tokens are believed in the place of a password. Needs ``tokens``.", default=(), ours=True,
    )  # fmt: skip
    tokens: Tokens | None = key(
        Section("a section", Tokens, closed=True, empty=True), "Give and believe tokens. It counts"
        " as said where ``auth.htpasswd`` is and strangers may do something: docker asks nobody but"
        " a giver of tokens without a login. Needs ``twisted-registry[auth]``.", ours=True,
    )  # fmt: skip

    @property
    def welcomes_strangers(self) -> bool:
        """Whether they may do anything anywhere."""
        return bool(self.anonymous) or any(rule.anonymous for rule in self.rules)


def tokens_given(access: AccessRules | None, auth: Auth) -> Tokens | None:
    """How tokens are given; None if they are not."""
    if access is None:
        return None
    implied = auth.htpasswd is not None and access.welcomes_strangers
    tokens = access.tokens or (Tokens() if implied else None)
    return None if tokens is None or tokens.disabled else tokens


def check_access(access: AccessRules, auth: Auth, report: Report) -> None:
    """Report rules that say nothing, groups that nobody is in, and tokens for nobody."""
    _check_tokens(access.tokens, auth, report)
    if access.issuers and tokens_given(access, auth) is None:
        report.fault("access.issuers", None, "access.tokens is needed to give them tokens")
    _check_issuers(access, report)
    for index, rule in enumerate(access.rules):
        path = f"access.rules[{index}]"
        if not (rule.users or rule.groups or rule.authenticated or rule.anonymous):
            report.fault(path, None, "the rule names nobody; it needs users, groups,"
                         " authenticated: true or anonymous: true")  # fmt: skip
        if "*" in rule.users:
            report.fault(f"{path}.users", f"got {shown('*')}", "names of users; authenticated: true"
                         " is everybody who has logged in")  # fmt: skip
        _check_right(path, rule, report)
        for group in rule.groups:
            if group not in access.groups:
                report.warn(
                    f"{path}.groups", f"nobody is in {shown(group)}, unless a login says so"
                )


def _check_chosen(path: str, chosen: tuple[str, ...], report: Report) -> None:
    """Report patterns that choose nothing, for all that they take away."""
    if all(text.startswith("!") for text in chosen):
        said = shown(", ".join(chosen)) if chosen else "nothing"
        report.fault(path, f"got {said}", "at least one pattern without !, as **")


def _check_issuers(access: AccessRules, report: Report) -> None:
    seen: set[str] = set()
    for index, issuer in enumerate(access.issuers):
        path = f"access.issuers[{index}]"
        if issuer.issuer in seen:
            report.fault(f"{path}.issuer", f"got {shown(issuer.issuer)} again", "each but once")
        seen.add(issuer.issuer)
        for name in ("issuer", "jwks"):
            url = urlsplit(getattr(issuer, name))
            if url.scheme == "http" and url.hostname not in _HERE:
                report.fault(f"{path}.{name}", f"got {shown(url.geturl())}", "an https URL: whoever"
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
    _check_chosen(f"{path}.repositories", rule.repositories, report)


def _check_tokens(tokens: Tokens | None, auth: Auth, report: Report) -> None:
    if tokens is None or tokens.disabled:
        return
    others = [name for name in auth.schemes if name != "htpasswd"]
    if others:
        report.fault("access.tokens", None, f"auth.{others[0]} has tokens of its own; it goes with"
                     " auth.htpasswd, or without auth")  # fmt: skip
    if tokens.rotation < tokens.lifetime:
        report.fault("access.tokens.rotation", f"got {values.spelled(tokens.rotation)}",
                     "at least the lifetime of a token")  # fmt: skip
