"""The architecture: who may import whom.

Whatever the table does not name may not be imported, for types neither. A module that it has no
line for fails too, until somebody gives it a place. ``test_imports.py`` reads the source.
"""

from __future__ import annotations

PACKAGE = "twisted_registry"
CORE = ("digest", "reference", "manifest", "errors", "globs", "value")
BELOW_SERVICE = (
    *("api", "auth", "maintenance", "metrics", "repository", "storage", "config"),
    *("listener", "logs", "workers", "upkeep", "retaining", "room", "settings", "tls", "checks"),
    *CORE,
)

#: module or package -> what it may import of this package, besides itself. First match counts.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(CORE, CORE),
    "metrics": CORE,
    "logs": CORE,
    "listener": ("api", *CORE),
    "auth": CORE,
    "config": CORE,
    "storage": ("quiet", *CORE),
    "repository": ("storage.interfaces", "storage.streams", *CORE),
    "maintenance": ("repository", "storage.interfaces", *CORE),
    "api": (
        *("repository", "auth.clientcertificate", "auth.interfaces", "metrics", "securesocket"),
        *CORE,
    ),
    "workers.__main__": ("alone",),
    "workers": ("config", "tls.material", *CORE),
    "redisdescriptors": ("repository.descriptors", *CORE),
    "redisconnection": ("listener", "redisdescriptors", "config"),
    "descriptorcache": ("redisconnection", "repository.descriptors", "config"),
    "objectstore": ("", "listener", "storage", "config"),
    "storagemiddleware": ("listener", "storage", "config"),
    "debug": ("api", "auth.interfaces", "metrics", "storage.observer", "workers.reports", *CORE),
    "debugaddress": ("", "debug", "listener", "upkeep", "api", "auth.interfaces", "config"),
    "accessrules": ("auth", "config"),
    "tokens": (
        *("api", "auth", "repository.layout", "quiet", "shortbody", "storage.interfaces"),
        *CORE,
    ),
    "builtintokens": ("tokens", "auth", "repository", "config"),
    "authschemes": ("listener", "auth", "storage.threads", "config"),
    "certificateusers": ("auth", "config"),
    "accesscontrol": (
        "certificateusers",
        "authschemes",
        "accessrules",
        "builtintokens",
        "repository",
        "listener",
        "auth",
        "storage.threads",
        "config",
    ),
    "securesocket": (),
    "tls": ("auth.clientcertificate", "securesocket", *CORE),
    "quiet": (),
    "shortbody": (),
    "letsencrypt": ("", "tls", "quiet", "shortbody"),
    "encryption": ("listener", "letsencrypt", "tls", "api.tree", "config"),
    "store": ("objectstore", "repository", "retaining", "storage", "config"),
    "service": (
        "store",
        "accesscontrol",
        "debugaddress",
        "encryption",
        "descriptorcache",
        "objectstore",
        "storagemiddleware",
        *BELOW_SERVICE,
    ),
    "settings": ("api", "config"),
    "room": ("api", "maintenance", "storage.threads", "config"),
    "retaining": ("maintenance", "repository", "storage.interfaces", "config", *CORE),
    "collecting": ("upkeep", "maintenance", "repository", "storage", "config", *CORE),
    "upkeep": (
        "collecting",
        "retaining",
        "checks",
        "maintenance",
        "repository",
        "storage",
        "config",
        *CORE,
    ),
    "checks": ("maintenance", "repository", "storage", "config", *CORE),
    "heap": (),
    "stack": (),
    "process": ("service", *BELOW_SERVICE),
    "commands.configured": ("config",),
    "commands.progress": (),
    "commands.serve": ("commands", "heap", "alone"),
    "commands.check": ("commands", "config"),
    "commands.once": ("commands.configured", "logs", *CORE),
    "commands.copy_store": ("commands", "objectstore", "alone", "store", *BELOW_SERVICE),
    "commands.token": ("commands", "tokens", "alone", "auth", "storage", "config", *CORE),
    "commands": ("collecting", "alone", "store", *BELOW_SERVICE),
    "worker": ("process", "service", *BELOW_SERVICE),
    "tap": ("", "heap", "stack", "process", "service"),
    "alone": ("heap", "process", "commands.once", "worker", "config"),
    "cli": ("", "heap", "stack"),
    "__main__": ("cli",),
    "testing": ("service", *BELOW_SERVICE),
}

#: What the core may import besides: it is pure.
PURE = {"__future__", "attrs", "collections", "enum", "hashlib", "json", "re", "typing"}

#: Imports inside functions, each with its reason.
LATE = {
    # It installs the reactor, which nobody needs whose configuration is faulty.
    ("commands.serve", f"{PACKAGE}.alone"),
    # Few processes collect garbage, and it brings a database along.
    ("upkeep", f"{PACKAGE}.collecting"),
    # It is first done minutes after the start.
    ("upkeep", f"{PACKAGE}.maintenance.purge"),
    # Few have a trash, from which something could come back.
    ("repository.registry", f"{PACKAGE}.repository.recall"),
    # Of a registry's life, a start and its first answers need none of these.
    ("repository.registry", f"{PACKAGE}.repository.abandoned"),
    ("repository.registry", f"{PACKAGE}.repository.deletion"),
    ("storage.filesystem", f"{PACKAGE}.storage.debris"),
    # Only what comes from afar is compared while it is read.
    ("repository.recent", f"{PACKAGE}.repository.fingerprints"),
    ("repository.recent", f"{PACKAGE}.repository.verified"),
    # Few processes read again what is stored.
    ("upkeep", f"{PACKAGE}.checks"),
    # Few want to be told how full the disk is.
    ("room", f"{PACKAGE}.maintenance.watermark"),
    ("room", f"{PACKAGE}.storage.threads"),
    # Few have rules of retention.
    ("retaining", f"{PACKAGE}.maintenance"),
    ("retaining", f"{PACKAGE}.repository"),
    # Serving has no use for it.
    ("alone", f"{PACKAGE}.commands.once"),
    # Few lists end where those who read them must not see.
    ("api.cursor", "cryptography.fernet"),
    # Few serve from memory.
    ("store", f"{PACKAGE}.storage.memory"),
    # Only a mistake needs it.
    ("config.faults", "difflib"),
    # HOST:PORT does without it, and it brings much along.
    ("listener", "twisted.internet.endpoints"),
    # twistd has not imported it before us, and it takes half of a start.
    ("tap", "twisted.internet.reactor"),
    # `twistd --help` does not need it.
    ("tap", f"{PACKAGE}.process"),
    # A command has no use for it.
    ("alone", f"{PACKAGE}.process"),
    # One process alone needs none of it.
    ("process", f"{PACKAGE}.workers"),
    ("service", f"{PACKAGE}.workers"),
    # Each of several processes is one of these, and the first is another.
    ("alone", f"{PACKAGE}.worker"),
    # Most registries store elsewhere, and it brings much along.
    ("service", f"{PACKAGE}.objectstore"),
    ("store", f"{PACKAGE}.objectstore"),
    # Few remember anything of far stores.
    ("service", f"{PACKAGE}.descriptorcache"),
    ("descriptorcache", f"{PACKAGE}.redisconnection"),
    ("service", f"{PACKAGE}.storagemiddleware"),
    ("commands.copy_store", f"{PACKAGE}.objectstore"),
    # Few have a second address, and fewer read metrics, which are an extra.
    ("service", f"{PACKAGE}.debugaddress"),
    ("debugaddress", f"{PACKAGE}.debug.exposition"),
    # Few trust the tokens of others, and asking them for keys takes an HTTP client.
    ("builtintokens", f"{PACKAGE}.tokens"),
    # It needs an extra, which brings cryptography along.
    ("accesscontrol", f"{PACKAGE}.builtintokens"),
    # Who serves everybody asks nobody who they are.
    ("service", f"{PACKAGE}.accesscontrol"),
    # Tests without TLS need none of it.
    ("testing", f"{PACKAGE}.tls"),
    # Few know clients by their certificates.
    ("accesscontrol", f"{PACKAGE}.certificateusers"),
    # Most leave TLS to a proxy, and it brings much along.
    ("service", f"{PACKAGE}.encryption"),
    # It needs an extra.
    ("encryption", f"{PACKAGE}.letsencrypt"),
    ("commands.user", f"{PACKAGE}.auth.passwords"),
    # Each scheme brings other libraries along, most of them extras.
    ("authschemes", f"{PACKAGE}.auth"),
    # Address ranges, cryptography and connections are for cloudfront alone.
    ("storagemiddleware", f"{PACKAGE}.storage.middleware"),
    ("storagemiddleware", f"{PACKAGE}.storage.s3.transport"),
    ("storagemiddleware", f"{PACKAGE}.storage.threads"),
    # It needs an extra, which few installations have a use for.
    ("storage.s3.chain", f"{PACKAGE}.storage.s3.botocoresource"),
}

#: Names that nothing here may use, with who may all the same.
BANNED = {
    "asyncio": (),
    "twisted.internet.reactor": ("alone", "tap"),
    "twisted.internet.defer.ensureDeferred": (),
    "time.time": (),
    "time.sleep": (),
}
