"""Patterns that choose repositories, as ``library/*``, ``team/**`` or ``!team/secret``, and tags.

A ``*`` stands for any part of one component, ``**`` for any number of components: ``team/**`` is
all below ``team``, ``**/cache`` is every ``cache``, ``**`` alone is everything. In a list of
patterns one with ``!`` in front takes away what the others choose, wherever it stands.

A tag has one component: ``v*`` and ``*-rc*`` choose tags, ``*`` is every one.

Matching never backtracks over more than one component, however a pattern is written: the text
between two stars is right wherever it is found first.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attrs import field, frozen

from twisted_registry.oci.names import MAX_NAME_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: What a pattern has to be, for whoever reports a wrong one.
GLOB_SYNTAX = (
    "a repository's name, in which * stands for any part of a component and ** for any number of"
    " them, as library/* or team/**; with ! in front to take it away"
)
#: Likewise of a pattern for tags.
TAG_GLOB_SYNTAX = (
    "a tag, in which * stands for any part of it, as v* or *-rc*; with ! in front to take it away"
)
_ANY_DEPTH = "**"
_COMPONENT_RE = re.compile(r"[a-z0-9._*-]+", re.ASCII)
_TAG_RE = re.compile(r"[A-Za-z0-9_.*-]{1,128}", re.ASCII)


class GlobInvalid(ValueError):
    """The text is not a pattern."""


@frozen
class Glob:
    """One pattern, without ``!``.

    :ivar text: as it was written.
    """

    text: str
    _pattern: re.Pattern[str] = field(repr=False, eq=False)

    @classmethod
    def parse(cls, text: str) -> Glob:
        """Read a pattern.

        :raises GlobInvalid: if it could match no name, or is not one.
        """
        components = text.split("/")
        for component in components:
            is_valid = _COMPONENT_RE.fullmatch(component) is not None
            if not is_valid or (_ANY_DEPTH in component and component != _ANY_DEPTH):
                raise GlobInvalid(text[:MAX_NAME_LENGTH])
        if len(text) > MAX_NAME_LENGTH:
            raise GlobInvalid(text[:MAX_NAME_LENGTH])
        return cls(text, re.compile(_path_regex(components), re.ASCII))

    @classmethod
    def parse_tag(cls, text: str) -> Glob:
        """Read a pattern for tags.

        :raises GlobInvalid: if it could match no tag.
        """
        if not _TAG_RE.fullmatch(text) or _ANY_DEPTH in text:
            raise GlobInvalid(text[:MAX_NAME_LENGTH])
        return cls(text, re.compile(_component_regex(text), re.ASCII))

    @property
    def matches_everything(self) -> bool:
        """Whether it matches every name of a repository."""
        return self.text == _ANY_DEPTH

    @property
    def prefix(self) -> str:
        """What every name that it matches begins with."""
        return self.text.partition("*")[0]

    def matches(self, name: str) -> bool:
        """Whether the name of a repository, or a tag, is of this form."""
        return self._pattern.fullmatch(name) is not None


@frozen
class GlobSet:
    """What a list of patterns chooses."""

    included: tuple[Glob, ...]
    excluded: tuple[Glob, ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str], parse_glob: Callable[[str], Glob] = Glob.parse) -> GlobSet:
        """Read a list of patterns.

        :param read: reads one of them; :meth:`Glob.parse_tag` where they are for tags.
        :raises GlobInvalid: with the first that is none.
        """
        included, excluded = [], []
        for text in texts:
            if text.startswith("!"):
                excluded.append(parse_glob(text[1:]))
            else:
                included.append(parse_glob(text))
        return cls(tuple(included), tuple(excluded))

    @property
    def matches_everything(self) -> bool:
        """Whether every name is chosen, now and in future."""
        return not self.excluded and any(glob.matches_everything for glob in self.included)

    def __contains__(self, name: str) -> bool:
        return any(glob.matches(name) for glob in self.included) and not any(
            glob.matches(name) for glob in self.excluded
        )


def _path_regex(components: list[str]) -> str:
    """A regular expression: stretches of components, with any number of others between them."""
    groups: list[list[str]] = [[]]
    for component in components:
        if component == _ANY_DEPTH:
            groups.append([])
        else:
            groups[-1].append(_component_regex(component))
    first, *others = ["/".join(group) for group in groups]
    if not others:
        return first
    *between, last = others
    parts = [f"{first}/" if first else ""]
    # A stretch has a fixed number of components, so the first place that fits is as good as any.
    parts += [f"(?>(?:[^/]+/)*?{group}/)" for group in between if group]
    parts.append(f"(?:[^/]+/)*{last}" if last else ".+")
    return "".join(parts)


def _component_regex(text: str) -> str:
    """A regular expression for a component with stars in it."""
    first, *others = map(re.escape, text.split("*"))
    if not others:
        return first
    *between, last = others
    inner = "".join(f"(?>[^/]*?{part})" for part in between if part)
    # A lone star is a component, too, and a component is never empty.
    least = "(?=[^/])" if text == "*" else ""
    return f"{least}{first}{inner}[^/]*{last}(?![^/])"
