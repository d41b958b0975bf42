"""Glob patterns for repository names, such as ``library/*`` or ``team/**``, and for tags.

``*`` matches any part of one component, ``**`` any number of components: ``team/**`` matches
everything below ``team``, ``**/cache`` every ``cache``, and ``**`` everything. In a list, a pattern
with a leading ``!`` excludes names, wherever in the list it is.

A tag has one component: ``v*`` and ``*-rc*`` match tags, ``*`` matches every tag.

Matching takes linear time: the text between two stars is matched at its first occurrence, and
atomic groups prevent backtracking over more than one component.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attrs import field, frozen

from twisted_registry.oci.names import MAX_NAME_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: Description of a valid pattern, for error messages.
GLOB_SYNTAX = (
    "a repository name in which * matches any part of a component and ** any number of components,"
    " such as library/* or team/**; a leading ! excludes"
)
#: Description of a valid pattern for tags, for error messages.
TAG_GLOB_SYNTAX = "a tag in which * matches any part, such as v* or *-rc*; a leading ! excludes"
_ANY_DEPTH = "**"
_COMPONENT_RE = re.compile(r"[a-z0-9._*-]+", re.ASCII)
_TAG_RE = re.compile(r"[A-Za-z0-9_.*-]{1,128}", re.ASCII)


class GlobInvalid(ValueError):
    """The text is not a valid pattern."""


@frozen
class Glob:
    """One pattern, without a leading ``!``.

    :ivar text: the pattern.
    """

    text: str
    _pattern: re.Pattern[str] = field(repr=False, eq=False)

    @classmethod
    def parse(cls, text: str) -> Glob:
        """Parse a pattern for repository names.

        :raises GlobInvalid: if it is not a pattern, or cannot match any name.
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
        """Parse a pattern for tags.

        :raises GlobInvalid: if it is not a pattern, or cannot match any tag.
        """
        if not _TAG_RE.fullmatch(text) or _ANY_DEPTH in text:
            raise GlobInvalid(text[:MAX_NAME_LENGTH])
        return cls(text, re.compile(_component_regex(text), re.ASCII))

    @property
    def matches_everything(self) -> bool:
        """Whether it matches every repository name."""
        return self.text == _ANY_DEPTH

    @property
    def prefix(self) -> str:
        """The common prefix of all matching names."""
        return self.text.partition("*")[0]

    def matches(self, name: str) -> bool:
        """Whether a repository name or tag matches."""
        return self._pattern.fullmatch(name) is not None


@frozen
class GlobSet:
    """The names that match a list of patterns."""

    included: tuple[Glob, ...]
    excluded: tuple[Glob, ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str], parse_glob: Callable[[str], Glob] = Glob.parse) -> GlobSet:
        """Parse a list of patterns.

        :param parse_glob: parses one of them; :meth:`Glob.parse_tag` for tags.
        :raises GlobInvalid: with the first invalid pattern.
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
        """Whether every repository name matches."""
        return not self.excluded and any(glob.matches_everything for glob in self.included)

    def __contains__(self, name: str) -> bool:
        return any(glob.matches(name) for glob in self.included) and not any(
            glob.matches(name) for glob in self.excluded
        )


def _path_regex(components: list[str]) -> str:
    """Return a regular expression: groups of components, with any number of others between them."""
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
    # A group has a fixed number of components, so its first match is as good as any.
    parts += [f"(?>(?:[^/]+/)*?{group}/)" for group in between if group]
    parts.append(f"(?:[^/]+/)*{last}" if last else ".+")
    return "".join(parts)


def _component_regex(text: str) -> str:
    """Return a regular expression for a component with stars."""
    first, *others = map(re.escape, text.split("*"))
    if not others:
        return first
    *between, last = others
    inner = "".join(f"(?>[^/]*?{part})" for part in between if part)
    # A single star is a whole component, and a component is never empty.
    not_empty = "(?=[^/])" if text == "*" else ""
    return f"{not_empty}{first}{inner}[^/]*{last}(?![^/])"
