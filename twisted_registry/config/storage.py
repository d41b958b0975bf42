"""The ``storage`` section (driver, deletes, redirects, caches, maintenance), and ``redis``.

``redis`` is the server of the descriptor cache (``storage.cache``). It has the form of Distribution
2.8 (``addr``, ``pool``) or 3 (``addrs``). Keys that describe clusters, sentinels and retries are
accepted without effect, because the cache uses one server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted_registry.config import values
from twisted_registry.config.access import patterns, patterns_key
from twisted_registry.config.document import quote_value
from twisted_registry.config.kinds import (
    Duration,
    ListOf,
    OpaqueSection,
    Percentage,
    Scalar,
    boolean,
    duration,
    integer,
    size,
    text,
    text_list,
)
from twisted_registry.config.plugins import Plugin
from twisted_registry.config.s3 import S3
from twisted_registry.config.sections import Section, SectionBase, key, section
from twisted_registry.oci.patterns import TAG_GLOB_SYNTAX, Glob

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted_registry.config.document import Node, Report

#: The drivers that are served, in the order of messages. ``s3aws`` is another name of ``s3``.
SERVED_DRIVERS: Final = ("filesystem", "inmemory", "plugin", "s3", "s3aws")
#: The drivers of Distribution that are known and rejected.
UNSERVED_DRIVERS: Final = ("azure", "gcs", "swift", "oss")
DRIVERS: Final = (*SERVED_DRIVERS, *UNSERVED_DRIVERS)
MIN_THREADS: Final = 25
#: S3 does not presign URLs for longer.
MAX_URL_LIFETIME_S: Final = 7 * 24 * 3600
#: The default of ``storage.cache.blobdescriptorsize``.
DEFAULT_DESCRIPTORS: Final = 10_000


def _threads(node: Node) -> int:
    return max(values.lenient_integer(node), MIN_THREADS)


def _trash_keep(node: Node) -> float:
    # YAML reads "off" as false.
    return 0.0 if node.value in (False, "off") else values.text_duration_seconds(node)


_PERCENTAGE: Final = Percentage("a percentage from 1% to 100%", values.percentage)
_TEXT_DURATION: Final = Duration(
    "a duration with a unit, such as 168h", values.text_duration_seconds
)
_TAGS: Final = patterns(TAG_GLOB_SYNTAX, Glob.parse_tag)


def _unserved_driver_key(names: str, **below: str) -> Any:
    """Declare a section of a driver that is rejected.

    :param names: the names of its keys, separated by spaces.
    :param below: the names of the keys of sections below it.
    """
    known: dict[str, Mapping[str, None] | None] = dict.fromkeys(names.split())
    known |= {name: dict.fromkeys(keys.split()) for name, keys in below.items()}
    doc = "A driver of Distribution that is not served: rejected."
    return key(OpaqueSection(known=known), doc, secret=True)


class Filesystem(SectionBase):
    """``storage.filesystem``."""

    rootdirectory: str = key(
        Scalar("a path", values.nonempty_text),
        "The directory that contains ``docker/registry/v2``. It is created if it does not exist. A"
        " relative path is relative to the working directory.",
        default="/var/lib/registry",
    )
    maxthreads: int = key(
        Scalar("an integer", _threads),
        "The number of threads for disk access. Less than 25 is read as 25.",
        default=100,
    )
    reserve: int = key(
        size(0),
        "Disk space that is kept back for deletes and maintenance, which need some on a full disk;"
        " at most a fiftieth of the disk. Pushes return 507 while it is used. 0 keeps none.",
        default=16 * 2**20,
        extension=True,
    )


class InMemory(SectionBase):
    """``storage.inmemory``: no keys."""


class Delete(SectionBase):
    """``storage.delete``."""

    enabled: bool = key(
        boolean(), "Allow clients to delete manifests and blobs. Otherwise DELETE returns 405."
    )


class Redirect(SectionBase):
    """``storage.redirect``."""

    disable: bool = key(
        boolean(), "Send blobs through the registry, even if the driver can redirect to a URL."
    )
    lifetime: float = key(
        Duration(
            "a duration from 1s to 168h, such as 20m",
            values.bounded(values.duration_seconds, 1, MAX_URL_LIFETIME_S),
        ),
        "How long such a URL is valid.",
        default=20 * 60.0,
        extension=True,
    )


class Cache(SectionBase):
    """``storage.cache``."""

    blobdescriptor: str = key(
        text("inmemory or redis"),
        "Where the sizes of blobs are cached for pulls from a bucket: ``inmemory``, or ``redis``,"
        " which needs the ``redis`` section. Empty: not at all. With ``inmemory``, the store is not"
        " asked again for 30 seconds whether a repository has a blob, so that one that another"
        " registry or a command removes can be pulled for that long.",
    )
    layerinfo: str = key(text("inmemory or redis"), "The old name of ``blobdescriptor``.")
    blobdescriptorsize: int = key(
        integer(0),
        "The most descriptors that ``inmemory`` caches; 0 is no limit.",
        default=DEFAULT_DESCRIPTORS,
    )
    manifestbytes: int = key(
        size(0),
        "The memory of each process for cached manifests and values computed from them, in bytes;"
        " 0 caches none.",
        default=64 * 2**20,
        extension=True,
    )

    @property
    def kind(self) -> str:
        """The descriptor cache, under either of its names: inmemory, redis, or empty."""
        name = self.blobdescriptor or self.layerinfo
        return name if name in {"inmemory", "redis"} else ""


class UploadPurging(SectionBase):
    """``storage.maintenance.uploadpurging``; as in Distribution, all keys or none."""

    enabled: bool = key(boolean(), "Delete unfinished uploads at intervals.", default=True)
    age: float = key(
        _TEXT_DURATION,
        "The age from which an unfinished upload is deleted.",
        default=168 * 3600.0,
        required=True,
    )
    interval: float = key(
        _TEXT_DURATION, "The time between two runs.", default=24 * 3600.0, required=True
    )
    dryrun: bool = key(boolean(), "Only log what would be deleted.", required=True)


class TokenPurging(SectionBase):
    """``storage.maintenance.tokenpurging``."""

    enabled: bool = key(boolean(), "Delete expired tokens at intervals.", default=True)
    interval: float = key(_TEXT_DURATION, "The time between two runs.", default=24 * 3600.0)


class ReadOnly(SectionBase):
    """``storage.maintenance.readonly``."""

    enabled: bool = key(boolean(), "Return 405 for every request that would change the store.")


class GarbageCollection(SectionBase):
    """``storage.maintenance.gc``."""

    enabled: bool = key(boolean(), "Delete unreferenced content at intervals, while serving.")
    interval: float = key(_TEXT_DURATION, "The time between two runs.", default=24 * 3600.0)
    grace: float = key(
        _TEXT_DURATION,
        "How long content is kept after it was stored, referenced or not. Less than an hour adds a"
        " warning, because a push must be complete within this time.",
        default=24 * 3600.0,
    )
    deleteuntagged: bool = key(
        boolean(),
        "Also delete manifests that have no tag, are not part of a tagged index, and whose subject"
        " is not kept either.",
    )
    dryrun: bool = key(boolean(), "Only log what would be deleted.")
    rate: int = key(
        integer(0),
        "The most manifests read, and the most items deleted, in a second; 0 is no limit. A lower"
        " rate makes a run scan all links more often.",
    )


class Immutable(SectionBase):
    """``storage.maintenance.retention.immutable[]``."""

    repositories: tuple[str, ...] = patterns_key("Which repositories, as in ``access.rules[]``.")
    tags: tuple[str, ...] = key(
        _TAGS,
        "Which tags: names and patterns, such as ``v*``. A pattern with ``!`` in front excludes"
        " what the others include.",
        required=True,
    )


class Rule(SectionBase):
    """``storage.maintenance.retention.rules[]``."""

    repositories: tuple[str, ...] = patterns_key("Which repositories, as in ``access.rules[]``.")
    tags: tuple[str, ...] = key(_TAGS, "Which tags, as in ``immutable[]``.", default=("*",))
    newest: int = key(integer(0), "Keep this many tags of each repository: those pushed last.")
    pushedwithin: float = key(duration(), "Keep tags pushed within this time.")
    pulledwithin: float = key(
        duration(),
        "Keep tags pulled within this time, and tags whose pulls have been recorded for a shorter"
        " time.",
    )
    always: tuple[str, ...] = key(_TAGS, "Keep these tags.")


class Retention(SectionBase):
    """``storage.maintenance.retention``."""

    enabled: bool = key(boolean(), "Delete tags that no rule keeps, at intervals.")
    interval: float = key(
        duration(positive=True), "The time between two runs.", default=24 * 3600.0
    )
    dryrun: bool = key(boolean(), "Only log what would be deleted.")
    rules: tuple[Rule, ...] = key(
        ListOf("a list of rules", Section(Rule, strict=True)),
        "Which tags are kept. The first rule that matches a tag decides. A tag that no rule matches"
        " is kept.",
    )
    immutable: tuple[Immutable, ...] = key(
        ListOf("a list of rules", Section(Immutable, strict=True)),
        "Tags that cannot be moved or deleted once they exist: 403 ``DENIED``.",
    )


class Scrub(SectionBase):
    """``storage.maintenance.scrub``."""

    enabled: bool = key(
        boolean(), "Read every blob at intervals, and quarantine those whose content has changed."
    )
    interval: float = key(
        _TEXT_DURATION,
        "The time between the starts of two runs. An interrupted run continues where it stopped.",
        default=7 * 24 * 3600.0,
    )
    rate: int = key(size(0), "The most bytes read in a second; 0 is no limit.", default=16 * 2**20)


class Trash(SectionBase):
    """``storage.maintenance.trash``."""

    keep: float = key(
        Duration("a duration with a unit, such as 168h, or off", _trash_keep),
        "How long deleted, collected or overwritten content can be restored. ``off`` deletes it"
        " immediately.",
    )
    interval: float = key(
        _TEXT_DURATION, "The time between two deletions of expired content.", default=3600.0
    )


class QuotaCount(SectionBase):
    """``storage.maintenance.quotas``."""

    interval: float = key(
        _TEXT_DURATION,
        "The time between two counts of what is in use of ``access.quotas``. Between them, what is"
        " pushed is added.",
        default=24 * 3600.0,
    )


class Watermark(SectionBase):
    """``storage.maintenance.watermark``."""

    warn: float = key(
        _PERCENTAGE, "The disk usage from which responses have a Warning header; off if not set."
    )
    refuse: float = key(_PERCENTAGE, "The disk usage from which pushes return 507; off if not set.")


class Maintenance(SectionBase):
    """``storage.maintenance``."""

    uploadpurging: UploadPurging = section(
        UploadPurging,
        "Deletion of unfinished uploads, and of temporary files that a crash has left. Without the"
        " section it runs every 24h, and deletes what is older than 168h.",
    )
    readonly: ReadOnly = section(ReadOnly, "Serve pulls only.")
    tokenpurging: TokenPurging = section(
        TokenPurging,
        "Deletion of expired robot and refresh tokens, with ``access.tokens``. Without the section"
        " the defaults apply.",
        extension=True,
    )
    gc: GarbageCollection = section(
        GarbageCollection,
        "Garbage collection. ``grace`` also applies to ``twisted-registry garbage-collect``.",
        extension=True,
    )
    retention: Retention = section(
        Retention, "Retention rules of tags, and immutable tags.", extension=True
    )
    watermark: Watermark = section(
        Watermark, "Limits of disk usage; for ``storage.filesystem``.", extension=True
    )
    scrub: Scrub = section(
        Scrub, "Detection of bit rot: stored content is compared with its digest.", extension=True
    )
    trash: Trash = section(
        Trash, "Keep deleted content for some time, so that it can be restored.", extension=True
    )
    quotas: QuotaCount = section(
        QuotaCount, "Counts for ``access.quotas``. They run if there is a quota.", extension=True
    )


class Tag(SectionBase):
    """``storage.tag``."""

    concurrencylimit: int = key(
        integer(0),
        "How many tags are looked up at the same time when a manifest is deleted; 0 uses the"
        " default of the registry.",
    )


class Storage(SectionBase):
    """``storage``."""

    filesystem: Filesystem | None = key(
        Section(Filesystem, allows_empty=True), "Store everything in a directory."
    )
    inmemory: InMemory | None = key(
        Section(InMemory, allows_empty=True),
        "Store everything in memory; it is lost when the process ends. The section has no keys:"
        " ``storage: inmemory`` is the same.",
    )
    plugin: Plugin | None = key(
        Section(Plugin, allows_empty=True),
        "Store everything with the driver of another package, named by its entry point in the group"
        " ``twisted_registry.storage``.",
        extension=True,
    )
    s3: S3 | None = key(
        Section(S3, allows_empty=True),
        "Store everything in a bucket of S3 or of an S3-compatible store.",
    )
    s3aws: S3 | None = key(
        Section(S3, allows_empty=True), "Another name of ``s3``, with the same keys."
    )
    delete: Delete = section(Delete, "Deletion by clients.")
    redirect: Redirect = section(Redirect, "Redirects of blob pulls to the store.")
    cache: Cache = section(Cache, "Caches of blob descriptors and manifests.")
    maintenance: Maintenance = section(Maintenance, "Periodic tasks, and the read-only mode.")
    tag: Tag = section(Tag, "Lookups of tags.")
    azure: object = _unserved_driver_key(
        """accountname accountkey container connectionstring serviceurl realm rootdirectory
        max_retries retry_delay skipverify""",
        credentials="type clientid tenantid secret",
    )
    gcs: object = _unserved_driver_key(
        "bucket keyfile rootdirectory chunksize useragent maxconcurrency",
        credentials="""type project_id private_key_id private_key client_email client_id auth_uri
            token_uri auth_provider_x509_cert_url client_x509_cert_url universe_domain""",
    )
    swift: object = _unserved_driver_key(
        """authurl username password container region tenant tenantid domain domainid
        tenantdomain tenantdomainid trustid insecureskipverify chunksize prefix secretkey
        accesskey authversion endpointtype tempurlcontainerkey tempurlmethods"""
    )
    oss: object = _unserved_driver_key(
        """accesskeyid accesskeysecret region endpoint internal bucket encrypt
        encryptionkeyid secure chunksize rootdirectory"""
    )

    @property
    def drivers(self) -> tuple[str, ...]:
        """The names of the drivers that are set; exactly one, once checked."""
        return tuple(name for name in DRIVERS if getattr(self, name) is not None)

    @property
    def bucket(self) -> S3 | None:
        """The options of ``s3``, under either of its names."""
        return self.s3 or self.s3aws


def check_retention(retention: Retention, report: Report) -> None:
    """Report rules that would delete every tag that they match."""
    path = "storage.maintenance.retention"
    for number, rule in enumerate(retention.rules):
        if not (rule.newest or rule.pushedwithin or rule.pulledwithin or rule.always):
            report.add_fault(
                f"{path}.rules[{number}]",
                "keeps nothing",
                "newest, pushedwithin, pulledwithin or always",
            )
    if retention.enabled and not retention.rules:
        report.add_fault(f"{path}.enabled", "got true without rules", "at least one rule")


def _timeout_key(doc: str) -> float:
    value: float = key(duration(), doc)
    return value


def _count_key(doc: str) -> int:
    value: int = key(integer(-1), doc)
    return value


class RedisPool(SectionBase):
    """``redis.pool``, as in Distribution 2.8."""

    maxidle: int = key(integer(0), "The most idle connections.")
    maxactive: int = key(integer(0), "The most connections; 0 is no limit.")
    idletimeout: float = key(duration(), "How long an idle connection is kept.")


class RedisTls(SectionBase):
    """``redis.tls``."""

    certificate: str = key(text("a path"), "A PEM file with the certificate of the client.")
    keyfile: str = key(text("a path"), "A PEM file with the private key of the client.", name="key")
    rootcas: tuple[str, ...] = key(
        text_list("a list of paths"), "PEM files with the certificate authorities of the server."
    )


class Redis(SectionBase):
    """``redis``."""

    addr: str = key(text("HOST:PORT"), "The server (2.8).")
    addrs: tuple[str, ...] = key(text_list("a list of HOST:PORT"), "The servers (3).")
    username: str = key(text(), "The user name.")
    password: str = key(text(), "The password.", secret=True)
    db: int = key(integer(0), "The number of the database.")
    clientname: str = key(text(), "The name of the client connection.")
    protocol: int = key(integer(0, 3), "The version of the protocol.")
    sentinelusername: str = key(text(), "The user name for sentinels.")
    sentinelpassword: str = key(text(), "The password for sentinels.", secret=True)
    mastername: str = key(text(), "The name of the master that sentinels monitor.")
    dialtimeout: float = _timeout_key("The timeout of connecting.")
    readtimeout: float = _timeout_key("The timeout of reading a reply.")
    writetimeout: float = _timeout_key("The timeout of sending a command.")
    contexttimeoutenabled: bool = key(boolean(), "Observe deadlines of requests.")
    maxretries: int = _count_key("The most retries of a command.")
    minretrybackoff: float = _timeout_key("The shortest wait before a retry.")
    maxretrybackoff: float = _timeout_key("The longest wait before a retry.")
    poolfifo: bool = key(boolean(), "Use idle connections in turn.")
    poolsize: int = _count_key("The number of connections in the pool.")
    pooltimeout: float = _timeout_key("The timeout of waiting for a free connection.")
    minidleconns: int = _count_key("The fewest idle connections.")
    maxidleconns: int = _count_key("The most idle connections.")
    maxactiveconns: int = _count_key("The most connections.")
    connmaxidletime: float = _timeout_key("How long an idle connection is kept.")
    connmaxlifetime: float = _timeout_key("How long any connection is kept.")
    maxredirects: int = _count_key("The most redirects within a cluster.")
    readonly: bool = key(boolean(), "Read from replicas.")
    routebylatency: bool = key(boolean(), "Read from the closest node.")
    routerandomly: bool = key(boolean(), "Read from a random node.")
    disableidentity: bool = key(boolean(), "Do not send the client's identity.")
    identitysuffix: str = key(text(), "A suffix of the client's identity.")
    unstableresp3: bool = key(boolean(), "Accepted; has no effect.")
    pool: RedisPool = section(RedisPool, "The connection pool (2.8).")
    tls: RedisTls = section(RedisTls, "TLS to the server.")
    enabletls: bool = key(
        boolean(),
        "Connect with TLS also without the keys of ``tls``, and trust the authorities of the system"
        " (Harbor).",
        name="enableTLS",
    )
    sentinelmasterset: str = key(
        text(), "The name of the master that sentinels monitor (Harbor).", name="sentinelMasterSet"
    )

    @property
    def address(self) -> str:
        """HOST:PORT of the one server that is used, or an empty text."""
        return self.addr or (self.addrs[0] if self.addrs else "")


def check_redis(redis: Redis | None, report: Report) -> None:
    """Report a section that the descriptor cache cannot use."""
    if redis is None:
        report.add_fault(
            "storage.cache.blobdescriptor", "got 'redis'", "a redis section in the file as well"
        )
        return
    if not redis.address:
        report.add_fault("redis.addr", "not set", "HOST:PORT")
    if len(redis.addrs) > 1:
        report.add_fault(
            "redis.addrs", f"got {len(redis.addrs)} servers", "one; a cluster cannot be used"
        )
    elif "://" in redis.address or set(redis.address) & set(", \t"):
        name = "redis.addr" if redis.addr else "redis.addrs[0]"
        report.add_fault(name, f"got {quote_value(redis.address)}", "HOST:PORT of one server")
    for name in ("mastername", "sentinelMasterSet", "sentinelusername", "sentinelpassword"):
        if getattr(redis, name.lower()):
            report.add_fault(
                f"redis.{name}",
                None,
                "sentinels cannot be used; name the master in redis.addr, and remove this key",
            )
