"""The reference of the configuration, generated from the schema.

``python -m twisted_registry.config.reference > docs/configuration.rst`` writes it. A test fails if
the file differs.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from twisted_registry.config import values
from twisted_registry.config.kinds import Anything, Duration, ListOf, MapOf, OpaqueSection
from twisted_registry.config.schema import Configuration
from twisted_registry.config.sections import Key, Section, schema_keys

if TYPE_CHECKING:
    from collections.abc import Iterator

INTRODUCTION: Final = """\
Configuration
=============

.. Generated from the schema: ``python -m twisted_registry.config.reference``.

The registry reads the YAML file of CNCF Distribution (``registry:2`` and ``registry:3``).
``twisted-registry check FILE`` validates a file. It prints every fault, or else the effective
configuration, with defaults and with masked secrets.

Configuration file
------------------

The first of these that exists is read:

1. the file named on the command line;
2. the file named by ``REGISTRY_CONFIGURATION_PATH``;
3. ``/etc/twisted-registry/config.yml``, ``/etc/distribution/config.yml``,
   ``/etc/docker/registry/config.yml``, in this order;
4. a built-in default: the registry listens on 127.0.0.1:5000, stores content in
   ``./registry-data`` and allows deletes.

Environment variables
---------------------

Every key can be set by a variable: ``http.addr`` is ``REGISTRY_HTTP_ADDR``, and
``http.tls.clientcas[0]`` is ``REGISTRY_HTTP_TLS_CLIENTCAS_0``. The first index past the end of a
list appends an item. A value is YAML. A whole section can be replaced
(``REGISTRY_STORAGE=inmemory``). The variables apply in the order of their names, so that a section
comes before its keys. The name of a header keeps its case:
``REGISTRY_HTTP_HEADERS_Access-Control-Allow-Origin="['*']"``. A variable that names no key is
ignored with a warning; those that Kubernetes sets for a service ``registry``, such as
``REGISTRY_PORT``, without. If the file and the variables name different storage drivers, that of
the variables is used, with a warning.

Variables ``OTEL_*`` ask for traces (`tracing.rst <tracing.rst>`_), ``AWS_*`` give the credentials
of a bucket, and ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY`` the proxy for it and for the
endpoints of notifications.

Values
------

Durations have the syntax of Go: ``90s``, ``2h10m``, ``1.5h``, ``500ms``; and days, ``90d``, which
Distribution does not read. A number without a unit is nanoseconds, as in Go: one that is less than
a millisecond is a warning. ``true`` and ``false`` are written without quotes: with quotes they are
text, and rejected. A number of bytes can have a unit: ``64KiB``, ``4MiB``.

Unknown keys are ignored with a warning that names the nearest known key. Of duplicate keys the last
applies, and two sections of one name are joined, with a warning. Faults prevent the start. All of
them are printed, one line each: the key, its value, what was expected, and where the value was
written.

Keys marked *extension* do not exist in Distribution, which ignores them: both can use one file.

Keys
----
"""

#: A configuration, or a part of one, with a section.
EXAMPLES: Final = {
    "log": """\
log:
  level: info
  formatter: json
  fields:
    site: building 7
  audit: /var/log/registry/audit.log
""",
    "storage": """\
storage:
  filesystem:
    rootdirectory: /var/lib/registry
  delete:
    enabled: true
  maintenance:
    gc:
      enabled: true
    trash:
      keep: 168h
    retention:
      enabled: true
      rules:
      - repositories: ['ci/**']
        newest: 10
    watermark:
      warn: 85%
      refuse: 95%
""",
    "auth": """\
auth:
  htpasswd:
    realm: Registry
    path: /etc/registry/users
""",
    "access": """\
auth:
  htpasswd:
    realm: Registry
    path: /etc/registry/users
access:
  anonymous: [pull]
  groups:
    web: [ada, grace]
  rules:
  - repositories: [web/**]
    groups: [web]
    allow: [push, delete]
  quotas:
  - repositories: [web/**]
    bytes: 100GiB
""",
    "http": """\
http:
  addr: :5000
  tls:
    auto:
      hosts: [registry.lan, 10.0.0.7]
  draintimeout: 30s
  limits:
    requestsperaddress: 100
  debug:
    addr: 127.0.0.1:5001
    prometheus:
      enabled: true
""",
    "validation": """\
validation:
  manifests:
    indexes:
      platforms: list
      platformlist:
      - architecture: amd64
        os: linux
""",
    "policy": """\
policy:
  repository:
    classes: [image]
""",
    "catalog": """\
catalog:
  maxentries: 500
""",
    "tags": """\
tags:
  maxtags: 500
""",
    "redis": """\
version: 0.1
storage:
  s3:
    bucket: images
    region: eu-central-1
  cache:
    blobdescriptor: redis
redis:
  addr: 127.0.0.1:6379
""",
    "health": """\
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
  file:
  - file: /run/registry.down
  http:
  - uri: http://127.0.0.1:8080/
    statuscode: 200
    threshold: 3
  tcp:
  - addr: 127.0.0.1:6379
    timeout: 5s
    threshold: 3
""",
    "middleware": """\
version: 0.1
storage:
  s3:
    bucket: images
    region: eu-central-1
middleware:
  storage:
  - name: redirect
    options:
      baseurl: https://cdn.example.com
""",
}


def reference() -> str:
    """Return the page as reStructuredText."""
    return INTRODUCTION + "\n" + "\n".join(_section(Configuration, "", extension=False))


def _section(cls: type, parent: str, *, extension: bool) -> Iterator[str]:
    for name, spec in schema_keys(cls).items():
        is_extension = extension or spec.extension
        path = f"{parent}.{name}" if parent else name
        if not parent:
            yield from ("", name, "~" * len(name), "")
            yield from _example(name)
        yield f"``{path}``" + ("  (*extension*)" if is_extension else "")
        yield f"    {spec.doc}"
        yield from _facts(spec)
        kind = spec.kind
        if isinstance(kind, ListOf) and isinstance(kind.item, Section):
            path, kind = f"{path}[]", kind.item
        if isinstance(kind, Section):
            yield from _section(kind.cls, path, extension=is_extension)


def _example(section: str) -> Iterator[str]:
    if section in EXAMPLES:
        yield from (".. code-block:: yaml", "")
        yield from (f"    {line}" for line in EXAMPLES[section].splitlines())
        yield ""


def _facts(spec: Key) -> Iterator[str]:
    facts = []
    if not isinstance(spec.kind, Section | OpaqueSection):
        facts.append(f"Value: {spec.kind.expected}.")
    default = _default(spec)
    if spec.required:
        facts.append("Required.")
    elif default:
        facts.append(f"Default: ``{default}``.")
    if spec.secret and not isinstance(spec.kind, Anything | MapOf):
        facts.append("Masked in output.")
    if isinstance(spec.kind, OpaqueSection) and spec.kind.known:
        facts.append(f"Keys: {', '.join(f'``{name}``' for name in spec.kind.known)}.")
    if facts:
        yield f"    {' '.join(facts)}"
    yield ""


def _default(spec: Key) -> str:
    value = spec.default
    if isinstance(spec.kind, Duration) and isinstance(value, float):
        return values.format_duration(value)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | str) else ""


if __name__ == "__main__":
    sys.stdout.write(reference())
