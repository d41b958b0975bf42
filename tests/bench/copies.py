"""Cases with a real client: skopeo copies whole images in and out."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from attrs import frozen

from tests.bench.samples import Measure, Run, Sample, failed_sample
from tests.bench.seed import COPIED
from tests.integration.images import assert_layout_holds, blobs_of
from twisted_registry.testing import LayoutInvalid, write_layout

if TYPE_CHECKING:
    from collections.abc import Iterator

SKOPEO = shutil.which("skopeo")
_COPY = (
    *("--insecure-policy", "copy", "--all", "--preserve-digests"),
    *("--src-tls-verify=false", "--dest-tls-verify=false"),
)


@frozen
class CopyIn(Measure):
    """The time to push images that the server does not have, in seconds."""

    def __call__(self, server, run: Run) -> Sample:
        images = run.content.images(run.label)
        with _sandbox() as (folder, environment):
            layout = folder / "in"
            write_layout(layout, images)
            target = f"{_address(server)}/bench/in-{run.label}"
            pairs = [(f"oci:{layout}:{tag}", f"{target}:{tag}") for tag in images]
            sample = _copy(pairs, environment)
        if server.store:
            server.forget({blob.digest for top in images.values() for blob in blobs_of(top)})
        return sample

    def seconds(self, run: Run) -> float:
        return 0.4 * run.content.sizes.images


@frozen
class CopyOut(Measure):
    """The time to pull images into a layout, in seconds."""

    def __call__(self, server, run: Run) -> Sample:
        images = run.content.images("pulled")
        with _sandbox() as (folder, environment):
            layout = folder / "out"
            source = f"{_address(server)}/{COPIED}"
            sample = _copy(
                [(f"{source}:{tag}", f"oci:{layout}:{tag}") for tag in images], environment
            )
            if not sample.errors:
                try:
                    for top in images.values():
                        assert_layout_holds(layout, top)
                except (AssertionError, OSError, LayoutInvalid):
                    return failed_sample("a copy that differs")
        return sample

    def seconds(self, run: Run) -> float:
        return 0.4 * run.content.sizes.images


def _address(server) -> str:
    return "docker://" + server.url.partition("://")[2]


@contextmanager
def _sandbox() -> Iterator[tuple[Path, dict[str, str]]]:
    """Return a folder and an environment without skopeo's cache of earlier copies."""
    with tempfile.TemporaryDirectory(prefix="registry-bench-") as name:
        folder = Path(name)
        (folder / "auth.json").write_text("{}")
        (folder / "tmp").mkdir()
        yield (
            folder,
            {
                "PATH": os.environ["PATH"],
                "HOME": name,
                "XDG_DATA_HOME": f"{name}/data",
                "XDG_RUNTIME_DIR": f"{name}/run",
                "TMPDIR": f"{name}/tmp",
                "REGISTRY_AUTH_FILE": f"{name}/auth.json",
            },
        )


def _copy(pairs: list[tuple[str, str]], environment: dict[str, str]) -> Sample:
    begin = perf_counter()
    for source, target in pairs:
        done = subprocess.run(
            [SKOPEO, *_COPY, source, target],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env=environment,
        )
        if done.returncode:
            return failed_sample(f"skopeo: {done.stderr.strip()[-300:]}")
    elapsed = perf_counter() - begin
    return Sample(elapsed, count=len(pairs), elapsed=elapsed)
