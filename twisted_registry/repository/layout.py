"""Paths in the store. No other module builds them.

The tree is that of CNCF Distribution, so that each of the two can serve what the other has
written::

    docker/registry/v2/
      blobs/<algorithm>/<first two hex>/<hex>/data
      repositories/<name>/_layers/<algorithm>/<hex>/link
      repositories/<name>/_manifests/revisions/<algorithm>/<hex>/link
      repositories/<name>/_manifests/tags/<tag>/current/link
      repositories/<name>/_manifests/tags/<tag>/index/<algorithm>/<hex>/link
      repositories/<name>/_uploads/<id>/data, startedat

Distribution ignores the paths that it does not know::

      repositories/<name>/_manifests/revisions/<algorithm>/<hex>/mediatype, subject, descriptor
      repositories/<name>/_referrers/<algorithm>/<hex>/<algorithm>/<hex>/link
      repositories/<name>/_referrers/scanned
      repositories/<name>/_uploads/<id>/checkpoint
      repositories/<name>/_layers/repository
    twisted-registry/upload-secret
    twisted-registry/tokens/keys
    twisted-registry/tokens/<id>
    twisted-registry/tokens/users/<user>/<id>
    twisted-registry/collector/list, clock
    twisted-registry/collector/leases/<list>/<algorithm>/<hex>
    twisted-registry/collector/processes/<id>
    twisted-registry/tasks/<task>/running, last
    twisted-registry/pulls/since, recording
    twisted-registry/pulls/batches/<id>
    twisted-registry/pulls/times/<name>/_times
    twisted-registry/quotas/count, counting
    twisted-registry/quotas/changes/<process>
    twisted-registry/quotas/pushed/<user>/<repository>/<algorithm>/<hex>
    twisted-registry/quotas/pushed/<user>/<repository>/uploads/<id>
    twisted-registry/scrub
    twisted-registry/rules
    twisted-registry/start-check
    twisted-registry/quarantine/<time>/<path>
    twisted-registry/incoming/<algorithm>/<hex>
    twisted-registry/trash/blobs/<algorithm>/<first two hex>/<hex>/<stamp>
    twisted-registry/trash/repositories/<name>/_layers/<algorithm>/<hex>/<stamp>
    twisted-registry/trash/repositories/<name>/_revisions/<algorithm>/<hex>/<stamp>
    twisted-registry/trash/repositories/<name>/_tags/<tag>/<stamp>

:mod:`twisted_registry.tls.sources` uses ``twisted-registry/tls/``, and the queue of notifications
``twisted-registry/notifications/``, in filesystems only.

A link is a file that contains a digest as text. Below ``quotas``, ``<user>`` and ``<repository>``
are hashes of names. ``<stamp>`` is the name of a file in the trash, see
:class:`~twisted_registry.repository.trash.TrashEntryName`.
"""

from __future__ import annotations

from twisted_registry.oci.digest import Digest, DigestInvalid

_ROOT = "docker/registry/v2"

REPOSITORIES = f"{_ROOT}/repositories"
BLOBS = f"{_ROOT}/blobs"
UPLOAD_SECRET = "twisted-registry/upload-secret"  # noqa: S105 - a path

#: The folder of the records of tokens.
TOKENS = "twisted-registry/tokens"
#: The keys that sign tokens.
TOKEN_KEYS = f"{TOKENS}/keys"
_USER_TOKENS = f"{TOKENS}/users"
#: Digits of a user in the id of a token that belongs to one.
TOKEN_USER_DIGITS = 16

#: What nobody but the registry may read.
SECRETS = (UPLOAD_SECRET, TOKENS, TOKEN_KEYS)

#: In the folder of a tag: the link to the manifest that it names.
CURRENT_LINK = "current/link"

_COLLECTOR = "twisted-registry/collector"
#: The list of content that a collector is about to remove.
DELETE_LIST = f"{_COLLECTOR}/list"
#: A file that is written to read the clock of the store.
CLOCK = f"{_COLLECTOR}/clock"
LEASES = f"{_COLLECTOR}/leases"
PROCESSES = f"{_COLLECTOR}/processes"
#: Blobs that are being copied from another store.
INCOMING = "twisted-registry/incoming"

TRASH = "twisted-registry/trash"
TRASHED_BLOBS = f"{TRASH}/blobs"
TRASHED_REPOSITORIES = f"{TRASH}/repositories"

_TASKS = "twisted-registry/tasks"

_PULLS = "twisted-registry/pulls"
#: Files whose times say since when pulls are recorded without a gap, and when that was done last.
PULLS_SINCE = f"{_PULLS}/since"
PULLS_RECORDING = f"{_PULLS}/recording"
#: Recent pulls, as each process has recorded them.
PULL_BATCHES = f"{_PULLS}/batches"
_QUOTAS = "twisted-registry/quotas"
#: The bytes that are in use, and the ID of the count that is being made.
QUOTA_COUNT = f"{_QUOTAS}/count"
QUOTA_COUNTING = f"{_QUOTAS}/counting"
#: What each process has added since the count.
QUOTA_CHANGES = f"{_QUOTAS}/changes"
#: Who pushed what, of users that a quota limits.
PUSHED = f"{_QUOTAS}/pushed"
#: The folder of the uploads that a user has begun, beside those of the digest algorithms.
_PUSHED_UPLOADS = "uploads"
#: The position of the scrub.
SCRUB = "twisted-registry/scrub"
#: The digest of the rules that the store was last served with, for the audit log.
RULES_DIGEST = "twisted-registry/rules"
#: The queue of notifications, in the root directory of a store of files.
EVENT_QUEUE = "twisted-registry/notifications/events.sqlite"
#: A file that is stored and deleted again, to find out whether the store takes files.
START_CHECK = "twisted-registry/start-check"
#: The folder of what ``twisted-registry doctor`` stores and deletes again.
DOCTOR = "twisted-registry/doctor"
#: Files that were found to be damaged.
QUARANTINE = "twisted-registry/quarantine"

#: Bytes that are read of a link at most. A longer file is damaged.
MAX_LINK_BYTES = 64 * 1024
#: Bytes that are read at most of a file with a media type.
MAX_MEDIA_TYPE_BYTES = 1024
#: Bytes that are read at most of a manifest: more than any registry accepts, because the registry
#: that stored it may have had another limit.
MAX_MANIFEST_READ_BYTES = 64 * 1024 * 1024

#: Folders that only the registry uses, and the names that may occur in them.
KNOWN_FOLDERS = {
    _ROOT: frozenset({"blobs", "repositories"}),
    "twisted-registry": frozenset(
        {
            *("upload-secret", "tokens", "collector", "incoming", "trash", "tasks", "pulls"),
            *(
                "quotas",
                "rules",
                "scrub",
                "start-check",
                "doctor",
                "quarantine",
                "tls",
                "notifications",
            ),
        }
    ),
}

#: Folders that belong to a repository begin with this. No component of a name does.
RESERVED_PREFIX = "_"
#: A folder that has one of these is a repository. Distribution 2.8.3 looks for the first, 3.x for
#: the second.
REPOSITORY_MARKERS = ("_layers", "_manifests")
#: A folder that has one of these is, or was, a repository.
LEFTOVER_MARKERS = (*REPOSITORY_MARKERS, "_referrers")
#: A folder that has this may have manifests.
MANIFEST_MARKERS = ("_manifests",)
#: A folder that has this may have links to blobs.
LAYER_MARKERS = ("_layers",)
#: A folder that has this may have uploads; it need not be a repository yet.
UPLOAD_MARKERS = ("_uploads",)
#: A folder that has one of these may have bytes of clients.
CONTENT_MARKERS = (*LAYER_MARKERS, *MANIFEST_MARKERS, *UPLOAD_MARKERS)


def _digest_path(folder: str, digest: Digest) -> str:
    return f"{folder}/{digest.algorithm}/{digest.hex}"


def blob_data(digest: Digest) -> str:
    """Return the file with the bytes of a blob or manifest."""
    return f"{blob_folder(digest)}/data"


def blob_folder(digest: Digest) -> str:
    """Return the folder that contains only the bytes of a blob or manifest."""
    return f"{BLOBS}/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"


def digest_of_blob(path: str) -> Digest | None:
    """Return the digest whose bytes a path is for, or None if it is for none."""
    parts = path.removeprefix(f"{BLOBS}/").split("/")
    if len(parts) != 4:
        return None
    try:
        digest = Digest.parse(f"{parts[0]}:{parts[2]}")
    except DigestInvalid:
        return None
    return digest if blob_data(digest) == path else None


def repository_folder(name: str) -> str:
    """Return the folder of a repository and of those below it."""
    return f"{REPOSITORIES}/{name}"


def layers_folder(name: str) -> str:
    """Return the folder of links to blobs. It makes a repository for Distribution 2.8.3."""
    return f"{repository_folder(name)}/_layers"


def layers_marker(name: str) -> str:
    """Return the file that creates that folder in a repository that links no blob."""
    return f"{layers_folder(name)}/repository"


def layer_folder(name: str, digest: Digest) -> str:
    """Return the folder of the link of a repository to a blob."""
    return _digest_path(layers_folder(name), digest)


def layer_link(name: str, digest: Digest) -> str:
    """Return the link that makes a repository hold a blob."""
    return f"{layer_folder(name, digest)}/link"


def manifests_folder(name: str) -> str:
    """Return the folder of a repository's revisions and tags."""
    return f"{repository_folder(name)}/_manifests"


def revisions_folder(name: str) -> str:
    """Return the folder of a repository's manifests: a folder for each digest algorithm."""
    return f"{manifests_folder(name)}/revisions"


def revision_folder(name: str, digest: Digest) -> str:
    """Return the folder of one manifest."""
    return _digest_path(revisions_folder(name), digest)


def revision_link(name: str, digest: Digest) -> str:
    """Return the link that makes a repository hold a manifest."""
    return f"{revision_folder(name, digest)}/link"


def revision_media_type(name: str, digest: Digest) -> str:
    """Return the file with the media type of a manifest that does not declare one."""
    return f"{revision_folder(name, digest)}/mediatype"


def revision_subject(name: str, digest: Digest) -> str:
    """Return the file with the record of the subject of a manifest."""
    return f"{revision_folder(name, digest)}/subject"


def revision_descriptor(name: str, digest: Digest) -> str:
    """Return the file with the descriptor of a manifest that does not fit into its record."""
    return f"{revision_folder(name, digest)}/descriptor"


def digest_of_link(path: str) -> Digest | None:
    """Return the digest in the path of a link, or None if there is none."""
    parts = path.split("/")
    if len(parts) < 3 or parts[-1] != "link":
        return None
    try:
        return Digest.parse(f"{parts[-3]}:{parts[-2]}")
    except DigestInvalid:
        return None


def tags_folder(name: str) -> str:
    """Return the folder of a repository's tags."""
    return f"{manifests_folder(name)}/tags"


def tag_folder(name: str, tag_name: str) -> str:
    """Return the folder of a tag."""
    return f"{tags_folder(name)}/{tag_name}"


def tag_current_link(name: str, tag_name: str) -> str:
    """Return the link to the manifest that a tag names."""
    return f"{tag_folder(name, tag_name)}/{CURRENT_LINK}"


def index_link(digest: Digest) -> str:
    """Return the path in the folder of a tag that says that it names or named a manifest."""
    return f"{_digest_path('index', digest)}/link"


def tag_index_link(name: str, tag_name: str, digest: Digest) -> str:
    """Return the link that says that a tag names or named a manifest."""
    return f"{tag_folder(name, tag_name)}/{index_link(digest)}"


def revision_of_link(name: str, path: str) -> Digest | None:
    """Return the manifest that a path is the link of, or None if it is another file."""
    digest = digest_of_link(path)
    is_link = digest is not None and path == revision_link(name, digest)
    return digest if is_link else None


def is_tag_link(name: str, path: str) -> bool:
    """Return whether a path is the link of a tag to the manifest that it names."""
    return path.startswith(f"{tags_folder(name)}/") and path.endswith(f"/{CURRENT_LINK}")


def uploads_folder(name: str) -> str:
    """Return the folder of a repository's uploads."""
    return f"{repository_folder(name)}/_uploads"


def upload_folder(name: str, upload_id: str) -> str:
    """Return the folder of an upload."""
    return f"{uploads_folder(name)}/{upload_id}"


def upload_data(name: str, upload_id: str) -> str:
    """Return the file with the bytes of an upload so far."""
    return f"{upload_folder(name, upload_id)}/data"


def upload_started(name: str, upload_id: str) -> str:
    """Return the file with the time at which an upload began (RFC 3339)."""
    return f"{upload_folder(name, upload_id)}/startedat"


def upload_checkpoint(name: str, upload_id: str) -> str:
    """Return the file with the digest of an upload's bytes so far."""
    return f"{upload_folder(name, upload_id)}/checkpoint"


def referrers_folder(name: str) -> str:
    """Return the folder of the referrers of a repository."""
    return f"{repository_folder(name)}/_referrers"


def subject_folder(name: str, subject: Digest) -> str:
    """Return the folder of the referrers of a subject: a folder for each digest algorithm."""
    return _digest_path(referrers_folder(name), subject)


def referrer_link(name: str, subject: Digest, digest: Digest) -> str:
    """Return the link that says that a manifest names a subject."""
    return f"{_digest_path(subject_folder(name, subject), digest)}/link"


def referrers_scanned(name: str) -> str:
    """Return the file that lists the revisions that were searched for a subject."""
    return f"{referrers_folder(name)}/scanned"


def leases_folder(list_id: str) -> str:
    """Return the folder of the leases on the content of a list."""
    return f"{LEASES}/{list_id}"


def lease_file(list_id: str, digest: Digest) -> str:
    """Return the file that says that listed content was reported present to a client."""
    return _digest_path(leases_folder(list_id), digest)


def token_record(token_id: str) -> str:
    """Return the record of a token, which does not contain the token.

    :param token_id: begins with the :data:`TOKEN_USER_DIGITS` digits of a user if it is longer.
    """
    user, of_user = token_id[:TOKEN_USER_DIGITS], token_id[TOKEN_USER_DIGITS:]
    return f"{user_tokens_folder(user)}/{of_user}" if of_user else f"{TOKENS}/{token_id}"


def user_tokens_folder(user: str) -> str:
    """Return the folder of the records of a user's tokens.

    :param user: the digits of the user.
    """
    return f"{_USER_TOKENS}/{user}"


def token_of_record(path: str) -> str:
    """Return the id of the token that a path below :data:`TOKENS` is for, if it is a record."""
    token_id = path.rpartition("/")[2]
    if path.startswith(f"{_USER_TOKENS}/"):
        token_id = path.removeprefix(f"{_USER_TOKENS}/").replace("/", "")
    return token_id


def process_record(process_id: str) -> str:
    """Return the record of a serving process: its list, and by its time that it still runs."""
    return f"{PROCESSES}/{process_id}"


def task_running(task: str) -> str:
    """Return the file that says who runs a task, and by its time that it still runs."""
    return f"{_TASKS}/{task}/running"


def task_last(task: str) -> str:
    """Return the file with the result of the last run of a task."""
    return f"{_TASKS}/{task}/last"


def quarantined_file(stamp: str, path: str) -> str:
    """Return the path to which a damaged file is moved.

    :param stamp: identifies the run that found it.
    :param path: its path before.
    """
    return f"{QUARANTINE}/{stamp}/{path}"


def incoming_blob(digest: Digest) -> str:
    """Return the file with the bytes of a blob that is being copied from another store."""
    return _digest_path(INCOMING, digest)


def pull_batch(batch: str) -> str:
    """Return the file with the pulls that one process has seen in one interval."""
    return f"{PULL_BATCHES}/{batch}"


def pull_times(name: str) -> str:
    """Return the file with the times at which the manifests of a repository were pulled last."""
    return f"{_PULLS}/times/{name}/_times"


def quota_changes(process: str) -> str:
    """Return the file with what a process has added since the count."""
    return f"{QUOTA_CHANGES}/{process}"


def pushed_folder(user: str, repository: str) -> str:
    """Return the folder of what a user has pushed to a repository.

    :param user: the hash of the name of the user.
    :param repository: the hash of the name of the repository.
    """
    return f"{PUSHED}/{user}/{repository}"


def pushed_content(folder: str, digest: Digest) -> str:
    """Return the file that says that a user has pushed a blob or manifest.

    :param folder: as from :func:`pushed_folder`.
    """
    return _digest_path(folder, digest)


def pushed_upload(folder: str, upload_id: str) -> str:
    """Return the file that says that a user has begun an upload.

    :param folder: as from :func:`pushed_folder`.
    """
    return f"{folder}/{_PUSHED_UPLOADS}/{upload_id}"


def parse_pushed(path: str) -> Digest | str | None:
    """Return the digest or the ID of the upload in the path of such a file, or None."""
    kind, name = path.split("/")[-2:]
    if kind == _PUSHED_UPLOADS:
        return name
    try:
        return Digest.parse(f"{kind}:{name}")
    except DigestInvalid:
        return None


def trashed_blob_folder(digest: Digest) -> str:
    """Return the folder of the trashed bytes of a blob or manifest: each file has all of them."""
    return f"{TRASHED_BLOBS}/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"


def trashed_repository_folder(name: str) -> str:
    """Return the folder of the trash of a repository, and of those below it."""
    return f"{TRASHED_REPOSITORIES}/{name}"


def trashed_layer_folder(name: str, digest: Digest) -> str:
    """Return the folder of a repository's trashed links to a blob."""
    return _digest_path(f"{trashed_repository_folder(name)}/_layers", digest)


def trashed_revision_folder(name: str, digest: Digest) -> str:
    """Return the folder of records of a trashed manifest: its media type if it declares none."""
    return _digest_path(f"{trashed_repository_folder(name)}/_revisions", digest)


def trashed_tag_folder(name: str, tag_name: str) -> str:
    """Return the folder of the changes of a tag: a file for each."""
    return f"{trashed_repository_folder(name)}/_tags/{tag_name}"
