"""Images deleted by mistake are restored from the trash and pulled with skopeo."""

from __future__ import annotations

import json
import sys

import pytest

from tests.integration.images import assert_layout_holds, image, index
from tests.support.processes import (
    CONFIGURATION,
    SERVE,
    RegistryProcess,
    run,
    wait_until,
    write_configuration,
)
from twisted_registry.testing import write_layout

pytestmark = pytest.mark.integration

COPY = ("copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--all", "--preserve-digests")
TEXT = CONFIGURATION.replace(
    "http:",
    """\
  delete: {{enabled: true}}
  maintenance:
    trash: {{keep: 24h}}
    gc: {{grace: 0s}}
http:
  workers: 2""",
)


def test_a_deleted_and_collected_image_is_restored(sandbox, tmp_path):
    made = index("trash", ("amd64", "arm64"))
    layout = tmp_path / "layout"
    write_layout(layout, {"1": made, "2": image("trash-newer")})
    path = write_configuration(tmp_path, TEXT)

    def command(*words):
        status, out, faults = run(
            sys.executable, "-m", "twisted_registry", *words, path, cwd=tmp_path
        )
        assert (status, faults) == (0, [])
        return out

    with RegistryProcess(*SERVE, path, cwd=tmp_path) as server:
        target = f"docker://127.0.0.1:{server.port}/team/app:latest"

        sandbox.run("skopeo", *COPY, f"oci:{layout}:1", target)
        # A tag is moved by mistake, and restored.
        sandbox.run("skopeo", *COPY, f"oci:{layout}:2", target)
        command("trash", "restore", "team/app:latest")
        # The repository is deleted; after a collection, only the trash has its content.
        command("delete", "team/app")
        assert json.loads(server.ask("GET", "/v2/_catalog")[1]) == {"repositories": []}
        assert "0 blobs marked" in command("garbage-collect", "-q")
        command("trash", "restore", "team/app")
        # The processes may take it for condemned until they look at the list again.
        wait_until(lambda: server.ask("GET", "/v2/team/app/manifests/latest")[0].status == 200)
        back = tmp_path / "back"
        sandbox.run("skopeo", *COPY, target, f"oci:{back}:1")
        assert_layout_holds(back, made)
