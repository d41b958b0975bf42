"""The case that deletes a manifest by digest, in a repository with many tags."""

from __future__ import annotations

import json
from time import perf_counter

from attrs import frozen

from tests.bench.samples import Measure, Run, Sample, failed
from tests.bench.seed import DELETABLE, push_manifest
from tests.bench.wire import Connection
from tests.support.manifests import OCI_IMAGE, digest_of

#: Manifests that each sample deletes, one after the other.
_TIMES = 3


@frozen
class Delete(Measure):
    """The time of a delete request in ms; it deletes the tag of the manifest as well."""

    def check(self, server, run: Run) -> str:
        return self(server, run).fault  # what it reads of the tags is in memory from here on

    def __call__(self, server, run: Run) -> Sample:
        took: list[float] = []
        with Connection(server.url, server.headers) as connection:
            for number in range(_TIMES):
                seconds, fault = _deleted(connection, run, f"{run.mark}-{number}")
                if fault:
                    return failed(fault)
                took.append(seconds)
        return Sample(1000 * sum(took) / _TIMES, count=_TIMES, elapsed=sum(took))

    def seconds(self, run: Run) -> float:
        return _TIMES * run.content.sizes.deletable * 50e-6


def _deleted(connection: Connection, run: Run, mark: str) -> tuple[float, str]:
    """Push a manifest under a new tag and delete it; return the seconds and the error."""
    document = json.loads(run.content.manifest)
    manifest = json.dumps({**document, "annotations": {"bench": mark}}).encode()
    push_manifest(connection, DELETABLE, f"gone-{mark}", OCI_IMAGE, manifest)
    where = f"/v2/{DELETABLE}/manifests"
    begin = perf_counter()
    status = connection.ask("DELETE", f"{where}/{digest_of(manifest)}").status
    took = perf_counter() - begin
    if status != 202:
        return took, f"a delete was answered {status} instead of 202"
    left = connection.ask("GET", f"{where}/gone-{mark}", {"Accept": OCI_IMAGE}).status
    return took, "" if left == 404 else f"what was deleted is answered {left}"
