"""What a registry takes beyond what the specification forbids.

Tags that patterns choose, in repositories that patterns choose; and those that never move.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from attrs import frozen

from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.manifest import DOCKER_PLUGIN_CONFIG, ManifestKind
from twisted_registry.oci.patterns import Glob, GlobSet

if TYPE_CHECKING:
    # @@EMPTY
    from collections.abc import Iterable

    from twisted_registry.oci.manifest import Descriptor, Manifest

#: The least that the specification asks a registry to take, in bytes.
MAX_MANIFEST_BYTES = 4 * 1024 * 1024

_URL = re.compile(r"https?://[^#\s]+", re.IGNORECASE)


@frozen
class Policy:
    """Checks of manifests that an operator can tune.

    :ivar validate: whether references are checked at all (``validation.disabled``).
    :ivar url_allow: patterns of which one must be found in each URL of a manifest; none allows
        all.
    :ivar url_deny: patterns none of which may be found in a URL.
    :ivar platforms: which children of an index must be there: all, none, or those of
        ``platform_list``.
    :ivar platform_list: pairs of (architecture, os).
    :ivar classes: which of ``image`` and ``plugin`` may be pushed; none allows both.
    :ivar manifest_limit: bytes.
    :ivar immutable: tags that are neither moved nor deleted once they are there.
    """

    check_references: bool = True
    url_allow: tuple[re.Pattern[str], ...] = ()
    url_deny: tuple[re.Pattern[str], ...] = ()
    platforms: Literal["all", "none", "list"] = "all"
    platform_list: frozenset[tuple[str, str]] = frozenset()
    classes: frozenset[str] = frozenset()
    max_manifest_bytes: int = MAX_MANIFEST_BYTES
    immutable: tuple[TagSelector, ...] = ()

    def requires_child(self, child: Descriptor) -> bool:
        """Whether an index may only be pushed when this child is there."""
        if self.platforms != "list":
            return self.platforms == "all"
        platform = child.platform or {}
        return (platform.get("architecture"), platform.get("os")) in self.platform_list

    def check_manifest(self, manifest: Manifest) -> None:
        """Refuse what the operator does not want.

        :raises RegistryError: DENIED for a class, MANIFEST_INVALID for a URL.
        """
        if self.classes and manifest.kind is ManifestKind.IMAGE and manifest.config is not None:
            plugin = manifest.config.media_type == DOCKER_PLUGIN_CONFIG
            found = "plugin" if plugin else "image"
            if found not in self.classes:
                raise RegistryError(
                    ErrorCode.DENIED, message=f"this registry does not take {found} manifests"
                )
        if self.check_references:
            for descriptor in manifest.blobs:
                for url in descriptor.urls:
                    self._check_url(url)

    def _check_url(self, url: str) -> None:
        allowed = _URL.fullmatch(url) is not None and (
            not self.url_allow or any(pattern.search(url) for pattern in self.url_allow)
        )
        if not allowed or any(pattern.search(url) for pattern in self.url_deny):
            raise RegistryError(
                ErrorCode.MANIFEST_INVALID, detail={"url": url}, message="a URL is not allowed"
            )


@frozen
class TagSelector:
    """Some tags of some repositories."""

    repositories: GlobSet
    tags: GlobSet

    @classmethod
    def parse(cls, repositories: Iterable[str], tags: Iterable[str]) -> TagSelector:
        """Read two lists of patterns.

        :raises GlobInvalid: with the first that is none.
        """
        return cls(GlobSet.parse(repositories), GlobSet.parse(tags, Glob.parse_tag))

    def matches(self, name: str, tag: str) -> bool:
        """Whether a tag of a repository is one of them."""
        return name in self.repositories and tag in self.tags


def immutable_error(tag: str) -> RegistryError:
    """The answer to whoever would move or delete a tag that stays as it is."""
    return RegistryError(
        ErrorCode.DENIED, message="this tag is immutable here", detail={"tag": tag}
    )
