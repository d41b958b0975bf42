"""The table of endpoints, and the search for the endpoint of a path.

Repository names contain slashes, so paths are matched from the right. The identifiers end-1 to
end-14 are those of the distribution specification.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from attrs import frozen

from twisted_registry.auth.interfaces import CATALOG, Access, Action
from twisted_registry.oci.digest import Digest, DigestInvalid
from twisted_registry.oci.names import TagInvalid, is_name, parse_reference

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Methods that a read-only registry refuses.
WRITE_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})

#: Limits of a path that is cached, so that unusual ones cannot fill the memory.
_MAX_CACHED_SEGMENTS = 12
_MAX_CACHED_CHARACTERS = 256
_MAX_CACHED_PATHS = 4096
#: Pairs of repository and actions whose accesses are cached.
_MAX_CACHED_ACCESSES = 4096

_PULL: tuple[Action, ...] = ("pull",)
_PUSH: tuple[Action, ...] = ("pull", "push")
_DELETE: tuple[Action, ...] = ("delete",)


@frozen
class Endpoint:
    """One row of the table.

    :ivar handler: the name in metrics and logs; that of Distribution where it has one.
    :ivar tail: the path segments after the repository name; ``*`` is a variable.
    :ivar actions: method -> required actions on the repository.
    :ivar variable: the name of the ``*``.
    :ivar has_name: whether the path begins with a repository name.
    """

    handler: str
    tail: tuple[str, ...]
    actions: Mapping[str, tuple[Action, ...]]
    variable: str = ""
    has_name: bool = True

    @property
    def methods(self) -> tuple[str, ...]:
        """The supported methods."""
        return tuple(self.actions)


BASE = Endpoint("base", (), {"GET": (), "HEAD": ()}, has_name=False)  # end-1
CATALOG_LIST = Endpoint("catalog", ("_catalog",), {"GET": (), "HEAD": ()}, has_name=False)
EXTENSIONS = Endpoint(
    "extensions", ("_oci", "ext", "discover"), {"GET": (), "HEAD": ()}, has_name=False
)

ENDPOINTS = (
    # end-8a, end-8b
    Endpoint("tags", ("tags", "list"), {"GET": _PULL, "HEAD": _PULL}),
    # end-3, end-7, end-9
    Endpoint(
        "manifest",
        ("manifests", "*"),
        {"GET": _PULL, "HEAD": _PULL, "PUT": _PUSH, "DELETE": _DELETE},
        "reference",
    ),
    # end-4, end-11
    Endpoint("blob_upload", ("blobs", "uploads"), {"POST": _PUSH}),
    # end-5, end-6, end-13, end-14; the status and the cancellation of an upload need push access
    Endpoint(
        "blob_upload_chunk",
        ("blobs", "uploads", "*"),
        {"GET": _PUSH, "HEAD": _PUSH, "PATCH": _PUSH, "PUT": _PUSH, "DELETE": _PUSH},
        "upload",
    ),
    # end-2, end-10
    Endpoint("blob", ("blobs", "*"), {"GET": _PULL, "HEAD": _PULL, "DELETE": _DELETE}, "digest"),
    # end-12a, end-12b
    Endpoint("referrers", ("referrers", "*"), {"GET": _PULL, "HEAD": _PULL}, "digest"),
    Endpoint("extensions", ("_oci", "ext", "discover"), {"GET": _PULL, "HEAD": _PULL}),
)

#: Extension: a whole repository; its name is the rest of the path.
REPOSITORY = Endpoint("repository", (), {"DELETE": _DELETE})
#: No repository name begins with an underscore.
_REPOSITORY_PREFIX = "_repository"

ALL_ENDPOINTS = (BASE, CATALOG_LIST, EXTENSIONS, REPOSITORY, *ENDPOINTS)

_ENDPOINTS_WITHOUT_NAME = {endpoint.tail: endpoint for endpoint in (BASE, CATALOG_LIST, EXTENSIONS)}


@frozen
class RouteMatch:
    """An endpoint, and the values in its path.

    :ivar name: the repository name; empty for an endpoint without one.
    :ivar name_is_valid: whether ``name`` has the form of a repository name.
    :ivar parsed: the variable as a digest or tag; None if it is malformed, or an upload id.
    """

    endpoint: Endpoint
    name: str = ""
    variable: str = ""
    name_is_valid: bool = True
    parsed: Digest | str | None = None

    def required_access(self, method: str, source: str | None = None) -> tuple[Access, ...]:
        """Return the access that a request needs.

        :param method: a method that the endpoint supports.
        :param source: the repository that a blob is to be mounted from.
        """
        if self.endpoint.handler == "catalog":
            return (CATALOG,)
        if not self.endpoint.has_name:
            return ()
        needed = _accesses_of(self.name, self.endpoint.actions.get(method, ()))
        return needed if source is None else (*needed, Access("repository", source, "pull"))


@lru_cache(maxsize=_MAX_CACHED_ACCESSES)
def _accesses_of(repository: str, actions: tuple[Action, ...]) -> tuple[Access, ...]:
    return tuple([Access("repository", repository, action) for action in actions])


def find_route(path: tuple[bytes, ...]) -> RouteMatch | None:
    """Find the endpoint for the path after ``/v2/``.

    :param path: segments, as twisted.web decodes them.
    :returns: None if there is no such endpoint, if a segment contains a slash, or if it is not
        valid UTF-8.
    """
    cacheable = len(path) <= _MAX_CACHED_SEGMENTS and sum(map(len, path)) <= _MAX_CACHED_CHARACTERS
    return _find_route_cached(path) if cacheable else _find_route(path)


def match_path(segments: tuple[str, ...]) -> RouteMatch | None:
    """Find the endpoint for decoded segments.

    :param segments: an empty last one (a trailing slash) is ignored.
    """
    path = segments[:-1] if segments and not segments[-1] else segments
    without_name = _ENDPOINTS_WITHOUT_NAME.get(path)
    if without_name is not None:
        return RouteMatch(without_name)
    if path and path[0] == _REPOSITORY_PREFIX:
        name = "/".join(path[1:])
        return RouteMatch(REPOSITORY, name, name_is_valid=is_name(name)) if name else None
    for endpoint in ENDPOINTS:
        head, tail = path[: -len(endpoint.tail)], path[-len(endpoint.tail) :]
        if head and _tail_matches(endpoint.tail, tail):
            name, variable = "/".join(head), tail[-1] if endpoint.variable else ""
            return RouteMatch(
                endpoint, name, variable, is_name(name), _parse_variable(endpoint, variable)
            )
    return None


def _find_route(path: tuple[bytes, ...]) -> RouteMatch | None:
    try:
        segments = tuple(segment.decode("utf-8") for segment in path)
    except UnicodeDecodeError:
        return None
    return None if any("/" in segment for segment in segments) else match_path(segments)


_find_route_cached = lru_cache(maxsize=_MAX_CACHED_PATHS)(_find_route)


def _parse_variable(endpoint: Endpoint, variable: str) -> Digest | str | None:
    try:
        if endpoint.variable == "reference":
            return parse_reference(variable)
        return Digest.parse(variable) if endpoint.variable == "digest" else None
    except (DigestInvalid, TagInvalid):
        return None


def _tail_matches(pattern: tuple[str, ...], tail: tuple[str, ...]) -> bool:
    return all(want in ("*", part) for want, part in zip(pattern, tail, strict=True))
