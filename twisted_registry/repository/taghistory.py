"""What a tag named when, as far as the trash knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, frozen

from twisted_registry.repository import layout
from twisted_registry.repository.failures import translate_storage_errors
from twisted_registry.repository.links import read_link
from twisted_registry.repository.tagrecord import TagChangeRecord
from twisted_registry.repository.trashed import TrashContents

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_registry.digest import Digest
    from twisted_registry.storage.interfaces import IStorageDriver

#: Bytes of a record.
_MAX_RECORD_BYTES = 1024


@frozen
class TagChange:
    """One change of a tag.

    :ivar seconds: when it was, in seconds since the epoch.
    :ivar before: what it named until then; None if there was none.
    :ivar now: what it named from then on; None if it was removed.
    """

    seconds: float
    before: Digest | None
    now: Digest | None


@define(eq=False)
class TagHistory:
    """The histories of all tags of a store."""

    driver: IStorageDriver

    async def changes(self, name: str, tag: str) -> Sequence[TagChange]:
        """What is known of a tag, in the order of time; torn records are passed over."""
        contents = TrashContents(self.driver)
        found = []
        for item in await contents.folder(layout.trashed_tag(name, tag)):
            record = TagChangeRecord.from_bytes(await contents.content(item, _MAX_RECORD_BYTES) or b"")
            if record is not None:
                found.append(TagChange(item.entry_name.seconds, record.before, record.now))
        return found

    @translate_storage_errors
    async def tag_at(self, name: str, tag: str, seconds: float | None) -> Digest | None:
        """What a tag named at some time, or None if it was not there.

        :param seconds: since the epoch; None means before the latest change.
        """
        changes = await self.changes(name, tag)
        if seconds is None:
            return changes[-1].before if changes else None
        # What the next change replaced is what was there, also if a record before it is lost.
        for change in changes:
            if change.seconds > seconds:
                return change.before
        return await read_link(self.driver, layout.tag_current(name, tag))
