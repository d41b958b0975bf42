"""The case that deletes a manifest by digest, in a repository with many tags."""

from __future__ import annotations

import json
from time import perf_counter

from attrs import frozen

from tests.bench.samples import Measure, Run, Sample, failed_sample
from tests.bench.seed import DELETABLE, push_manifest
from tests.bench.wire import Connection
from tests.support.manifests import OCI_IMAGE, digest_of

#: Manifests that each sample deletes, one by one.
_TIMES = 3


@frozen
class Delete(Measure):
    """The time of a delete request in ms; it deletes the tag of the manifest as well."""

    def check(self, server, run: Run) -> str:
        return self(server, run).fault  # later deletes find the tags in memory

    def __call__(self, server, run: Run) -> Sample:
        times: list[float] = []
        with Connection(server.url, server.headers) as connection:
            for number in range(_TIMES):
                seconds, fault = _delete_manifest(connection, run, f"{run.label}-{number}")
                if fault:
                    return failed_sample(fault)
                times.append(seconds)
        return Sample(1000 * sum(times) / _TIMES, count=_TIMES, elapsed=sum(times))

    def seconds(self, run: Run) -> float:
        return _TIMES * run.content.sizes.deletable * 50e-6


def _delete_manifest(connection: Connection, run: Run, label: str) -> tuple[float, str]:
    """Push a manifest under a new tag and delete it; return the seconds and the error."""
    document = json.loads(run.content.manifest)
    manifest = json.dumps({**document, "annotations": {"bench": label}}).encode()
    push_manifest(connection, DELETABLE, f"gone-{label}", OCI_IMAGE, manifest)
    where = f"/v2/{DELETABLE}/manifests"
    begin = perf_counter()
    status = connection.request("DELETE", f"{where}/{digest_of(manifest)}").status
    seconds = perf_counter() - begin
    if status != 202:
        return seconds, f"a delete was answered {status} instead of 202"
    left = connection.request("GET", f"{where}/gone-{label}", {"Accept": OCI_IMAGE}).status
    return seconds, "" if left == 404 else f"a deleted tag was answered {left} instead of 404"
