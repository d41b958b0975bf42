"""Values of WWW-Authenticate, spelled as Distribution spells them: that is what clients parse."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from twisted_registry.auth.interfaces import Access


def basic_challenge(realm: str) -> str:
    """Ask for a name and a password (RFC 7617 section 2)."""
    return f"Basic realm={quote_string(realm)}"


def bearer_challenge(realm: str, service: str, scope: str = "", error: str = "") -> str:
    """Ask for a token (RFC 6750 section 3, and Distribution's token scheme).

    :param realm: the URL that gives tokens.
    :param scope: what the token has to be good for, or empty.
    :param error: what was wrong with the one that was shown, or empty.
    """
    value = f"Bearer realm={quote_string(realm)},service={quote_string(service)}"
    if scope:
        value += f",scope={quote_string(scope)}"
    if error:
        value += f",error={quote_string(error)}"
    return value


def format_scope(accesses: Iterable[Access]) -> str:
    """The scope of a token for these: ``repository:a/b:pull,push``, with spaces between."""
    actions: dict[tuple[str, str], list[str]] = {}
    for access in accesses:
        of = actions.setdefault((access.type, access.name), [])
        if access.action not in of:
            of.append(access.action)
    return " ".join(f"{type_}:{name}:{','.join(of)}" for (type_, name), of in actions.items())


def format_scope_by_action(accesses: Sequence[Access]) -> str:
    """The scope with each action apart: ``repository:a/b:pull repository:a/b:push``."""
    return " ".join(f"{access.type}:{access.name}:{access.action}" for access in accesses)


def quote_string(text: str) -> str:
    r"""Text as a quoted string (RFC 9110 section 5.6.4)."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
