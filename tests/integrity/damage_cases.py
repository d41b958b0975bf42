"""Each kind of damage that is looked for: how it is made, what is said, and what repairs do."""

from __future__ import annotations

from attrs import field, frozen

from tests.integrity.checked_store import (
    CHILD,
    INDEX,
    NAME,
    PLAIN,
    REFERRER,
    TRASHED_BLOB,
    TRASHED_LAYER,
    TRASHED_MANIFEST,
    TRASHED_TAG,
    path_of,
    revision_of,
)
from tests.repository.worlds import CONFIG, descriptor, image, index
from twisted_registry.gc.delete_list import DeleteList, Phase
from twisted_registry.integrity.findings import FindingKind as Kind
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.manifest import OCI_IMAGE
from twisted_registry.repository import layout

OTHER = f"sha256:{'1' * 64}"
GONE = Digest("sha256", "0" * 64)
UPLOAD = "12345678-1234-1234-1234-123456789abc"
LAYER = path_of(b"layer")
MISPLACED = LAYER.replace(f"/{Digest.of(b'layer').hex[:2]}/", "/zz/")
LAYER_LINK = layout.layer_link(NAME, Digest.of(b"layer"))
OTHER_LAYER_LINK = layout.layer_link("other", Digest.of(b"layer"))
OTHER_REVISION = layout.revision_link("other", Digest.of(image()))
REVISION = revision_of(PLAIN)
TAG = layout.tag_current_link(NAME, "plain")
TAG_INDEX = layout.tag_index_link(NAME, "plain", Digest.of(PLAIN))
OLD_INDEX = layout.tag_index_link(NAME, "plain", Digest("sha256", "1" * 64))
SECOND_INDEX = layout.tag_index_link(NAME, "plain", Digest.of(CHILD))
REFERRER_LINK = layout.referrer_link(NAME, Digest.of(PLAIN), Digest.of(REFERRER))
GONE_REFERRER = layout.referrer_link(NAME, Digest.of(PLAIN), Digest.parse(OTHER))
MEDIA_TYPE = layout.revision_media_type(NAME, Digest.of(PLAIN))
LEASES = layout.leases_folder("1")
LIST = DeleteList("1", Phase.PROPOSED, 60, frozenset()).to_bytes()
LONG = Digest.of(b"long", "sha512")


def says(content):
    return str(Digest.of(content)).encode()


@frozen
class Damage:
    """Some damage.

    :ivar planted: paths and what lies there instead; None: nothing.
    :ivar found: kind and path of everything that the check tells.
    :ivar tags: that are affected.
    :ivar mended: what a repair changes, in the same way as ``planted``.
    :ivar shelved: what it puts into the quarantine.
    :ivar remains: what a second check tells.
    :ivar left: the tags that are still affected.
    :ivar late: those that the repairing check named before what they need was repaired.
    """

    planted: dict[str, bytes | None]
    found: set[tuple[Kind, str]]
    tags: tuple[str, ...] = ()
    mended: dict[str, bytes | None] = field(factory=dict)
    shelved: tuple[str, ...] = ()
    remains: set[tuple[Kind, str]] = field(factory=set)
    left: tuple[str, ...] = ()
    late: tuple[str, ...] = ()

    @classmethod
    def lasting(cls, planted, found, tags=()):
        """What can not be repaired."""
        return cls(planted, found, tags, remains=found, left=tags)

    @classmethod
    def link(cls, path, content, kind, *also, tags=()):
        """A link that says again what its path says."""
        mended = {path: str(layout.digest_of_link(path)).encode()}
        return cls({path: content}, {(kind, path), *also}, tags, mended)

    @classmethod
    def going(cls, path, content, kind, told=None):
        """What goes to the quarantine."""
        return cls({path: content}, {(kind, told or path)}, (), {path: None}, (path,))

    @classmethod
    def removed(cls, planted, kind, path):
        """What nobody needs, and is removed for good."""
        return cls(planted, {(kind, path)}, (), dict.fromkeys(planted))

    @classmethod
    def manifest(cls, content, kind):
        """A manifest that is no good, with a tag; it stays."""
        path = revision_of(content)
        planted = {
            path_of(content): content,
            path: says(content),
            layout.tag_current_link(NAME, "bad"): says(content),
        }
        return cls.lasting(planted, {(kind, path)}, ("bad",))


#: What all manifests that need a blob say when it is not there.
LAYER_MISSED = {
    (Kind.LINK_DANGLING, LAYER_LINK),
    (Kind.LINK_DANGLING, OTHER_LAYER_LINK),
    (Kind.PART_MISSING, REVISION),
    (Kind.PART_MISSING, revision_of(REFERRER)),
    (Kind.PART_MISSING, OTHER_REVISION),
}
#: ... when its repository does not hold it.
LAYER_UNLINKED = {
    (Kind.PART_UNLINKED, REVISION),
    (Kind.PART_UNLINKED, revision_of(REFERRER)),
}
PLAIN_UNLINKED = {
    (Kind.PART_UNLINKED, revision_of(INDEX)),
    (Kind.LINK_DANGLING, TAG),
    (Kind.LINK_DANGLING, TAG_INDEX),
}
ALL = ("multi", "plain", "v1")
BOTH = ("multi", "plain")


def corrupt(content, kind=Kind.BLOB_CORRUPT):
    """A layer with other bytes: it is taken away, and then it is missed."""
    return Damage(
        {LAYER: content}, {(kind, LAYER)}, ALL, {LAYER: None}, (LAYER,), LAYER_MISSED, ALL
    )


def stray(path):
    return Damage.lasting({path: b"?"}, {(Kind.FILE_STRAY, path)})


DAMAGE = {
    "missing blob": Damage.lasting({LAYER: None}, LAYER_MISSED, ALL),
    "empty blob": corrupt(b"", Kind.BLOB_EMPTY),
    "truncated blob": corrupt(b"lay"),
    "grown blob": corrupt(b"layers"),
    "flipped blob": corrupt(b"Layer"),
    "flipped blob of sha512": Damage.going(layout.blob_data(LONG), b"Long", Kind.BLOB_CORRUPT),
    "misplaced blob": Damage.going(MISPLACED, b"layer", Kind.BLOB_MISPLACED),
    "misplaced blob that is missed": Damage(
        {LAYER: None, MISPLACED: b"layer"}, {*LAYER_MISSED, (Kind.BLOB_MISPLACED, MISPLACED)}, ALL,
        {LAYER: b"layer", MISPLACED: None}, (MISPLACED,),
    ),
    "misplaced blob with other bytes": Damage(
        {MISPLACED: b"else"}, {(Kind.BLOB_MISPLACED, MISPLACED)}, (),
        {MISPLACED: None, path_of(b"else"): b"else"}, (MISPLACED,),
    ),

    "empty layer link": Damage.link(
        LAYER_LINK, b"", Kind.LINK_EMPTY, *LAYER_UNLINKED, tags=BOTH
    ),
    "malformed layer link": Damage.link(
        LAYER_LINK, b"sha256:xyz", Kind.LINK_MALFORMED, *LAYER_UNLINKED, tags=BOTH
    ),
    "layer link to another": Damage.link(
        LAYER_LINK, OTHER.encode(), Kind.LINK_MALFORMED, *LAYER_UNLINKED, tags=BOTH
    ),
    "dangling layer link": Damage.going(
        layout.layer_link(NAME, GONE), str(GONE).encode(), Kind.LINK_DANGLING
    ),
    "empty layer link to nothing": Damage.going(
        layout.layer_link(NAME, GONE), b"", Kind.LINK_EMPTY
    ),
    "missing layer link": Damage.lasting({LAYER_LINK: None}, LAYER_UNLINKED, BOTH),

    "empty revision": Damage.link(
        REVISION, b"", Kind.LINK_EMPTY, *PLAIN_UNLINKED, tags=BOTH
    ),
    "malformed revision": Damage.link(
        REVISION, b"\xff", Kind.LINK_MALFORMED, *PLAIN_UNLINKED, tags=BOTH
    ),
    "dangling revision": Damage.going(
        layout.revision_link(NAME, GONE), str(GONE).encode(), Kind.LINK_DANGLING
    ),

    "empty tag": Damage({TAG: b""}, {(Kind.LINK_EMPTY, TAG)}, ("plain",), {TAG: says(PLAIN)}),
    "malformed tag": Damage(
        {TAG: b"latest"}, {(Kind.LINK_MALFORMED, TAG)}, ("plain",), {TAG: says(PLAIN)}
    ),
    "empty tag that named several": Damage.lasting(
        {TAG: b"", SECOND_INDEX: says(CHILD)}, {(Kind.LINK_EMPTY, TAG)}, ("plain",)
    ),
    "dangling tag": Damage.lasting(
        {TAG: OTHER.encode()}, {(Kind.LINK_DANGLING, TAG)}, ("plain",)
    ),
    "tag without a link": Damage.lasting(
        {TAG: None}, {(Kind.TAG_UNFINISHED, layout.tag_folder(NAME, "plain"))}
    ),
    "tag of a manifest that is not linked": Damage(
        {REVISION: None}, PLAIN_UNLINKED, BOTH, {REVISION: says(PLAIN)}, late=("multi",)
    ),

    "empty tag index": Damage.link(TAG_INDEX, b"", Kind.LINK_EMPTY),
    "malformed tag index": Damage.link(TAG_INDEX, b"x", Kind.LINK_MALFORMED),
    "dangling tag index": Damage.going(OLD_INDEX, OTHER.encode(), Kind.LINK_DANGLING),

    "empty referrer": Damage.link(
        REFERRER_LINK, b"", Kind.LINK_EMPTY, (Kind.REFERRER_UNLISTED, REFERRER_LINK)
    ),
    "malformed referrer": Damage.link(
        REFERRER_LINK, b"x", Kind.LINK_MALFORMED, (Kind.REFERRER_UNLISTED, REFERRER_LINK)
    ),
    "dangling referrer": Damage.going(GONE_REFERRER, OTHER.encode(), Kind.LINK_DANGLING),
    "unlisted referrer": Damage(
        {REFERRER_LINK: None}, {(Kind.REFERRER_UNLISTED, REFERRER_LINK)}, (),
        {REFERRER_LINK: says(REFERRER)},
    ),

    "flipped manifest": Damage(
        {path_of(PLAIN): PLAIN[:-1] + b" "}, {(Kind.BLOB_CORRUPT, path_of(PLAIN))}, BOTH,
        {path_of(PLAIN): None}, (path_of(PLAIN),),
        {(Kind.LINK_DANGLING, REVISION), (Kind.PART_MISSING, revision_of(INDEX))}, BOTH,
    ),
    "missing manifest of a tag": Damage.lasting(
        {path_of(PLAIN): None},
        {(Kind.LINK_DANGLING, REVISION), (Kind.PART_MISSING, revision_of(INDEX))}, BOTH,
    ),
    "missing child of an index": Damage(
        # No tag names it, so its link goes; the index goes on missing it.
        {path_of(CHILD): None},
        {(Kind.LINK_DANGLING, revision_of(CHILD)), (Kind.PART_MISSING, revision_of(INDEX))},
        ("multi",), {revision_of(CHILD): None}, (revision_of(CHILD),),
        {(Kind.PART_MISSING, revision_of(INDEX))}, ("multi",),
    ),
    "child of an index that is not linked": Damage.lasting(
        {revision_of(CHILD): None}, {(Kind.PART_UNLINKED, revision_of(INDEX))}, ("multi",)
    ),
    "manifest that is no JSON": Damage.manifest(b"{", Kind.MANIFEST_INVALID),
    "manifest of another shape": Damage.manifest(image(layers="none"), Kind.MANIFEST_INVALID),
    "manifest without its config": Damage.manifest(
        image(config=descriptor(b"none", CONFIG)), Kind.PART_MISSING
    ),
    "manifest without a layer": Damage.manifest(
        image(layers=[descriptor(b"none")]), Kind.PART_MISSING
    ),
    "index that names no stored child": Damage.manifest(
        index(descriptor(b"none", OCI_IMAGE)), Kind.PART_MISSING
    ),
    "config of another size": Damage.manifest(
        image(config={**descriptor(b"{}", CONFIG), "size": 3}), Kind.SIZE_WRONG
    ),
    "layer of another size": Damage.manifest(
        image(layers=[{**descriptor(b"layer"), "size": 4}]), Kind.SIZE_WRONG
    ),
    "child of another size": Damage.manifest(
        index({**descriptor(CHILD, OCI_IMAGE), "size": 1}), Kind.SIZE_WRONG
    ),
    "malformed media type": Damage.going(MEDIA_TYPE, b"?", Kind.TYPE_MALFORMED),

    "upload without data": Damage.removed(
        {layout.upload_started(NAME, UPLOAD): b"2020-01-01T00:00:00Z"},
        Kind.UPLOAD_INCOMPLETE, layout.upload_folder(NAME, UPLOAD),
    ),
    "upload without startedat": Damage.removed(
        {layout.upload_data(NAME, UPLOAD): b"?"},
        Kind.UPLOAD_INCOMPLETE, layout.upload_folder(NAME, UPLOAD),
    ),
    "upload with neither": Damage.removed(
        {layout.upload_checkpoint(NAME, UPLOAD): b"?"},
        Kind.UPLOAD_INCOMPLETE, layout.upload_folder(NAME, UPLOAD),
    ),

    "repository without _layers": Damage(
        {layout.layers_folder("other"): None},
        {(Kind.REPOSITORY_UNMARKED, layout.repository_folder("other")),
         (Kind.PART_UNLINKED, OTHER_REVISION)},
        ("v1",), {layout.layers_marker("other"): b""}, (),
        {(Kind.PART_UNLINKED, OTHER_REVISION)}, ("v1",),
    ),

    "stray file among blobs": stray(f"{layout.BLOBS}/sha256/notes"),
    "stray file in the folder of a blob": stray(f"{LAYER}.bak"),
    "stray file in a repository": stray(f"{layout.repository_folder(NAME)}/_layers/sha256/notes"),
    "stray file among repositories": stray(f"{layout.REPOSITORIES}/notes"),
    "stray file among tags": stray(f"{layout.tags_folder(NAME)}/notes"),
    "stray file among uploads": stray(f"{layout.uploads_folder(NAME)}/notes"),
    "stray file in Distribution's folder": stray("docker/registry/v2/notes"),
    "stray file in our folder": stray("twisted-registry/notes"),
    "stray file in the trash": stray(f"{layout.TRASHED_BLOBS}/sha256/notes"),
    "file for a folder": stray(f"{layout.repository_folder('third')}/_manifests"),

    "torn list": Damage.removed(
        {layout.DELETE_LIST: LIST[:-2]}, Kind.RECORD_TORN, layout.DELETE_LIST
    ),
    "empty list": Damage.removed({layout.DELETE_LIST: b""}, Kind.RECORD_TORN, layout.DELETE_LIST),
    "leases of a list that is gone": Damage.removed(
        {layout.lease_file("1", Digest.of(b"layer")): b""}, Kind.LEFTOVERS, LEASES
    ),
    "torn secret": Damage.lasting(
        {layout.UPLOAD_SECRET: b"short"}, {(Kind.RECORD_TORN, layout.UPLOAD_SECRET)}
    ),
    "empty blob in the trash": Damage.going(TRASHED_BLOB, b"", Kind.TRASH_CORRUPT),
    "truncated blob in the trash": Damage.going(TRASHED_BLOB, b"on", Kind.TRASH_CORRUPT),
    "torn layer in the trash": Damage.going(TRASHED_LAYER, b"sha256:0", Kind.RECORD_TORN),
    "torn manifest in the trash": Damage.going(TRASHED_MANIFEST, b"?", Kind.RECORD_TORN),
    "torn tag in the trash": Damage.going(TRASHED_TAG, b"-\nsha256:0", Kind.RECORD_TORN),
    "empty tag in the trash": Damage.going(TRASHED_TAG, b"", Kind.RECORD_TORN),
}  # fmt: skip
