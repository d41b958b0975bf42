"""What public registries refuse or lack, for the tests of clients.

::

    with Registry(profile=profiles.ghcr()) as registry:
        ...

A profile is a list of behaviours. Each cites the public documentation, issue or source file that it
was taken from; what has no such source is left out. Services change: a profile shows what its
sources describe.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qsl, urlencode

from attrs import define, field, frozen

from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.testing.faults import Answer, Effect, error_response
from twisted_registry.testing.matching import RequestPattern

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from twisted_registry.testing.faulty_request import FaultPlan

MIB = 1024 * 1024
_REPOSITORY_RE = re.compile(r".*?/v2/(.+)/(?:manifests|blobs|tags|referrers)/.*")

MakeEffect: TypeAlias = "Callable[[], Effect]"


@frozen
class Behaviour:
    """One difference from this registry.

    :ivar description: what the registry does.
    :ivar source: the URL of the public document that says so.
    :ivar pattern: the requests in question.
    :ivar make_effect: makes the effect, which may keep state for one registry.
    """

    description: str
    source: str
    pattern: RequestPattern
    make_effect: MakeEffect = field(repr=False)


@frozen
class Profile:
    """The behaviours of one registry.

    :ivar name: the name of the registry.
    """

    name: str
    behaviours: tuple[Behaviour, ...]


def docker_hub(pulls: int = 100, per: float = 6 * 3600) -> Profile:
    """Return what Docker Hub refuses and limits.

    * No deletes: 405. https://github.com/docker/hub-feedback/issues/2360
    * No referrers API. https://github.com/docker/roadmap/issues/724
    * ``_catalog`` is refused with 401. https://github.com/docker/hub-feedback/issues/2094
    * A limit of pulls: 429 with TOOMANYREQUESTS, and the headers ``ratelimit-limit`` and
      ``ratelimit-remaining``; a GET of a manifest counts, HEAD does not.
      https://docs.docker.com/docker-hub/usage/pulls/

    :param pulls: GET requests of manifests that are answered in each period, for all clients
        together.
    :param per: the length of a period in seconds.
    """
    limits = _PullLimit(pulls, per)
    return Profile(
        "Docker Hub",
        (
            _no_deletes("https://github.com/docker/hub-feedback/issues/2360"),
            *_no_referrers("https://github.com/docker/roadmap/issues/724"),
            _behaviour(
                "the catalog is refused",
                "https://github.com/docker/hub-feedback/issues/2094",
                "GET",
                "_catalog",
                _RefuseCatalog,
            ),
            _behaviour(
                f"{pulls} pulls in {per:g} seconds",
                "https://docs.docker.com/docker-hub/usage/pulls/",
                "*",
                "manifests",
                limits.make,
            ),
        ),
    )


def ghcr() -> Profile:
    """Return what GitHub's container registry refuses and lacks.

    * No deletes: 405. https://github.com/podman-container-tools/skopeo/issues/1880
    * No referrers API: 404. https://github.com/rtvkiz/minimal/issues/7
    * Chunks of uploads of at most 4 MiB: 416.
      https://github.com/oras-project/rust-oci-client/issues/35
    """
    return Profile(
        "GHCR",
        (
            _no_deletes("https://github.com/podman-container-tools/skopeo/issues/1880"),
            *_no_referrers("https://github.com/rtvkiz/minimal/issues/7"),
            _behaviour(
                "chunks have at most 4 MiB",
                "https://github.com/oras-project/rust-oci-client/issues/35",
                "PATCH",
                "blobs/uploads",
                lambda: _LargestChunk(4 * MIB),
            ),
        ),
    )


def ecr(repositories: Collection[str] | None = None) -> Profile:
    """Return what Amazon ECR refuses and lacks.

    * Repositories have to exist before a push: 404 NAME_UNKNOWN.
      https://github.com/aws/containers-roadmap/issues/853
    * A PATCH of an upload is answered 201. https://github.com/openai/tart/issues/273
    * All chunks but the last must have 5 MiB; a smaller one fails the upload at its end.
      https://github.com/dotnet/sdk-container-builds/issues/424
    * A mount starts an upload, unless an administrator has enabled mounts.
      https://docs.aws.amazon.com/AmazonECR/latest/userguide/blob-mounting.html
    * Responses with manifests have no ``Docker-Content-Digest``.
      https://github.com/distribution/distribution/issues/3792

    :param repositories: the repositories that exist; None for any.
    """
    exists: tuple[Behaviour, ...] = ()
    if repositories is not None:
        names = frozenset(repositories)
        exists = (
            _behaviour(
                "repositories have to exist",
                "https://github.com/aws/containers-roadmap/issues/853",
                "*",
                "",
                lambda: _OnlyRepositories(names),
            ),
        )
    return Profile(
        "ECR",
        (
            *exists,
            _behaviour(
                "a PATCH is answered 201",
                "https://github.com/openai/tart/issues/273",
                "PATCH",
                "blobs/uploads",
                lambda: _OtherStatus(202, 201),
            ),
            _behaviour(
                "chunks but the last have at least 5 MiB",
                "https://github.com/dotnet/sdk-container-builds/issues/424",
                "*",
                "blobs/uploads",
                lambda: _SmallestChunk(5 * MIB),
            ),
            _behaviour(
                "a mount starts an upload",
                "https://docs.aws.amazon.com/AmazonECR/latest/userguide/blob-mounting.html",
                "POST",
                "blobs/uploads",
                lambda: _DropQuery(("mount", "from")),
            ),
            _no_digest("https://github.com/distribution/distribution/issues/3792"),
        ),
    )


def quay() -> Profile:
    """Return what Quay refuses.

    * No deletes of blobs: 405. https://github.com/quay/quay/blob/master/endpoints/v2/blob.py
    * A mount without ``from`` is 400, before version 3.6. https://github.com/quay/quay/pull/899
    """
    return Profile(
        "Quay",
        (
            _behaviour(
                "blobs are not deleted",
                "https://github.com/quay/quay/blob/master/endpoints/v2/blob.py",
                "DELETE",
                "blobs/*:*",
                _answer(405),
            ),
            _behaviour(
                "a mount needs from",
                "https://github.com/quay/quay/pull/899",
                "POST",
                "blobs/uploads",
                _RefuseAnonymousMount,
            ),
        ),
    )


def distribution_2() -> Profile:
    """Return what version 2 of CNCF Distribution (``registry:2``) lacks in its default form.

    * No referrers API. https://github.com/distribution/distribution/issues/3859
    * No deletes: 405. https://github.com/distribution/distribution/issues/1222
    * A POST with a digest and a body starts an upload.
      https://github.com/distribution/distribution/issues/3230
    * A mount without ``from`` starts an upload.
      https://github.com/distribution/distribution/pull/1269
    """
    return Profile(
        "Distribution 2",
        (
            *_no_referrers("https://github.com/distribution/distribution/issues/3859"),
            _no_deletes("https://github.com/distribution/distribution/issues/1222"),
            _behaviour(
                "a POST with a digest starts an upload",
                "https://github.com/distribution/distribution/issues/3230",
                "POST",
                "blobs/uploads",
                lambda: _DropQuery(("digest",)),
            ),
            _behaviour(
                "a mount without from starts an upload",
                "https://github.com/distribution/distribution/pull/1269",
                "POST",
                "blobs/uploads",
                lambda: _DropQuery(("mount",), unless="from"),
            ),
        ),
    )


def without_digests() -> Profile:
    """Return a registry whose manifests come without ``Docker-Content-Digest``.

    Red Hat's registry did so. https://github.com/containerd/containerd/issues/3238
    """
    return Profile(
        "without digests", (_no_digest("https://github.com/containerd/containerd/issues/3238"),)
    )


def _behaviour(
    description: str, source: str, method: str, path: str, make_effect: MakeEffect
) -> Behaviour:
    return Behaviour(description, source, RequestPattern.make(method, path), make_effect)


def _answer(status: int, headers: Mapping[str, str] | None = None) -> MakeEffect:
    return lambda: Answer(error_response(status, headers or {}))


def _no_deletes(source: str) -> Behaviour:
    return _behaviour("manifests are not deleted", source, "DELETE", "manifests", _answer(405))


def _no_referrers(source: str) -> tuple[Behaviour, ...]:
    # A client learns from the missing OCI-Subject that it has to maintain the tag of referrers
    # (distribution specification, "Pushing manifests with subject").
    return (
        _behaviour("there is no referrers API", source, "*", "referrers", _answer(404)),
        _behaviour(
            "a push does not confirm the subject",
            source,
            "PUT",
            "manifests",
            lambda: _DropHeaders(frozenset({"oci-subject"})),
        ),
    )


def _no_digest(source: str) -> Behaviour:
    return _behaviour(
        "manifests come without Docker-Content-Digest",
        source,
        "*",
        "manifests",
        lambda: _DropHeaders(frozenset({"docker-content-digest"}), frozenset({b"GET", b"HEAD"})),
    )


@frozen(eq=False, repr=False)
class _DropHeaders:
    names: frozenset[str]
    methods: frozenset[bytes] | None = None

    def apply(self, plan: FaultPlan, request: Any) -> None:
        if self.methods is None or request.method in self.methods:
            plan.dropped_headers |= self.names


@frozen(eq=False, repr=False)
class _OtherStatus:
    usual: int
    other: int

    def apply(self, plan: FaultPlan, request: Any) -> None:  # noqa: ARG002
        plan.replaced_status[self.usual] = self.other


@frozen(eq=False, repr=False)
class _DropQuery:
    """Removes parameters before the registry sees them, unless there is another one."""

    names: tuple[str, ...]
    unless: str = ""

    def apply(self, plan: FaultPlan, request: Any) -> None:  # noqa: ARG002
        path, _, query = request.uri.partition(b"?")
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        if self.unless not in dict(pairs):
            kept = [(name, value) for name, value in pairs if name not in self.names]
            request.uri = path + (b"?" + urlencode(kept).encode() if kept else b"")


class _RefuseAnonymousMount:
    def apply(self, plan: FaultPlan, request: Any) -> None:
        query = dict(parse_qsl(request.uri.partition(b"?")[2].decode("latin-1")))
        if "mount" in query and "from" not in query:
            plan.response = error_response(400, {})


class _RefuseCatalog:
    def apply(self, plan: FaultPlan, request: Any) -> None:
        host = request.headerFields.get(b"host", b"").decode("latin-1")
        scheme = "https" if request.isSecure() else "http"
        challenge = (
            f'Bearer realm="{scheme}://{host}/auth/token",service="{host}",'
            'scope="registry:catalog:*",error="insufficient_scope"'
        )
        plan.response = error_response(401, {"WWW-Authenticate": challenge})


def _length(request: Any) -> int:
    """Return the length of a request body; 0 if it is not declared."""
    declared = request.headerFields.get(b"content-length", b"0")
    return int(declared) if declared.isdigit() else 0


@frozen(eq=False, repr=False)
class _LargestChunk:
    limit: int

    def apply(self, plan: FaultPlan, request: Any) -> None:
        if b"content-range" in request.headerFields and _length(request) > self.limit:
            message = (
                "the request body is too large and exceeds the maximum permissible limit of"
                f" {self.limit / MIB:.2f}MiB"
            )
            code = "REQUESTED_RANGE_NOT_SATISFIABLE"
            body = {"errors": [{"code": code, "message": message}]}
            plan.response = error_response(416, {}, body)


@define(eq=False, repr=False)
class _SmallestChunk:
    """Refuses the end of an upload of which a chunk other than the last was too small."""

    limit: int
    _last: dict[str, int] = field(init=False, factory=dict)
    _refused: set[str] = field(init=False, factory=set)

    def apply(self, plan: FaultPlan, request: Any) -> None:
        upload, length = request.path, _length(request)
        if request.method not in {b"PATCH", b"PUT"}:
            return
        if length:
            if 0 < self._last.get(upload, 0) < self.limit:
                self._refused.add(upload)
            self._last[upload] = length
        if request.method == b"PUT" and upload in self._refused:
            error = RegistryError(
                ErrorCode.BLOB_UPLOAD_INVALID,
                message="All layer parts except the last part should be at least 5MB",
            )
            plan.response = error_response(400, {}, error.as_json())


@frozen(eq=False, repr=False)
class _OnlyRepositories:
    names: frozenset[str]

    def apply(self, plan: FaultPlan, request: Any) -> None:
        match = _REPOSITORY_RE.fullmatch(request.path.decode("latin-1"))
        if match is not None and match[1] not in self.names:
            message = f"The repository with name '{match[1]}' does not exist"
            error = RegistryError(ErrorCode.NAME_UNKNOWN, message=message)
            plan.response = error_response(404, {}, error.as_json())


@frozen(eq=False, repr=False)
class _PullLimit:
    pulls: int
    period_s: float

    def make(self) -> Effect:
        return _CountedPulls(self)


@define(eq=False, repr=False)
class _CountedPulls:
    limit: _PullLimit
    _began: float = field(init=False, default=-math.inf)
    _used: int = field(init=False, default=0)

    def apply(self, plan: FaultPlan, request: Any) -> None:
        if request.method not in {b"GET", b"HEAD"}:
            return
        now, period = request.site.clock.seconds(), self.limit.period_s
        if now - self._began >= period:
            self._began, self._used = now, 0
        headers = {"ratelimit-limit": f"{self.limit.pulls};w={period:g}"}
        if request.method == b"GET" and self._used >= self.limit.pulls:
            headers["ratelimit-remaining"] = f"0;w={period:g}"
            plan.response = error_response(429, headers)
            return
        self._used += request.method == b"GET"
        headers["ratelimit-remaining"] = f"{self.limit.pulls - self._used};w={period:g}"
        plan.added_headers.update(headers)
