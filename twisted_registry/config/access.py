"""The ``auth`` and ``access`` sections: authentication and access rules.

``auth`` says how clients authenticate, as in Distribution. ``access`` says what users, groups and
anonymous clients may do; Distribution has no such section.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
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
    integer,
    size,
    text,
    text_list,
)
from twisted_registry.config.plugins import Plugin
from twisted_registry.config.sections import Section, SectionBase, key
from twisted_registry.oci.patterns import GLOB_SYNTAX, Glob

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from twisted_registry.config.document import Node, Report

#: Clients assume that a token is valid for at least this long.
_MIN_LIFETIME_S: Final = 60.0
#: A key that signs tokens: 256 bits.
_TOKEN_KEY: Final = re.compile(r"[0-9A-Fa-f]{64}", re.ASCII)
#: A slash and printable ASCII.
_URL_PATH: Final = re.compile(r"/[ -~]*")
#: Hosts that an issuer may have without https.
_LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})
#: What a rule can allow; ``push`` includes ``pull``, ``admin`` includes everything.
ACTIONS: Final = ("pull", "push", "delete", "admin")
#: The signature algorithms of tokens (RFC 7518 section 3.1, RFC 8037).
ALGORITHMS: Final = (
    *("EdDSA", "HS256", "HS384", "HS512", "RS256", "RS384", "RS512"),
    *("ES256", "ES384", "ES512", "PS256", "PS384", "PS512"),
)


def patterns(syntax: str, parse: Callable[[str], Glob]) -> Kind:
    """Make the kind of a list of patterns, each optionally with ``!`` in front.

    :param syntax: a pattern in words.
    :param parse: raises ValueError if it is not a pattern.
    """

    def convert(node: Node) -> str:
        pattern = values.text(node)
        parse(pattern.removeprefix("!"))
        return pattern

    return ListOf("a list of patterns", Scalar(syntax, convert))


def _duration_from(minimum_s: float) -> Kind:
    expected = f"a duration of at least {values.format_duration(minimum_s)}"
    return Duration(expected, values.bounded(values.duration_seconds, minimum_s))


def actions_key(doc: str) -> Any:
    """Declare a key that takes a list of actions."""
    return key(ListOf("a list of actions", choice(*ACTIONS)), doc)


def patterns_key(doc: str) -> Any:
    """Declare a required key that takes a list of patterns of repository names."""
    return key(patterns(GLOB_SYNTAX, Glob.parse), doc, required=True)


def _header_text_key(doc: str) -> Any:
    """Declare a required key whose value is sent in a header."""
    return key(Scalar("text on one line", values.header_value), doc, required=True)


class Silly(SectionBase):
    """``auth.silly``."""

    realm: str = _header_text_key("The realm named in challenges.")
    service: str = _header_text_key("The service named in challenges.")


class Htpasswd(SectionBase):
    """``auth.htpasswd``."""

    realm: str = _header_text_key("The realm named in the challenge.")
    path: str = key(
        Scalar("a path", values.nonempty_text),
        "The file of users and password hashes, as ``htpasswd -B`` writes it. Entries whose hash is"
        " not bcrypt are ignored. The file is read again when it changes. If it does not exist, it"
        " is created at the start with a user ``docker``, whose password is written to the log"
        " once.",
        required=True,
    )


class Token(SectionBase):
    """``auth.token``."""

    realm: str = _header_text_key("The URL of the token server, named in challenges.")
    service: str = _header_text_key(
        "The audience that tokens must have (``aud``), named in challenges."
    )
    issuer: str = key(
        Scalar("text that is not empty", values.nonempty_text),
        "The issuer that tokens must have (``iss``).",
        required=True,
    )
    rootcertbundle: str = key(
        text("a path"),
        "A PEM file of certificates. Tokens are accepted if they are signed by the key of one of"
        " them, or by a key that one of them has certified (``x5c``). Either this or ``jwks`` must"
        " be set.",
    )
    jwks: str = key(text("a path"), "A JWK Set file of public keys that sign tokens.")
    signingalgorithms: tuple[str, ...] = key(
        ListOf("a list of algorithms", choice(*ALGORITHMS)),
        "The accepted signature algorithms. A key is only used with the algorithms of its type.",
        default=ALGORITHMS,
    )
    autoredirect: bool = key(
        boolean(), "In challenges, name the host of the request instead of ``realm``."
    )
    autoredirectpath: str = key(
        Scalar("a path that begins with /", values.matching(_URL_PATH)),
        "The path of the token server on the host that ``autoredirect`` names.",
        default="/auth/token",
    )


class Auth(SectionBase):
    """``auth``: at most one key."""

    none: object = key(
        OpaqueSection(), "No authentication: every client may do everything, as without ``auth``."
    )
    silly: Silly | None = key(
        Section(Silly, allows_empty=True),
        "Accept any request that has an Authorization header, whatever its value. For tests only.",
    )
    htpasswd: Htpasswd | None = key(
        Section(Htpasswd, allows_empty=True),
        "Authenticate users by name and password.",
    )
    token: Token | None = key(
        Section(Token, allows_empty=True),
        "Accept tokens (JWT) of a separate token server. Needs the extra ``auth``.",
    )
    plugin: Plugin | None = key(
        Section(Plugin, allows_empty=True),
        "Ask the access controller of another package, named by its entry point in the group"
        " ``twisted_registry.auth``. It decides everything: ``access`` has no place beside it.",
        extension=True,
    )

    @property
    def is_enabled(self) -> bool:
        """Whether clients have to authenticate."""
        return bool(self.schemes)

    @property
    def schemes(self) -> tuple[str, ...]:
        """The configured ways of authentication; at most one, once checked."""
        return tuple(
            name
            for name in ("silly", "htpasswd", "token", "plugin")
            if getattr(self, name) is not None
        )


class Rule(SectionBase):
    """``access.rules[]``."""

    repositories: tuple[str, ...] = patterns_key(
        "Where: names and patterns of repositories, such as ``library/*``, ``team/**`` or ``**``. A"
        " pattern with ``!`` in front excludes what the others include."
    )
    users: tuple[str, ...] = key(text_list("a list of users"), "Who: users by name.")
    groups: tuple[str, ...] = key(text_list("a list of groups"), "Who: members of these groups.")
    authenticated: bool = key(boolean(), "Who: every authenticated user.")
    anonymous: bool = key(boolean(), "Who: everyone, authenticated or not.")
    allow: tuple[str, ...] = actions_key(
        "What: ``pull``, ``push`` (which includes ``pull``), ``delete``, or ``admin``, which"
        " includes all of them."
    )


class Tokens(SectionBase):
    """``access.tokens``: the token server of this registry, at ``/auth/token``."""

    disabled: bool = key(boolean(), "Issue no tokens, even if the section would be implied.")
    service: str = key(
        Scalar("text on one line", values.header_value),
        "The name of this registry in challenges and tokens.",
        default="twisted-registry",
    )
    lifetime: float = key(
        _duration_from(_MIN_LIFETIME_S), "How long a token is valid.", default=300.0
    )
    refresh: float = key(
        duration(),
        "How long a refresh token is valid, which ``docker login`` stores instead of the password."
        " 0 issues none.",
        default=30 * 24 * 3600.0,
    )
    refreshlimit: int = key(
        integer(1),
        "How many refresh tokens a user may have. The oldest is deleted when a new one is issued.",
        default=1000,
    )
    signing_key: str = key(
        Scalar(
            "64 hexadecimal digits, as printed by openssl rand -hex 32",
            values.matching(_TOKEN_KEY),
        ),
        "The key that signs tokens, for several registries that do not share a store. If not set, a"
        " random key is created and kept in the store.",
        name="key",
        secret=True,
    )
    keyfile: str = key(
        text("a path"),
        "A file with such a key on each line: the first one signs, all are accepted. It is read"
        " again when it changes.",
    )


class IssuerRule(SectionBase):
    """``access.issuers[].rules[]``."""

    claims: Mapping[str, str] = key(
        MapOf("a mapping of claims to patterns", text()),
        "Which tokens: the claims that must match, all of them. In a pattern ``*`` matches any"
        " characters.",
        required=True,
    )
    repositories: tuple[str, ...] = patterns_key("Where, as in ``access.rules[]``.")
    allow: tuple[str, ...] = actions_key("What, as in ``access.rules[]``.")


class Issuer(SectionBase):
    """``access.issuers[]``: a CI system that signs tokens for its jobs (OpenID Connect)."""

    issuer: str = key(
        Scalar("an http or https URL", values.url),
        "The URL of the issuer, as tokens have it in ``iss``.",
        required=True,
    )
    jwks: str = key(
        Scalar("an http or https URL", values.url),
        "The URL of the issuer's keys. If not set, it is read from the issuer's OpenID"
        " configuration.",
    )
    audience: str = key(
        Scalar("text that is not empty", values.nonempty_text),
        "The audience that tokens must have (``aud``).",
        required=True,
    )
    rules: tuple[IssuerRule, ...] = key(
        ListOf("a list of rules", Section(IssuerRule, strict=True)),
        "What the issuer's tokens may do.",
        required=True,
    )


class Quota(SectionBase):
    """``access.quotas[]``."""

    repositories: tuple[str, ...] = patterns_key("Where, as in ``access.rules[]``.")
    users: tuple[str, ...] = key(
        text_list("a list of users"),
        "Limit what each of these users has pushed, instead of everything in the repositories.",
    )
    authenticated: bool = key(boolean(), "The same for each authenticated user.")
    bytes: int = key(
        size(1),
        "The most bytes that may be stored. More return 403 ``DENIED``, with the numbers.",
        required=True,
    )


class AccessRules(SectionBase):
    """``access``: everything that the section does not allow is denied."""

    anonymous: tuple[str, ...] = actions_key(
        "What everyone may do in every repository, authenticated or not."
    )
    authenticated: tuple[str, ...] = actions_key(
        "What every authenticated user may do in every repository."
    )
    groups: Mapping[str, tuple[str, ...]] = key(
        MapOf("a mapping of groups to lists of users", text_list("a list of users")),
        "Groups and their members.",
    )
    rules: tuple[Rule, ...] = key(
        ListOf("a list of rules", Section(Rule, strict=True)),
        "Further rules. Each one adds to what the others allow.",
    )
    quotas: tuple[Quota, ...] = key(
        ListOf("a list of quotas", Section(Quota, strict=True)),
        "Limits of what is stored. All that apply must allow a push. A section with nothing but"
        " quotas denies nothing else.",
    )
    issuers: tuple[Issuer, ...] = key(
        ListOf("a list of issuers", Section(Issuer, strict=True)),
        "CI systems whose tokens are accepted instead of a password. Needs ``tokens``.",
    )
    tokens: Tokens | None = key(
        Section(Tokens, strict=True, allows_empty=True),
        "Issue and accept tokens. The section is implied if ``auth.htpasswd`` is set and anonymous"
        " clients may do something, because docker without a login only sends requests to"
        " registries that issue tokens. Needs the extra ``auth``.",
    )

    @property
    def has_only_quotas(self) -> bool:
        """Whether the section has quotas and nothing else: then there are no rules."""
        return bool(self.quotas) and self == AccessRules(quotas=self.quotas)

    @property
    def allows_anonymous(self) -> bool:
        """Whether anonymous clients may do anything anywhere."""
        return bool(self.anonymous) or any(rule.anonymous for rule in self.rules)


def effective_tokens(access: AccessRules | None, auth: Auth) -> Tokens | None:
    """Return the settings of the token server; None if this registry issues no tokens."""
    if access is None:
        return None
    implied = auth.htpasswd is not None and access.allows_anonymous
    tokens = access.tokens or (Tokens() if implied else None)
    return None if tokens is None or tokens.disabled else tokens


def check_access(
    access: AccessRules, auth: Auth, login_groups: Collection[str], report: Report
) -> None:
    """Report rules without effect, unknown groups, and tokens that cannot work.

    :param login_groups: groups whose members are not in ``access.groups``, since their logins say
        that they belong to them.
    """
    if auth.plugin is not None and not access.has_only_quotas:
        report.add_fault(
            "access", None, "cannot be used with auth.plugin, which decides everything itself"
        )
        return
    _check_tokens(access.tokens, auth, report)
    if access.issuers and effective_tokens(access, auth) is None:
        report.add_fault("access.issuers", None, "access.tokens is required for issuers")
    _check_issuers(access, report)
    for index, quota in enumerate(access.quotas):
        path = f"access.quotas[{index}]"
        _check_users(path, quota.users, report)
        _check_included(path, quota.repositories, report)
    for index, rule in enumerate(access.rules):
        path = f"access.rules[{index}]"
        if not (rule.users or rule.groups or rule.authenticated or rule.anonymous):
            report.add_fault(
                path, "got no users", "users, groups, authenticated: true or anonymous: true"
            )
        _check_users(path, rule.users, report)
        _check_grant(path, rule, report)
        for group in rule.groups:
            if group not in access.groups and group not in login_groups:
                report.add_warning(
                    f"{path}.groups",
                    f"the group {quote_value(group)} has no members; neither access.groups nor"
                    " http.tls.clientusers has it",
                )


def _check_users(path: str, users: tuple[str, ...], report: Report) -> None:
    if "*" in users:
        report.add_fault(
            f"{path}.users",
            f"got {quote_value('*')}",
            "names of users; use authenticated: true for every authenticated user",
        )


def _check_issuers(access: AccessRules, report: Report) -> None:
    seen: set[str] = set()
    for index, issuer in enumerate(access.issuers):
        path = f"access.issuers[{index}]"
        if issuer.issuer in seen:
            report.add_fault(
                f"{path}.issuer", f"got {quote_value(issuer.issuer)} again", "each issuer once"
            )
        seen.add(issuer.issuer)
        for name in ("issuer", "jwks"):
            url = urlsplit(getattr(issuer, name))
            if url.scheme == "http" and url.hostname not in _LOOPBACK_HOSTS:
                report.add_fault(
                    f"{path}.{name}",
                    f"got {quote_value(url.geturl())}",
                    "an https URL, because keys sent without TLS can be forged",
                )
        for number, rule in enumerate(issuer.rules):
            rule_path = f"{path}.rules[{number}]"
            if not rule.claims:
                report.add_fault(
                    f"{rule_path}.claims",
                    "got none",
                    "a claim such as sub, because an issuer signs tokens for all of its users",
                )
            _check_grant(rule_path, rule, report)


def _check_grant(path: str, rule: Rule | IssuerRule, report: Report) -> None:
    if not rule.allow:
        report.add_fault(f"{path}.allow", "got none", f"some of {', '.join(ACTIONS)}")
    _check_included(path, rule.repositories, report)


def _check_included(path: str, repositories: tuple[str, ...], report: Report) -> None:
    if all(pattern.startswith("!") for pattern in repositories):
        got = quote_value(", ".join(repositories)) if repositories else "none"
        report.add_fault(
            f"{path}.repositories", f"got {got}", "at least one pattern without !, such as **"
        )


def _check_tokens(tokens: Tokens | None, auth: Auth, report: Report) -> None:
    if tokens is None or tokens.disabled:
        return
    others = [name for name in auth.schemes if name != "htpasswd"]
    if others:
        report.add_fault(
            "access.tokens",
            None,
            f"cannot be used with auth.{others[0]}; use auth.htpasswd, or no auth section",
        )
    if tokens.signing_key and tokens.keyfile:
        report.add_fault("access.tokens.key", None, "cannot be used with access.tokens.keyfile")
