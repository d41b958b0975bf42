"""Rules of the operator for manifests and tags: URLs, platforms, classes, immutable tags."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen

from twisted_registry.oci.document import DocumentLimits
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.manifest import DOCKER_PLUGIN_CONFIG, ManifestKind
from twisted_registry.oci.patterns import Glob, GlobSet

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted_registry.oci.linear_regex import LinearRegex
    from twisted_registry.oci.manifest import Descriptor, Manifest

#: Bytes of a manifest, by default: the least that the specification demands.
MAX_MANIFEST_BYTES = 4 * 1024 * 1024

_URL = re.compile(r"https?://[^#\s]+", re.IGNORECASE)
#: Of a URL that is repeated in an error.
_MAX_URL_CHARACTERS = 2000


@frozen
class Policy:
    """The configured rules.

    :ivar check_references: whether the references of manifests are checked
        (``validation.disabled``).
    :ivar url_allow: patterns; each URL in a manifest must match one of them. Empty allows all URLs.
    :ivar url_deny: patterns; no URL in a manifest may match one of them.
    :ivar platforms: the children of an index that must exist: all, none, or those of
        ``platform_list``.
    :ivar platform_list: pairs of architecture and OS.
    :ivar classes: which of ``image`` and ``plugin`` may be pushed. Empty allows both.
    :ivar max_manifest_bytes: the largest manifest that is accepted.
    :ivar document_limits: limits of the structure of a manifest that is accepted.
    :ivar immutable: tags that are neither moved nor deleted once they exist.
    """

    check_references: bool = True
    url_allow: tuple[LinearRegex, ...] = ()
    url_deny: tuple[LinearRegex, ...] = ()
    platforms: Literal["all", "none", "list"] = "all"
    platform_list: frozenset[tuple[str, str]] = frozenset()
    classes: frozenset[str] = frozenset()
    max_manifest_bytes: int = MAX_MANIFEST_BYTES
    document_limits: DocumentLimits = field(factory=DocumentLimits)
    immutable: tuple[TagSelector, ...] = ()

    def requires_child(self, child: Descriptor) -> bool:
        """Return whether a push of an index requires this child to exist."""
        if self.platforms != "list":
            return self.platforms == "all"
        platform = child.platform or {}
        return (platform.get("architecture"), platform.get("os")) in self.platform_list

    def check_manifest(self, manifest: Manifest) -> None:
        """Check a manifest.

        :raises RegistryError: DENIED for a class, MANIFEST_INVALID for a URL.
        """
        if self.classes and manifest.kind is ManifestKind.IMAGE and manifest.config is not None:
            plugin = manifest.config.media_type == DOCKER_PLUGIN_CONFIG
            found = "plugin" if plugin else "image"
            if found not in self.classes:
                raise RegistryError(
                    ErrorCode.DENIED, message=f"this registry does not accept {found} manifests"
                )
        if self.check_references:
            for descriptor in manifest.blobs:
                for url in descriptor.urls:
                    self._check_url(url)

    def _check_url(self, url: str) -> None:
        allowed = _URL.fullmatch(url) is not None and (
            not self.url_allow or any(pattern.is_found_in(url) for pattern in self.url_allow)
        )
        if not allowed or any(pattern.is_found_in(url) for pattern in self.url_deny):
            detail = {"url": url[:_MAX_URL_CHARACTERS]}
            raise RegistryError(
                ErrorCode.MANIFEST_INVALID, detail=detail, message="a URL is not allowed"
            )


@frozen
class TagSelector:
    """Patterns of repositories and of their tags."""

    repositories: GlobSet
    tags: GlobSet

    @classmethod
    def parse(cls, repositories: Iterable[str], tags: Iterable[str]) -> TagSelector:
        """Parse two lists of patterns.

        :raises GlobInvalid: for the first invalid pattern.
        """
        return cls(GlobSet.parse(repositories), GlobSet.parse(tags, Glob.parse_tag))

    def matches(self, name: str, tag: str) -> bool:
        """Return whether a tag of a repository is selected."""
        return name in self.repositories and tag in self.tags


def immutable_error(tag: str) -> RegistryError:
    """Return the error for a request to move or delete an immutable tag."""
    return RegistryError(
        ErrorCode.DENIED, message="this tag is immutable here", detail={"tag": tag}
    )
