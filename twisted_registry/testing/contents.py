"""The contents of a registry, read and written without HTTP, access control and faults."""

from __future__ import annotations

import json
import re
from contextlib import closing
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, frozen

from twisted_registry.http.body import BufferedBody
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import RegistryError
from twisted_registry.oci.manifest import DOCKER_INDEX, OCI_INDEX
from twisted_registry.oci.names import check_name, check_tag
from twisted_registry.testing.blobs import Blob, Spool
from twisted_registry.testing.images import AnyImage, Image, Index, platform_of
from twisted_registry.testing.layouts import read_layout, write_layout
from twisted_registry.testing.snapshots import Snapshot, restore_snapshot, take_snapshot

if TYPE_CHECKING:
    import os

    from twisted_registry.repository.registry import Registry, Repository

#: Names or tags of one page.
_PAGE = 1000
#: Bytes of a configuration that is parsed for its platform.
_MAX_CONFIG_BYTES = 1024 * 1024
#: A first component with one of these is a host, as in Docker's references.
_HOST_RE = re.compile(r"localhost|.*[.:].*")


@frozen
class Reference:
    """The name of an image in a registry.

    :ivar repository: its repository.
    :ivar tag: a tag, or None.
    :ivar digest: a digest, or None.
    """

    repository: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse ``[host/]repository[:tag][@digest]``; the tag is ``latest`` if there is neither.

        :raises ValueError: if it is malformed.
        """
        rest, _, digest = text.partition("@")
        first, slash, others = rest.partition("/")
        if slash and _HOST_RE.fullmatch(first):
            rest = others
        name, _, tag = rest.partition(":")
        try:
            check_name(name)
            if tag:
                check_tag(tag)
            if digest:
                Digest.parse(digest)
        except ValueError as error:
            raise ValueError(
                f"{text!r} is not an image such as app:1 or app@sha256:...: {error}"
            ) from error
        return cls(name, tag or (None if digest else "latest"), digest or None)

    @property
    def target(self) -> Digest | str:
        """The digest, otherwise the tag."""
        if self.digest is not None:
            return Digest.parse(self.digest)
        return self.tag or "latest"


@frozen
class StoredManifest:
    """A manifest of a registry.

    :ivar digest: its digest.
    :ivar media_type: its media type.
    :ivar content: its bytes.
    """

    digest: str
    media_type: str
    content: bytes

    @property
    def document(self) -> dict[str, Any]:
        """The manifest as JSON values."""
        found: dict[str, Any] = json.loads(self.content)
        return found


@define(eq=False)
class Contents:
    """Reads and writes the contents of a registry. Called on the thread of its reactor.

    Methods raise :class:`~twisted_registry.oci.errors.RegistryError` as the API does, with the code
    of the specification.

    :ivar registry: the repositories.
    """

    registry: Registry

    async def push_image(self, reference: str, image: AnyImage) -> str:
        """Store an image or an index with all that it refers to, and return its digest.

        :param reference: the name, such as ``app:1``; with a digest, no tag is set.
        :raises ValueError: for a malformed reference, or a digest that is not that of the image.
        """
        where = Reference.parse(reference)
        if where.digest not in {None, image.digest}:
            raise ValueError(f"{reference} names {where.digest}, the image is {image.digest}")
        repository = self.registry.repository(where.repository)
        await self._push(repository, image, [] if where.tag is None else [where.tag])
        return image.digest

    async def pull_image(self, reference: str) -> AnyImage:
        """Return an image or an index with all that it refers to, as far as it is stored.

        Blobs above 1 MiB are copied to temporary files.
        """
        where = Reference.parse(reference)
        repository = self.registry.repository(where.repository)
        return await self._pull(repository, where.target, None)

    async def load_layout(
        self, path: str | os.PathLike[str], repository: str | None = None
    ) -> list[str]:
        """Push all images of a layout or of an archive of ``docker save``.

        :param path: a folder, or a tar archive, which may be compressed with gzip.
        :param repository: where to push them; None if the layout has full names, such as ``app:1``.
        :returns: their references.
        :raises LayoutInvalid: if it is not a layout, or content is missing.
        """
        pushed = []
        for name, image in read_layout(path).items():
            reference = _reference_of(name, repository)
            await self.push_image(reference, image)
            pushed.append(reference)
        return pushed

    async def save_layout(self, path: str | os.PathLike[str], *references: str) -> None:
        """Write images to a layout.

        :param path: a name that ends with ``.tar`` makes an archive, which ``docker load`` reads as
            well, another one a folder.
        :param references: the images, such as ``app:1``; all tags if there are none.
        """
        names = references or [
            f"{name}:{tag}" for name in await self.repositories() for tag in await self.tags(name)
        ]
        write_layout(path, {_layout_name(name): await self.pull_image(name) for name in names})

    async def repositories(self) -> list[str]:
        """Return the names of all repositories, sorted."""
        found: list[str] = []
        more = True
        while more:
            names, more = await self.registry.catalog(found[-1] if found else "", _PAGE)
            found += names
        return found

    async def tags(self, repository: str) -> list[str]:
        """Return all tags of a repository, sorted; none if there is no such repository."""
        tags = self.registry.repository(check_name(repository)).tags
        found: list[str] = []
        more = True
        while more:
            names, more = await tags.page(found[-1] if found else "", _PAGE)
            found += names
        return found

    async def manifest(self, reference: str) -> StoredManifest:
        """Return a manifest.

        :raises RegistryError: MANIFEST_UNKNOWN.
        """
        where = Reference.parse(reference)
        stored = await self.registry.repository(where.repository).manifests.get(where.target)
        return StoredManifest(str(stored.digest), stored.media_type or "", stored.content)

    async def blob(self, repository: str, digest: str) -> bytes:
        """Return the content of a blob.

        :raises RegistryError: BLOB_UNKNOWN.
        """
        found = await self._read_blob(
            self.registry.repository(check_name(repository)), {"digest": digest}
        )
        return found.read()

    async def snapshot(self) -> Snapshot:
        """Return a copy of all repositories, for :meth:`restore`.

        No request may change them meanwhile.
        """
        return await take_snapshot(self.registry.driver)

    async def restore(self, snapshot: Snapshot) -> None:
        """Make all repositories as they were when the snapshot was taken.

        No request may use them meanwhile.
        """
        await restore_snapshot(self.registry.driver, snapshot, self.registry.clock)

    async def _push(self, repository: Repository, image: AnyImage, tags: list[str]) -> None:
        if isinstance(image, Index):
            for child in image.images:
                await self._push(repository, child, [])
        else:
            for blob in image.blobs:
                await self._push_blob(repository, blob)
        manifest = image.manifest
        await repository.manifests.put(
            Digest.parse(manifest.digest), manifest.read(), manifest.media_type, tags
        )

    async def _push_blob(self, repository: Repository, blob: Blob) -> None:
        digest = Digest.parse(blob.digest)
        try:
            await repository.blobs.size(digest)
        except RegistryError:
            with closing(blob.open()) as file:
                body: Any = BufferedBody(file, self.registry.clock)  # type: ignore[arg-type]
                await repository.uploads.store_blob(digest, body)

    async def _pull(
        self, repository: Repository, target: Digest | str, platform: dict[str, str] | None
    ) -> AnyImage:
        stored = await repository.manifests.get(target)
        manifest = Blob.from_bytes(stored.content, stored.media_type or "")
        document = json.loads(stored.content)
        if manifest.media_type in {OCI_INDEX, DOCKER_INDEX}:
            images = []
            for each in document.get("manifests", ()):
                child = Digest.parse(each["digest"])
                if await repository.manifests.is_linked(child):
                    images.append(await self._pull(repository, child, each.get("platform")))
            return Index(manifest, tuple(images))
        blobs: dict[str, Blob] = {}
        config = document.get("config")
        for each in (config, *document.get("layers", ()), *document.get("blobs", ())):
            if each and not each.get("urls") and each["digest"] not in blobs:
                blobs[each["digest"]] = await self._read_blob(repository, each)
        if platform is None and config and blobs[config["digest"]].size <= _MAX_CONFIG_BYTES:
            platform = _read_platform(blobs[config["digest"]])
        return Image(manifest, tuple(blobs.values()), platform)

    async def _read_blob(self, repository: Repository, descriptor: dict[str, Any]) -> Blob:
        reader = await repository.blobs.open_whole(Digest.parse(descriptor["digest"]))
        spool = Spool()
        await reader.feed(spool.write)
        return evolve(
            spool.blob(descriptor.get("mediaType", "application/octet-stream")),
            digest=descriptor["digest"],
            annotations=descriptor.get("annotations") or {},
        )


def _read_platform(config: Blob) -> dict[str, str] | None:
    try:
        document = json.loads(config.read())
    except ValueError:
        return None
    return platform_of(document) if isinstance(document, dict) else None


def _layout_name(reference: str) -> str:
    where = Reference.parse(reference)
    return where.repository + (f":{where.tag}" if where.tag else f"@{where.digest}")


def _reference_of(name: str, repository: str | None) -> str:
    """Return the reference for an image of a layout.

    :raises ValueError: if neither has the name of a repository.
    """
    if repository is None:
        where = (
            Reference.parse(name) if "/" in name or (":" in name and not _is_digest(name)) else None
        )
        if where is None:
            raise ValueError(
                f"the layout calls an image {name!r}, without a repository: pass the repository, as"
                " in load_layout(path, 'app')"
            )
        return _layout_name(name)
    if _is_digest(name):
        return f"{repository}@{name}"
    tag = name.rpartition("/")[2].rpartition(":")[2]
    return f"{repository}:{check_tag(tag)}"


def _is_digest(text: str) -> bool:
    try:
        Digest.parse(text)
    except ValueError:
        return False
    return True
