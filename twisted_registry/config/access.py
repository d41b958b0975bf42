"""``access``: what users, groups and strangers may do. Distribution has no such section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_registry import globs
from twisted_registry.config import values
from twisted_registry.config.faults import shown
from twisted_registry.config.forms import choice, duration, flag, texts
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
#: What a rule can allow; ``push`` includes ``pull``, ``admin`` everything.
ACTIONS = ("pull", "push", "delete", "admin")


def pattern(node: Node) -> str:
    """A pattern of :mod:`twisted_registry.globs`, perhaps with ``!`` in front."""
    said = values.text(node)
    globs.Glob.parse(said.removeprefix("!"))
    return said


def actions(doc: str) -> Any:
    """A key that takes actions."""
    return key(Listing("a list of actions", choice(*ACTIONS)), doc, default=(), ours=True)


def patterns(doc: str) -> Any:
    """A key that takes patterns."""
    kind = Listing("a list of patterns", Scalar(globs.EXPECTED, pattern))
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
    tokens: Tokens | None = key(
        Section("a section", Tokens, closed=True, empty=True), "Give and believe tokens. Needs"
        " ``twisted-registry[auth]``.", ours=True,
    )  # fmt: skip


def check_access(access: AccessRules, auth: Auth, report: Report) -> None:
    """Report rules that say nothing, groups that nobody is in, and tokens for nobody."""
    _check_tokens(access.tokens, auth, report)
    for index, rule in enumerate(access.rules):
        path = f"access.rules[{index}]"
        if not (rule.users or rule.groups or rule.authenticated or rule.anonymous):
            report.fault(path, None, "the rule names nobody; it needs users, groups,"
                         " authenticated: true or anonymous: true")  # fmt: skip
        if "*" in rule.users:
            report.fault(f"{path}.users", f"got {shown('*')}", "names of users; authenticated: true"
                         " is everybody who has logged in")  # fmt: skip
        if not rule.allow:
            report.fault(f"{path}.allow", "got nothing", f"some of {', '.join(ACTIONS)}")
        check_chosen(f"{path}.repositories", rule.repositories, report)
        for group in rule.groups:
            if group not in access.groups:
                report.warn(
                    f"{path}.groups", f"nobody is in {shown(group)}, unless a login says so"
                )


def check_chosen(path: str, chosen: tuple[str, ...], report: Report) -> None:
    """Report patterns that choose nothing, for all that they take away."""
    if all(text.startswith("!") for text in chosen):
        said = shown(", ".join(chosen)) if chosen else "nothing"
        report.fault(path, f"got {said}", "at least one pattern without !, as **")


def _check_tokens(tokens: Tokens | None, auth: Auth, report: Report) -> None:
    if tokens is None:
        return
    others = [name for name in auth.schemes if name != "htpasswd"]
    if others:
        report.fault("access.tokens", None, f"auth.{others[0]} has tokens of its own; it goes with"
                     " auth.htpasswd, or without auth")  # fmt: skip
    if tokens.rotation < tokens.lifetime:
        report.fault("access.tokens.rotation", f"got {values.spelled(tokens.rotation)}",
                     "at least the lifetime of a token")  # fmt: skip
