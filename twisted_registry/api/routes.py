"""Routes are data: what each endpoint is called, takes, and needs.

Names hold slashes, so paths are matched from the right. The identifiers end-1 to end-14 are
those of the distribution specification.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from attrs import frozen

from twisted_registry.auth.interfaces import CATALOG, Access, Action

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Methods that an operator can switch off with a read-only registry.
WRITING = frozenset({"POST", "PUT", "PATCH", "DELETE"})

_READ: tuple[Action, ...] = ("pull",)
_WRITE: tuple[Action, ...] = ("pull", "push")
_DELETE: tuple[Action, ...] = ("delete",)


@frozen
class Endpoint:
    """One row of the table.

    :ivar handler: the name in metrics and logs; Distribution's where it has one.
    :ivar tail: what the path ends with, behind the name; ``*`` is a variable.
    :ivar variable: what the ``*`` is called.
    :ivar actions: method -> what it does to the repository.
    :ivar named: whether a repository's name stands in front.
    """

    handler: str
    tail: tuple[str, ...]
    actions: Mapping[str, tuple[Action, ...]]
    variable: str = ""
    named: bool = True

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that it takes."""
        return tuple(self.actions)


@frozen
class Match:
    """An endpoint, and what its path says."""

    endpoint: Endpoint
    name: str = ""
    variable: str = ""

    def accesses(self, method: str, source: str | None = None) -> tuple[Access, ...]:
        """What a request needs.

        :param source: the repository that a blob is to be mounted from.
        """
        if self.endpoint.handler == "catalog":
            return (CATALOG,)
        actions = self.endpoint.actions.get(method, ())
        accesses = tuple(Access("repository", self.name, action) for action in actions)
        if source is not None:
            accesses += (Access("repository", source, "pull"),)
        return accesses if self.endpoint.named else ()


BASE = Endpoint("base", (), {"GET": (), "HEAD": ()}, named=False)  # end-1
CATALOG_LIST = Endpoint("catalog", ("_catalog",), {"GET": (), "HEAD": ()}, named=False)
EXTENSIONS = Endpoint(
    "extensions", ("_oci", "ext", "discover"), {"GET": (), "HEAD": ()}, named=False
)

ENDPOINTS = (
    # end-8a, end-8b
    Endpoint("tags", ("tags", "list"), {"GET": _READ, "HEAD": _READ}),
    # end-3, end-7, end-9
    Endpoint(
        "manifest",
        ("manifests", "*"),
        {"GET": _READ, "HEAD": _READ, "PUT": _WRITE, "DELETE": _DELETE},
        "reference",
    ),
    # end-4, end-11
    Endpoint("blob_upload", ("blobs", "uploads"), {"POST": _WRITE}),
    # end-5, end-6, end-13, end-14; looking at an upload and giving it up belong to pushing
    Endpoint(
        "blob_upload_chunk",
        ("blobs", "uploads", "*"),
        {"GET": _WRITE, "HEAD": _WRITE, "PATCH": _WRITE, "PUT": _WRITE, "DELETE": _WRITE},
        "upload",
    ),
    # end-2, end-10
    Endpoint("blob", ("blobs", "*"), {"GET": _READ, "HEAD": _READ, "DELETE": _DELETE}, "digest"),
    # end-12a, end-12b
    Endpoint("referrers", ("referrers", "*"), {"GET": _READ, "HEAD": _READ}, "digest"),
    Endpoint("extensions", ("_oci", "ext", "discover"), {"GET": _READ, "HEAD": _READ}),
)

ALL_ENDPOINTS = (BASE, CATALOG_LIST, EXTENSIONS, *ENDPOINTS)

#: Of the paths that are remembered.
_SEGMENTS = 12
_CHARACTERS = 256

_UNNAMED = {endpoint.tail: endpoint for endpoint in (BASE, CATALOG_LIST, EXTENSIONS)}


def match(segments: tuple[str, ...]) -> Match | None:
    """Find the endpoint for what stands behind ``/v2/``.

    :param segments: decoded path segments; an empty last one (a trailing slash) is dropped.
    :returns: the match with its name unchecked, or None.
    """
    # Only paths of a usual length are remembered: nobody shall fill our memory with others.
    usual = len(segments) <= _SEGMENTS and sum(map(len, segments)) <= _CHARACTERS
    return _remembered(segments) if usual else _find(segments)


def _find(segments: tuple[str, ...]) -> Match | None:
    path = segments[:-1] if segments and not segments[-1] else segments
    unnamed = _UNNAMED.get(path)
    if unnamed is not None:
        return Match(unnamed)
    for endpoint in ENDPOINTS:
        head, tail = path[: -len(endpoint.tail)], path[-len(endpoint.tail) :]
        if head and _fits(endpoint.tail, tail):
            variable = tail[-1] if endpoint.variable else ""
            return Match(endpoint, "/".join(head), variable)
    return None


_remembered = lru_cache(maxsize=4096)(_find)


def _fits(pattern: tuple[str, ...], tail: tuple[str, ...]) -> bool:
    return all(want in ("*", part) for want, part in zip(pattern, tail, strict=True))
