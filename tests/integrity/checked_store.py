"""A store with something of each kind in it, intact and old, and a check of it."""

from __future__ import annotations

from tests.gc.collected_store import DAY, Store, drive
from tests.repository.worlds import descriptor, image, index
from twisted_registry.app.integrity import make_fsck
from twisted_registry.config.loading import load_text
from twisted_registry.integrity.fsck import FsckObserver
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.manifest import OCI_IMAGE, OCI_INDEX
from twisted_registry.repository import layout
from twisted_registry.repository.policy import Policy
from twisted_registry.repository.trash import TagChange, TrashEntryName, TrashReason

NAME = "a/b"
PLAIN = image(annotations={"is": "plain"})
CHILD = image(layers=[descriptor(b"child layer")])
INDEX = index(descriptor(CHILD, OCI_IMAGE), descriptor(PLAIN, OCI_IMAGE))
REFERRER = image(subject=descriptor(PLAIN, OCI_IMAGE), artifactType="a/b")
#: Content in the trash.
ONCE = Digest.of(b"once")


def path_of(content):
    return layout.blob_data(Digest.of(content))


def revision_of(content):
    return layout.revision_link(NAME, Digest.of(content))


def stamped(folder, reason):
    return f"{folder}/{TrashEntryName(1_800_000_000, reason, 'abc')}"


TRASHED_BLOB = stamped(layout.trashed_blob_folder(ONCE), TrashReason.COLLECTED)
TRASHED_LAYER = stamped(layout.trashed_layer_folder(NAME, ONCE), TrashReason.COLLECTED)
TRASHED_MANIFEST = stamped(layout.trashed_revision_folder(NAME, ONCE), TrashReason.DELETED)
TRASHED_TAG = stamped(layout.trashed_tag_folder(NAME, "gone"), TrashReason.DELETED)
TRASH = {
    TRASHED_BLOB: b"once",
    TRASHED_LAYER: str(ONCE).encode(),
    TRASHED_MANIFEST: b"",
    stamped(
        layout.trashed_revision_folder(NAME, Digest.of(PLAIN)), TrashReason.COLLECTED
    ): OCI_IMAGE.encode(),
    TRASHED_TAG: TagChange(None, ONCE).to_bytes(),
}
#: With the default grace period of a day.
CONFIGURATION = load_text("version: 0.1\nstorage: inmemory\n", {}).configuration


class RecordingObserver(FsckObserver):
    counts = True

    def __init__(self):
        self.findings = []
        self.progress = []

    def found(self, finding):
        self.findings.append(finding)

    def read(self, done, total):
        self.progress.append((done, total))


class CheckedStore(Store):
    """Two repositories with an image, an index, a referrer and a trash; all of them old."""

    def __init__(self, world):
        super().__init__(world)
        for content in (b"{}", b"layer", b"child layer"):
            world.blob(content)
        world.put(PLAIN, OCI_IMAGE, "plain")
        world.put(CHILD, OCI_IMAGE)
        world.put(INDEX, OCI_INDEX, "multi")
        world.put(REFERRER, OCI_IMAGE)
        world.image("v1", "other")
        for path, content in TRASH.items():
            world.write(path, content)
        self.age(2 * DAY)
        self.world.restart()

    def plant(self, changes):
        """Replace files, or remove them (None), two days ago."""
        for path, content in changes.items():
            if content is None:
                self.world.remove(path)
            else:
                self.world.write(path, content)
        self.age(2 * DAY)

    def check(self, *, repair=False, policy=None, clock=None):
        observer = RecordingObserver()
        fsck = make_fsck(
            CONFIGURATION,
            self.world.driver,
            clock or self.world.clock,
            policy=policy or Policy(),
            repair=repair,
            observer=observer,
        )
        return drive(self.world, fsck.run()), observer

    def tree(self):
        """All files and their contents, except the quarantine and the collector's clock."""
        return {
            path: self.world.read(path)
            for path in self.world.paths()
            if path != layout.CLOCK and not path.startswith(layout.QUARANTINE)
        }

    def quarantined(self):
        """The original paths of the files in the quarantine."""
        found = self.world.paths(layout.QUARANTINE)
        return sorted(path.split("/", 3)[3] for path in found)
