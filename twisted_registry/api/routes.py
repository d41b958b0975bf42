"""Routes are data: what each endpoint is called, takes, and needs.

Names hold slashes, so paths are matched from the right. The identifiers end-1 to end-14 are
those of the distribution specification.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from attrs import field, frozen

from twisted_registry.auth.interfaces import CATALOG, Access, Action
from twisted_registry.digest import Digest, DigestInvalid
from twisted_registry.reference import TagInvalid, is_name, parse_reference
from twisted_registry.value import Value

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Methods that an operator can switch off with a read-only registry.
WRITING = frozenset({"POST", "PUT", "PATCH", "DELETE"})

_READ: tuple[Action, ...] = ("pull",)
_WRITE: tuple[Action, ...] = ("pull", "push")
_DELETE: tuple[Action, ...] = ("delete",)


@frozen(eq=False, repr=False)
class Endpoint(Value):
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
    """An endpoint, and what its path says.

    :ivar sound: whether the name, if there has to be one, is one.
    :ivar value: what the variable means; None if it means nothing, or is an upload's id.
    """

    endpoint: Endpoint
    name: str = ""
    variable: str = ""
    sound: bool = True
    value: Digest | str | None = None
    _needs: dict[str, tuple[Access, ...]] = field(factory=dict, init=False, eq=False, repr=False)

    def accesses(self, method: str, source: str | None = None) -> tuple[Access, ...]:
        """What a request needs.

        :param method: one that the endpoint takes.
        :param source: the repository that a blob is to be mounted from.
        """
        needed = self._needs.get(method)
        if needed is None:
            needed = self._needs[method] = self._find_accesses(method)
        return needed if source is None else (*needed, Access("repository", source, "pull"))

    def _find_accesses(self, method: str) -> tuple[Access, ...]:
        if self.endpoint.handler == "catalog":
            return (CATALOG,)
        if not self.endpoint.named:
            return ()
        actions = self.endpoint.actions.get(method, ())
        return _accesses(self.name, actions)


@lru_cache(maxsize=4096)
def _accesses(name: str, actions: tuple[Action, ...]) -> tuple[Access, ...]:
    """What is done to a repository; one object for all of its paths, as whoever decides may
    remember what was asked.
    """
    return tuple(Access("repository", name, action) for action in actions)


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

#: Ours: a whole repository, whose name is all that follows. No name begins so.
REPOSITORY = Endpoint("repository", (), {"DELETE": _DELETE})
_REPOSITORY = "_repository"

ALL_ENDPOINTS = (BASE, CATALOG_LIST, EXTENSIONS, REPOSITORY, *ENDPOINTS)

#: Of the paths that are remembered.
_SEGMENTS = 12
_CHARACTERS = 256

_UNNAMED = {endpoint.tail: endpoint for endpoint in (BASE, CATALOG_LIST, EXTENSIONS)}


def find(path: tuple[bytes, ...]) -> Match | None:
    """Find the endpoint for what stands behind ``/v2/``.

    :param path: segments, as twisted.web decodes them.
    :returns: None also if they are not text or hide a slash.
    """
    # Only paths of a usual length are remembered: nobody shall fill our memory with others.
    usual = len(path) <= _SEGMENTS and sum(map(len, path)) <= _CHARACTERS
    return _remembered(path) if usual else _find(path)


def match(segments: tuple[str, ...]) -> Match | None:
    """Find the endpoint for decoded segments.

    :param segments: an empty last one (a trailing slash) is dropped.
    :returns: the match, or None.
    """
    path = segments[:-1] if segments and not segments[-1] else segments
    unnamed = _UNNAMED.get(path)
    if unnamed is not None:
        return Match(unnamed)
    if path and path[0] == _REPOSITORY:
        name = "/".join(path[1:])
        return Match(REPOSITORY, name, sound=is_name(name)) if name else None
    for endpoint in ENDPOINTS:
        head, tail = path[: -len(endpoint.tail)], path[-len(endpoint.tail) :]
        if head and _fits(endpoint.tail, tail):
            name, variable = "/".join(head), tail[-1] if endpoint.variable else ""
            return Match(endpoint, name, variable, is_name(name), _meaning(endpoint, variable))
    return None


def _find(path: tuple[bytes, ...]) -> Match | None:
    try:
        segments = tuple(segment.decode("utf-8") for segment in path)
    except UnicodeDecodeError:
        return None
    return None if any("/" in segment for segment in segments) else match(segments)


_remembered = lru_cache(maxsize=4096)(_find)


def _meaning(endpoint: Endpoint, variable: str) -> Digest | str | None:
    try:
        if endpoint.variable == "reference":
            return parse_reference(variable)
        return Digest.parse(variable) if endpoint.variable == "digest" else None
    except (DigestInvalid, TagInvalid):
        return None


def _fits(pattern: tuple[str, ...], tail: tuple[str, ...]) -> bool:
    return all(want in ("*", part) for want, part in zip(pattern, tail, strict=True))
