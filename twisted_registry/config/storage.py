"""``storage.maintenance.retention``: which tags go by themselves, and which never do.

The ``storage`` section: exactly one driver, and what holds for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_registry.config import values
from twisted_registry.config.access import patterns
from twisted_registry.config.kinds import (
    Duration,
    Kind,
    ListOf,
    OpaqueSection,
    Percentage,
    Scalar,
    boolean,
    duration,
    integer,
    size,
    text,
)
from twisted_registry.config.s3 import S3
from twisted_registry.config.sections import Section, SectionBase, key, schema, section
from twisted_registry.oci import patterns as patterns_module

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted_registry.config.document import Node, Report


def _tag_pattern(node: Node) -> str:
    said = values.text(node)
    patterns_module.Glob.parse_tag(said.removeprefix("!"))
    return said


def _tags(doc: str, **more: Any) -> Any:
    kind = ListOf("a list of patterns", Scalar(patterns_module.TAG_GLOB_SYNTAX, _tag_pattern))
    return key(kind, doc, extension=True, **more)


@schema
class Immutable(SectionBase):
    """``storage.maintenance.retention.immutable[]``."""

    repositories: tuple[str, ...] = patterns("Where: as in ``access``.")
    tags: tuple[str, ...] = _tags(
        "Which tags: names and patterns, as ``v*``; one with ``!`` in front takes away what the"
        " others choose.", default=(), required=True,
    )  # fmt: skip


@schema
class Rule(SectionBase):
    """``storage.maintenance.retention.rules[]``."""

    repositories: tuple[str, ...] = patterns("Where: as in ``access``.")
    tags: tuple[str, ...] = _tags("Which tags.", default=("*",))
    newest: int = key(
        integer(0), "Keep so many of each repository, those that were pushed last.", default=0,
        extension=True,
    )  # fmt: skip
    pushedwithin: float = key(
        duration(), "Keep what was pushed in so long a time.", default=0.0, extension=True
    )
    pulledwithin: float = key(
        duration(), "Keep what was pulled in so long a time, or before that was recorded.",
        default=0.0, extension=True,
    )  # fmt: skip
    always: tuple[str, ...] = _tags("Keep these tags.", default=())


@schema
class Retention(SectionBase):
    """``storage.maintenance.retention``."""

    enabled: bool = key(
        boolean(), "Remove tags that no rule keeps, at intervals.", default=False, extension=True
    )
    interval: float = key(
        duration(positive=True), "How often to look.", default=24 * 3600.0, extension=True
    )
    dryrun: bool = key(boolean(), "Only log what would go.", default=False, extension=True)
    rules: tuple[Rule, ...] = key(
        ListOf("a list of rules", Section("a section", Rule, strict=True)),
        "What is kept. The first rule that chooses a tag decides; a tag that none chooses stays.",
        default=(), extension=True,
    )  # fmt: skip

    immutable: tuple[Immutable, ...] = key(
        ListOf("a list of rules", Section("a section", Immutable, strict=True)),
        "Tags that, once they are there, are neither moved nor deleted: 403 ``DENIED``.",
        default=(), extension=True,
    )  # fmt: skip


def check_retention(retention: Retention, report: Report) -> None:
    """Report rules that would remove everything."""
    for number, rule in enumerate(retention.rules):
        place = f"storage.maintenance.retention.rules[{number}]"
        if not (rule.newest or rule.pushedwithin or rule.pulledwithin or rule.always):
            report.fault(place, "keeps nothing", "newest, pushedwithin, pulledwithin or always")
    if retention.enabled and not retention.rules:
        report.fault("storage.maintenance.retention.enabled", "got true", "rules beside it")


#: The drivers that are served, in the order in which sentences name them.
SERVED_DRIVERS = ("filesystem", "inmemory", "s3", "s3aws")
#: The drivers of Distribution that are known and refused.
UNSERVED_DRIVERS = ("azure", "gcs", "swift", "oss")
DRIVERS = (*SERVED_DRIVERS, *UNSERVED_DRIVERS)
MIN_THREADS = 25
#: Seconds; a presigned URL of S3 can not live longer.
MAX_URL_LIFETIME_S = 7 * 24 * 3600


def _threads(node: Node) -> int:
    return max(values.lenient_integer(node), MIN_THREADS)


def _lifetime(node: Node) -> float:
    value = values.seconds(node)
    if not 1 <= value <= MAX_URL_LIFETIME_S:
        raise ValueError
    return value


def _trash_keep(node: Node) -> float:
    # YAML reads "off" as false.
    return 0.0 if node.value in (False, "off") else values.quoted_seconds(node)


def _options(names: str, **below: Mapping[str, None]) -> Any:
    known: dict[str, Mapping[str, None] | None] = dict.fromkeys(names.split())
    return key(
        OpaqueSection(known={**known, **below}), "Known from Distribution, not served: refused.",
        default=None, secret=True,
    )  # fmt: skip


def _names(names: str) -> Mapping[str, None]:
    return dict.fromkeys(names.split())


@schema
class Filesystem(SectionBase):
    """``storage.filesystem``."""

    rootdirectory: str = key(
        Scalar("a path", values.nonempty_text),
        "The directory that holds ``docker/registry/v2``; made if it is missing. A relative path"
        " starts at the working directory.", default="/var/lib/registry",
    )  # fmt: skip
    maxthreads: int = key(
        Scalar("a whole number", _threads),
        "How many threads may wait for the disk at once. Less than 25 is taken as 25.",
        default=100,
    )  # fmt: skip


@schema
class InMemory(SectionBase):
    """``storage.inmemory``: no keys; everything is gone when the process ends."""


@schema
class Delete(SectionBase):
    """``storage.delete``."""

    enabled: bool = key(
        boolean(), "Allow clients to delete. Else a DELETE is answered 405.", default=False
    )


@schema
class Redirect(SectionBase):
    """``storage.redirect``."""

    disable: bool = key(
        boolean(), "Serve blobs ourselves even if the driver could hand out a URL.", default=False
    )
    lifetime: float = key(
        Duration("a duration from 1s to 168h, as 20m", _lifetime), "How long such a URL is good.",
        default=20 * 60.0, extension=True,
    )  # fmt: skip


@schema
class Cache(SectionBase):
    """``storage.cache``."""

    blobdescriptor: str = key(
        text("inmemory or redis"), "Where sizes and media types are remembered: ``inmemory`` or"
        " ``redis``, which needs the ``redis`` section.", default="",
    )  # fmt: skip
    layerinfo: str = key(
        text("inmemory or redis"), "The old name of ``blobdescriptor``.", default=""
    )
    blobdescriptorsize: int = key(
        integer(0), "How many descriptors ``inmemory`` remembers; 0 is no limit.", default=10_000
    )
    manifestbytes: int = key(
        size(0), "How much memory each process keeps manifests in, with what it has made ready of"
        " them; 0 keeps none.", default=64 * 2**20, extension=True,
    )  # fmt: skip

    @property
    def kind(self) -> str:
        """Of the cache of descriptors, under whichever of its names: inmemory, redis, or empty."""
        asked = self.blobdescriptor or self.layerinfo
        return asked if asked in {"inmemory", "redis"} else ""


def _percentage() -> Kind:
    return Percentage("a percentage from 1% to 100%", values.part)


def _duration_text() -> Kind:
    return Duration("text such as 168h", values.quoted_seconds)


@schema
class UploadPurging(SectionBase):
    """``storage.maintenance.uploadpurging``; as in Distribution, all keys or none."""

    enabled: bool = key(boolean(), "Purge uploads that nobody finished.", default=True)
    age: float = key(
        _duration_text(), "How old an upload must be.", default=168 * 3600.0, required=True
    )
    interval: float = key(
        _duration_text(), "How often to look.", default=24 * 3600.0, required=True
    )
    dryrun: bool = key(boolean(), "Only say what would go.", default=False, required=True)


@schema
class ReadOnly(SectionBase):
    """``storage.maintenance.readonly``."""

    enabled: bool = key(
        boolean(), "Answer everything that changes the store with 405.", default=False
    )


@schema
class GarbageCollection(SectionBase):
    """``storage.maintenance.gc``."""

    enabled: bool = key(
        boolean(), "Remove what nothing refers to, while serving.", default=False, extension=True
    )
    interval: float = key(
        _duration_text(), "How often to collect.", default=24 * 3600.0, extension=True
    )
    grace: float = key(
        _duration_text(), "How long everything that was stored is kept. Less than an hour is warned of: a"
        " push must have ended by then.", default=24 * 3600.0, extension=True,
    )  # fmt: skip
    deleteuntagged: bool = key(
        boolean(), "Also remove manifests that neither a tag nor an index with a tag holds, nor their"
        " subject.", default=False, extension=True,
    )  # fmt: skip
    dryrun: bool = key(boolean(), "Only log what would go.", default=False, extension=True)
    rate: int = key(
        integer(0), "How many manifests to read, and how many things to remove, in a second; 0 is no"
        " limit. The less, the more often a run looks through all links.", default=0, extension=True,
    )  # fmt: skip


@schema
class Scrub(SectionBase):
    """``storage.maintenance.scrub``."""

    enabled: bool = key(
        boolean(), "Read every blob again, and take those away that have changed.", default=False,
        extension=True,
    )  # fmt: skip
    interval: float = key(
        _duration_text(), "How often to begin. A run that was stopped goes on where it was.",
        default=7 * 24 * 3600.0, extension=True,
    )  # fmt: skip
    rate: int = key(
        size(0), "How many bytes are read in a second; 0 is no limit.", default=16 * 2**20,
        extension=True,
    )  # fmt: skip


@schema
class Trash(SectionBase):
    """``storage.maintenance.trash``."""

    keep: float = key(
        Duration("text such as 168h, or off", _trash_keep), "How long what was deleted, collected or"
        " overwritten can be brought back; ``off`` removes it at once.", default=0.0, extension=True,
    )  # fmt: skip
    interval: float = key(
        _duration_text(),
        "How often to remove what has been kept for so long.",
        default=3600.0,
        extension=True,
    )


@schema
class Watermark(SectionBase):
    """``storage.maintenance.watermark``."""

    warn: float = key(
        _percentage(), "From this part of the disk on answers have a Warning header; off if not set.",
        default=0.0, extension=True,
    )  # fmt: skip
    refuse: float = key(
        _percentage(), "From this part of the disk on pushes are answered 507; off if not set.",
        default=0.0, extension=True,
    )  # fmt: skip


@schema
class Maintenance(SectionBase):
    """``storage.maintenance``."""

    uploadpurging: UploadPurging | None = key(
        Section("a section", UploadPurging),
        "Purge uploads that nobody went on with; without the section, as its defaults say. What a"
        " crash left of unfinished files goes with them.",
        default=UploadPurging(),
    )
    readonly: ReadOnly = section(ReadOnly, "Serve pulls only.")
    gc: GarbageCollection = section(
        GarbageCollection,
        "Garbage collection; ``twisted-registry garbage-collect`` goes by ``grace`` as well.",
        extension=True,
    )
    retention: Retention = section(
        Retention, "Which tags go by themselves, and which never do.", extension=True
    )
    watermark: Watermark = section(
        Watermark, "What happens as the disk fills up; for ``storage.filesystem``.", extension=True
    )
    scrub: Scrub = section(
        Scrub, "Bit rot: what is stored is compared with its digest.", extension=True
    )
    trash: Trash = section(
        Trash, "Keep what is removed for some time, so that it can be brought back.", extension=True
    )


@schema
class Tag(SectionBase):
    """``storage.tag``."""

    concurrencylimit: int = key(
        integer(0), "How many tags are looked at together when a manifest is deleted; 0 leaves the"
        " choice to the registry.", default=0,
    )  # fmt: skip


@schema
class Storage(SectionBase):
    """``storage``."""

    filesystem: Filesystem | None = key(
        Section("a section", Filesystem, allows_empty=True), "Keep everything in a directory."
    )
    inmemory: InMemory | None = key(
        Section("a section", InMemory, allows_empty=True),
        "Keep everything in memory. Takes no keys; ``storage: inmemory`` says the same.",
    )
    s3: S3 | None = key(
        Section("a section", S3, allows_empty=True), "Keep everything in a bucket of S3 or of a store"
        " that speaks its language.",
    )  # fmt: skip
    s3aws: S3 | None = key(
        Section("a section", S3, allows_empty=True), "The other name of ``s3``, with the same keys."
    )
    delete: Delete = section(Delete, "Deletes by clients.")
    redirect: Redirect = section(Redirect, "Redirects to the storage.")
    cache: Cache = section(Cache, "A cache of descriptors. Accepted; there is none yet.")
    maintenance: Maintenance = section(Maintenance, "What goes on beside serving.")
    tag: Tag = section(Tag, "Lookups of tags.")
    azure: object = _options(
        """accountname accountkey container connectionstring serviceurl realm rootdirectory
        max_retries retry_delay skipverify""",
        credentials=_names("type clientid tenantid secret"),
    )
    gcs: object = _options(
        "bucket keyfile rootdirectory chunksize useragent maxconcurrency",
        credentials=_names(
            """type project_id private_key_id private_key client_email client_id auth_uri
            token_uri auth_provider_x509_cert_url client_x509_cert_url universe_domain"""
        ),
    )
    swift: object = _options(
        """authurl username password container region tenant tenantid domain domainid
        tenantdomain tenantdomainid trustid insecureskipverify chunksize prefix secretkey
        accesskey authversion endpointtype tempurlcontainerkey tempurlmethods"""
    )
    oss: object = _options(
        """accesskeyid accesskeysecret region endpoint internal bucket encrypt
        encryptionkeyid secure chunksize rootdirectory"""
    )

    @property
    def drivers(self) -> tuple[str, ...]:
        """The names of the drivers that are set; one, once the configuration is checked."""
        return tuple(name for name in DRIVERS if getattr(self, name) is not None)

    @property
    def bucket(self) -> S3 | None:
        """The options of ``s3``, under whichever of its names."""
        return self.s3 or self.s3aws
