"""ctr: containerd imports, pushes and pulls."""

from __future__ import annotations

import pytest

from tests.integration.images import blobs_of, image, index
from twisted_registry.testing import Index, write_layout
from twisted_registry.testing.images import all_images

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("made", [image("ctr"), index("ctr")], ids=["image", "index"])
def test_containerd_pulls_what_it_pushed(registry, ctr, tmp_path, made):
    kind = "index" if isinstance(made, Index) else "image"
    archive = tmp_path / "archive.tar"
    write_layout(archive, {"1": made})
    name, target = f"ctr/{kind}", registry.image(f"ctr/{kind}")

    ctr("images", "import", "--all-platforms", "--no-unpack", f"--index-name={target}", archive)
    imported = ctr("images", "ls", "-q").split()
    source = next(each for each in imported if each != target)
    ctr("images", "push", "--plain-http", target, source)
    registry.remote.assert_holds(name, made, "1")

    ctr("images", "rm", "--sync", *imported)
    ctr("images", "pull", "--plain-http", "--snapshotter=native", "--all-platforms", target)
    (listed,) = [line for line in ctr("images", "ls").splitlines() if line.startswith(target)]
    assert made.digest in listed
    content = set(ctr("content", "ls", "-q").split())
    assert {each.digest for each in (*all_images(made), *blobs_of(made))} <= content
    assert ctr("content", "get", made.digest).encode() == made.manifest.read()
    ctr("images", "rm", "--sync", target)
