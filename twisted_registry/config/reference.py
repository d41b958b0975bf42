"""The reference of the configuration, written from the schema.

``python -m twisted_registry.config.reference > docs/configuration.rst`` writes it anew; a
test fails while the file differs.
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

.. This file is made from the schema: ``python -m twisted_registry.config.reference``.

The registry reads the YAML file of CNCF Distribution (``registry:2`` and ``registry:3``).
``twisted-registry check FILE`` reads a file, prints every fault it has, and else prints the
configuration as it holds, defaults included and secrets masked.

Which file
----------

The first of these that is there:

1. the file named on the command line;
2. the file that ``REGISTRY_CONFIGURATION_PATH`` names;
3. ``/etc/distribution/config.yml``, then ``/etc/docker/registry/config.yml``;
4. none: the registry listens on 127.0.0.1:5000, keeps its content in ``./registry-data`` and
   allows deletes.

Environment
-----------

Every key can be set by a variable: ``http.addr`` is ``REGISTRY_HTTP_ADDR``, and
``http.tls.clientcas[0]`` is ``REGISTRY_HTTP_TLS_CLIENTCAS_0`` (an index may be at most one past
the end, and then appends). A value is YAML. A whole section can be replaced
(``REGISTRY_STORAGE=inmemory``); the variables apply in the order of their names, so that a
section comes before its keys. A header's name stands as it is spelled:
``REGISTRY_HTTP_HEADERS_Access-Control-Allow-Origin="['*']"``. Variables that name no key are
warned of and ignored. If the file has one storage driver and the variables another, the
variables win, with a warning.

Values
------

Durations are those of Go: ``90s``, ``2h10m``, ``1.5h``, ``500ms``; a bare number counts
nanoseconds. ``true`` and ``false`` are bare words; quoted they are text, and refused. Numbers of
bytes may have a unit: ``64KiB``, ``4MiB``. Unknown keys are ignored with a warning that names
the nearest known one. Faults stop the start, all of them in one go, one line each.

Keys marked *ours* are unknown to Distribution, which ignores them: one file serves both.

Keys
----
"""


def reference() -> str:
    """The page, as reStructuredText."""
    return INTRODUCTION + "\n" + "\n".join(_section(Configuration, ""))


def _section(schema: type, path: str) -> Iterator[str]:
    for name, spec in schema_keys(schema).items():
        here = f"{path}.{name}" if path else name
        if not path:
            yield from ("", name, "~" * len(name), "")
        yield from _entry(spec, here)
        kind = spec.kind
        if isinstance(kind, ListOf) and isinstance(kind.item, Section):
            here, kind = f"{here}[]", kind.item
        if isinstance(kind, Section):
            yield from _section(kind.of, here)


def _entry(spec: Key, path: str) -> Iterator[str]:
    yield f"``{path}``" + ("  (*ours*)" if spec.extension else "")
    yield f"    {spec.doc}"
    facts = []
    if not isinstance(spec.kind, Section | OpaqueSection):
        facts.append(f"Takes {spec.kind.expected}.")
    default = _default(spec)
    if spec.required:
        facts.append("Required.")
    elif default:
        facts.append(f"Default: ``{default}``.")
    if spec.secret and not isinstance(spec.kind, Anything | MapOf):
        facts.append("Never shown.")
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
