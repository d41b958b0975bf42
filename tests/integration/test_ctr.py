"""ctr: containerd imports, pushes and pulls."""

from __future__ import annotations

import pytest

from tests.integration.images import image, index, tarball, write_layout

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("made", [image("ctr"), index("ctr")], ids=["image", "index"])
def test_containerd_pulls_what_it_pushed(registry, ctr, tmp_path, made):
    kind = "index" if made.children else "image"
    layout = write_layout(tmp_path / "layout", {"1": made})
    files = {
        str(path.relative_to(layout)): path.read_bytes()
        for path in sorted(layout.rglob("*"))
        if path.is_file()
    }
    archive = tmp_path / "archive.tar"
    archive.write_bytes(tarball(files))
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
    content = ctr("content", "ls", "-q").split()
    for each in made.walk():
        assert {each.digest, *each.blobs} <= set(content)
    assert ctr("content", "get", made.digest).encode() == made.manifest
    ctr("images", "rm", "--sync", target)
