"""What a registry takes beyond what the specification forbids."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from attrs import frozen

from twisted_registry.errors import ErrorCode, RegistryError
from twisted_registry.manifest import DOCKER_PLUGIN_CONFIG, ManifestKind

if TYPE_CHECKING:
    from twisted_registry.manifest import Descriptor, Manifest
    from twisted_registry.repository.tagchoice import TagSelector

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
