"""ctr: a containerd of its own imports, pushes and pulls."""

from __future__ import annotations

import subprocess

import pytest
from images import image, index, tarball, write_layout
from servers import end, program, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def ctr(shared_sandbox):
    """Runs the ctr command against a containerd that stores under the sandbox."""
    home = shared_sandbox.home
    socket, log, config = home / "containerd.sock", home / "containerd.log", home / "config.toml"
    config.write_text(
        "version = 2\n"
        f'root = "{home / "containerd"}"\n'
        f'state = "{home / "state"}"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{socket}"\n'
        f'[ttrpc]\naddress = "{socket}.ttrpc"\n'
    )
    with log.open("wb") as out:
        daemon = subprocess.Popen(
            [program("containerd"), f"--config={config}"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=shared_sandbox.environment,
        )

    def run(*arguments: object) -> str:
        return shared_sandbox.run("ctr", f"--address={socket}", *arguments)

    def up() -> bool:
        return shared_sandbox.attempt("ctr", f"--address={socket}", "version").returncode == 0

    try:
        wait_until(up, daemon, log)
        yield run
    finally:
        end(daemon)


@pytest.mark.parametrize("made", [image("ctr"), index("ctr")], ids=["image", "index"])
def test_import_push_and_pull(registry, ctr, tmp_path, made):
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
