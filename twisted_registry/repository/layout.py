"""Where things lie: the only module that knows the paths of the store.

The tree is that of CNCF Distribution, unchanged, so that either can serve what the other
wrote::

    docker/registry/v2/
      blobs/<algorithm>/<first two hex>/<hex>/data
      repositories/<name>/_layers/<algorithm>/<hex>/link
      repositories/<name>/_manifests/revisions/<algorithm>/<hex>/link
      repositories/<name>/_manifests/tags/<tag>/current/link
      repositories/<name>/_manifests/tags/<tag>/index/<algorithm>/<hex>/link
      repositories/<name>/_uploads/<id>/data, startedat

What Distribution does not know, it ignores::

      repositories/<name>/_manifests/revisions/<algorithm>/<hex>/mediatype
      repositories/<name>/_referrers/<algorithm>/<hex>/<algorithm>/<hex>/link
      repositories/<name>/_referrers/scanned
      repositories/<name>/_uploads/<id>/checkpoint
      repositories/<name>/_layers/repository
    twisted-registry/upload-secret
    twisted-registry/tokens/<id>
    twisted-registry/collector/list, clock
    twisted-registry/collector/leases/<list>/<algorithm>/<hex>
    twisted-registry/collector/processes/<id>
    twisted-registry/tasks/<task>/running, last
    twisted-registry/pulls/since, recording
    twisted-registry/pulls/batches/<id>
    twisted-registry/pulls/times/<name>/_times
    twisted-registry/scrub
    twisted-registry/quarantine/<time>/<path>
    twisted-registry/incoming/<algorithm>/<hex>
    twisted-registry/trash/blobs/<algorithm>/<first two hex>/<hex>/<stamp>
    twisted-registry/trash/repositories/<name>/_layers/<algorithm>/<hex>/<stamp>
    twisted-registry/trash/repositories/<name>/_revisions/<algorithm>/<hex>/<stamp>
    twisted-registry/trash/repositories/<name>/_tags/<tag>/<stamp>
    twisted-registry/tls/ is that of :mod:`twisted_registry.tls.sources`, in directories alone

A link is a file that holds a digest as text.
"""

from __future__ import annotations

from twisted_registry.oci.digest import Digest, DigestInvalid

_ROOT = "docker/registry/v2"

REPOSITORIES = f"{_ROOT}/repositories"
BLOBS = f"{_ROOT}/blobs"
UPLOAD_SECRET = "twisted-registry/upload-secret"  # noqa: S105 - a path

#: Of tokens that are good until they expire or are revoked.
TOKENS = "twisted-registry/tokens"

#: Inside the folder of a tag: says which manifest it names.
CURRENT_LINK = "current/link"

_COLLECTOR = "twisted-registry/collector"
#: What a collector means to remove.
DELETE_LIST = f"{_COLLECTOR}/list"
#: Written to learn what time it is for the store.
CLOCK = f"{_COLLECTOR}/clock"
LEASES = f"{_COLLECTOR}/leases"
PROCESSES = f"{_COLLECTOR}/processes"
#: Blobs on their way from another store.
INCOMING = "twisted-registry/incoming"

TRASH = "twisted-registry/trash"
TRASHED_BLOBS = f"{TRASH}/blobs"
TRASHED_REPOSITORIES = f"{TRASH}/repositories"

_TASKS = "twisted-registry/tasks"

_PULLS = "twisted-registry/pulls"
#: By its time: since when pulls are recorded without a gap, and when that was done last.
PULLS_SINCE = f"{_PULLS}/since"
PULLS_RECORDING = f"{_PULLS}/recording"
#: What was pulled lately, as processes note it.
PULL_BATCHES = f"{_PULLS}/batches"
#: How far the scrub has come.
SCRUB = "twisted-registry/scrub"
#: What was found to be damaged.
QUARANTINE = "twisted-registry/quarantine"

#: Bytes that are read of a link at most. A longer file is damaged.
MAX_LINK_BYTES = 64 * 1024
#: Bytes that are read at most of a file with a media type.
MAX_MEDIA_TYPE_BYTES = 1024
#: Bytes that are read at most of a manifest: more than any registry accepts, because the registry
#: that stored it may have had another limit.
MAX_MANIFEST_READ_BYTES = 64 * 1024 * 1024

#: The folders in which nothing lies but what has one of these names.
KNOWN_FOLDERS = {
    _ROOT: frozenset({"blobs", "repositories"}),
    "twisted-registry": frozenset(
        {
            *("upload-secret", "tokens", "collector", "incoming", "trash", "tasks", "pulls"),
            *("scrub", "quarantine", "tls"),
        }
    ),
}

#: What the folders in a repository begin with, and no component of a name.
RESERVED_PREFIX = "_"
#: A folder with one of these is a repository. 2.8.3 looks for the first, 3.x for the second.
REPOSITORY_MARKERS = ("_layers", "_manifests")
#: A folder with one of these is, or was, a repository.
LEFTOVER_MARKERS = (*REPOSITORY_MARKERS, "_referrers")
#: A folder with this has manifests, which may refer to blobs.
MANIFEST_MARKERS = ("_manifests",)
#: A folder with this links blobs.
LAYER_MARKERS = ("_layers",)
#: A folder with this has uploads, though it may hold nothing yet.
UPLOAD_MARKERS = ("_uploads",)


def blob(digest: Digest) -> str:
    """The bytes of a blob or manifest."""
    return f"{BLOBS}/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}/data"


def blob_folder(digest: Digest) -> str:
    """The folder that holds nothing but the bytes of a blob or manifest."""
    return f"{BLOBS}/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"


def digest_of_blob(path: str) -> Digest | None:
    """The digest whose bytes lie under a path, or None if it is not the path of any."""
    parts = path.removeprefix(f"{BLOBS}/").split("/")
    if len(parts) != 4:
        return None
    try:
        digest = Digest.parse(f"{parts[0]}:{parts[2]}")
    except DigestInvalid:
        return None
    return digest if blob(digest) == path else None


def repository(name: str) -> str:
    """The folder of a repository, and of those below it."""
    return f"{REPOSITORIES}/{name}"


def layers(name: str) -> str:
    """The folder whose presence makes a folder a repository for 2.8.3."""
    return f"{REPOSITORIES}/{name}/_layers"


def layers_marker(name: str) -> str:
    """A file that makes that folder in a repository without blobs of its own."""
    return f"{layers(name)}/repository"


def layer(name: str, digest: Digest) -> str:
    """The folder of the link of a repository to a blob."""
    return f"{layers(name)}/{digest.algorithm}/{digest.hex}"


def layer_link(name: str, digest: Digest) -> str:
    """Says that the repository holds a blob."""
    return f"{REPOSITORIES}/{name}/_layers/{digest.algorithm}/{digest.hex}/link"


def manifests(name: str) -> str:
    """The folder of a repository's revisions and tags."""
    return f"{REPOSITORIES}/{name}/_manifests"


def revisions(name: str, algorithm: str) -> str:
    """The folder of the manifests of one digest algorithm."""
    return f"{all_revisions(name)}/{algorithm}"


def revision(name: str, digest: Digest) -> str:
    """The folder of one manifest."""
    return f"{revisions(name, digest.algorithm)}/{digest.hex}"


def revision_link(name: str, digest: Digest) -> str:
    """Says that the repository holds a manifest."""
    return f"{REPOSITORIES}/{name}/_manifests/revisions/{digest.algorithm}/{digest.hex}/link"


def revision_media_type(name: str, digest: Digest) -> str:
    """The media type of a manifest that does not tell its own."""
    return f"{revision(name, digest)}/mediatype"


def all_revisions(name: str) -> str:
    """The folder of a repository's manifests, whatever their digest algorithm."""
    return f"{manifests(name)}/revisions"


def digest_of_link(path: str) -> Digest | None:
    """The digest that a link is named after, or None if it is not named after any."""
    parts = path.split("/")
    if len(parts) < 3 or parts[-1] != "link":
        return None
    try:
        return Digest.parse(f"{parts[-3]}:{parts[-2]}")
    except DigestInvalid:
        return None


def tags(name: str) -> str:
    """The folder of a repository's tags."""
    return f"{manifests(name)}/tags"


def tag(name: str, tag_name: str) -> str:
    """The folder of a tag."""
    return f"{tags(name)}/{tag_name}"


def tag_current(name: str, tag_name: str) -> str:
    """Says which manifest a tag names."""
    return f"{REPOSITORIES}/{name}/_manifests/tags/{tag_name}/{CURRENT_LINK}"


def index(digest: Digest) -> str:
    """Inside the folder of a tag: says that it names or named a manifest."""
    return f"index/{digest.algorithm}/{digest.hex}/link"


def tag_index(name: str, tag_name: str, digest: Digest) -> str:
    """Says that a tag names or named a manifest."""
    return f"{tag(name, tag_name)}/{index(digest)}"


def uploads(name: str) -> str:
    """The folder of a repository's uploads."""
    return f"{REPOSITORIES}/{name}/_uploads"


def upload(name: str, upload_id: str) -> str:
    """The folder of an upload."""
    return f"{uploads(name)}/{upload_id}"


def upload_data(name: str, upload_id: str) -> str:
    """The bytes of an upload so far."""
    return f"{upload(name, upload_id)}/data"


def upload_started(name: str, upload_id: str) -> str:
    """When an upload began (RFC 3339)."""
    return f"{upload(name, upload_id)}/startedat"


def upload_checkpoint(name: str, upload_id: str) -> str:
    """The digest of an upload's bytes so far."""
    return f"{upload(name, upload_id)}/checkpoint"


def all_referrers(name: str) -> str:
    """The folder of what a repository knows of referrers."""
    return f"{REPOSITORIES}/{name}/_referrers"


def referrers(name: str, subject: Digest) -> str:
    """The folder of what refers to a subject: a folder for each algorithm."""
    return f"{all_referrers(name)}/{subject.algorithm}/{subject.hex}"


def referrer_link(name: str, subject: Digest, digest: Digest) -> str:
    """Says that a manifest names a subject."""
    return f"{referrers(name, subject)}/{digest.algorithm}/{digest.hex}/link"


def referrers_scanned(name: str) -> str:
    """Which revisions were searched for a subject."""
    return f"{all_referrers(name)}/scanned"


def leases(list_id: str) -> str:
    """The folder of the leases on what a collector has listed."""
    return f"{LEASES}/{list_id}"


def lease(list_id: str, digest: Digest) -> str:
    """Says that a client was told of this content while it was proposed for removal."""
    return f"{leases(list_id)}/{digest.algorithm}/{digest.hex}"


def token(token_id: str) -> str:
    """The record of a token, without the token."""
    return f"{TOKENS}/{token_id}"


def process(process_id: str) -> str:
    """The record of a serving process: which list it obeys, and by its time that it lives."""
    return f"{PROCESSES}/{process_id}"


def task_running(task: str) -> str:
    """Says who runs a task, and by its time that he goes on."""
    return f"{_TASKS}/{task}/running"


def task_last(task: str) -> str:
    """How the run of a task that ended last went."""
    return f"{_TASKS}/{task}/last"


def quarantine_path(stamp: str, path: str) -> str:
    """Where something lies that was found to be damaged.

    :param stamp: tells the runs apart that found it.
    :param path: where it lay before.
    """
    return f"{QUARANTINE}/{stamp}/{path}"


def incoming(digest: Digest) -> str:
    """The bytes of a blob that is being copied from another store."""
    return f"{INCOMING}/{digest.algorithm}/{digest.hex}"


def pull_batch(batch: str) -> str:
    """What one process saw pulled in one stretch of time."""
    return f"{PULL_BATCHES}/{batch}"


def pull_times(name: str) -> str:
    """When the manifests of a repository were pulled last."""
    return f"{_PULLS}/times/{name}/_times"


def trashed_blob(digest: Digest) -> str:
    """The folder of what was kept of a blob's or manifest's bytes: each file holds all of them."""
    return f"{TRASHED_BLOBS}/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"


def trashed_repository(name: str) -> str:
    """The folder of what was taken out of a repository, and out of those below it."""
    return f"{TRASHED_REPOSITORIES}/{name}"


def trashed_layer(name: str, digest: Digest) -> str:
    """The folder of what was kept of a repository's link to a blob."""
    return f"{trashed_repository(name)}/_layers/{digest.algorithm}/{digest.hex}"


def trashed_revision(name: str, digest: Digest) -> str:
    """The folder of what was kept of a manifest: the media type, if it does not tell its own."""
    return f"{trashed_repository(name)}/_revisions/{digest.algorithm}/{digest.hex}"


def trashed_tag(name: str, tag_name: str) -> str:
    """The folder of what a tag named, a file for each change."""
    return f"{trashed_repository(name)}/_tags/{tag_name}"
