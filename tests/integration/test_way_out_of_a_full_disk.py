"""Every way to free space works on a disk without any: by the API, by tasks and by commands.

The disk is filled to the last byte, or inode, before each step.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time

import pytest
from attrs import define, field

from tests.integration.images import image, noise
from tests.integration.remote import Remote, UnexpectedResponse, with_digest
from tests.integration.small_disk import mounted_disk
from tests.support.manifests import digest_of
from tests.support.passwords import password_lines
from tests.support.processes import SERVE, RegistryProcess, free_port, run, wait_until

# A test starts up to twenty processes.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

DISK_OPTIONS = "size=64m,nr_inodes=6000"
LAYER = 1024 * 1024

CONFIGURATION = """\
version: 0.1
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
  maintenance:
    uploadpurging: {{enabled: true, age: 1s, interval: 24h, dryrun: false}}
    gc: {{enabled: false, grace: 0s, deleteuntagged: true}}
    trash: {{keep: {keep}, interval: 24h}}
    retention:
      rules:
      - repositories: ['retained/**']
        newest: 1
        pulledwithin: 1s
http:
  addr: 127.0.0.1:0
  workers: {workers}
  debug: {{addr: '127.0.0.1:{debug}'}}
"""
TOKENS = """\
auth:
  htpasswd: {{realm: r, path: {users}}}
access:
  tokens: {{}}
"""


@define(eq=False)
class Operator:
    """What an operator does with a registry whose disk is full."""

    disk: object
    server: RegistryProcess
    folder: object
    debug: int
    fill: object
    remote: Remote = field(init=False)

    @remote.default
    def _make_remote(self):
        return Remote(f"127.0.0.1:{self.server.port}")

    @property
    def store(self):
        return self.disk.root / "store"

    def command(self, *words):
        """Run a command on the full disk; return what it printed."""
        self.fill()
        return self.command_as_is(*words)

    def command_as_is(self, *words):
        """Run a command; return what it printed."""
        words = [str(self.folder / word) if word.endswith(".yml") else word for word in words]
        status, out, errors = run(
            *self.disk.enter, sys.executable, "-m", "twisted_registry", *words, cwd=self.folder
        )
        assert status == 0, (words, out, errors)
        return out

    def on_store(self, *words):
        return self.command(*words, "registry.yml")

    def run_task(self, name):
        """Run a task of the registry on the full disk; return its result."""
        self.fill()
        runs = self._task(name)["runs"]
        debug = Remote(f"127.0.0.1:{self.debug}")
        assert debug.request("POST", f"/debug/maintenance/{name}").status == 202
        wait_until(lambda: self._task(name)["runs"] > runs)
        last = self._task(name)["last"]
        assert not last["failure"], last
        return last["result"]

    def _task(self, name):
        page = Remote(f"127.0.0.1:{self.debug}").request("GET", "/debug/maintenance").json()
        return next(task for task in page["tasks"] if task["name"] == name)

    def reserve_pieces(self):
        """The number of files in the reserve."""
        return len(list((self.store / "twisted-registry/.reserve").glob("*")))

    def make_room(self):
        """Free what filled the disk; the blobs of "pushes" have no manifest."""
        self.disk.free()
        self.command_as_is("garbage-collect", "registry.yml")
        self.command_as_is("trash", "empty", "registry.yml")

    def delete(self, path):
        self.fill()
        response = self.remote.request("DELETE", path)
        assert response.status == 202, response

    def has_blob(self, digest):
        algorithm, _, text = digest.partition(":")
        blobs = self.store / "docker/registry/v2/blobs"
        return (blobs / algorithm / text[:2] / text / "data").exists()


class Reader(threading.Thread):
    """Pulls an image all the time.

    :ivar fault: why a pull failed, or None.
    """

    def __init__(self, remote, held):
        super().__init__()
        self.pulls, self.fault = 0, None
        self._remote, self._held = remote, held
        self._over = threading.Event()

    def run(self):
        try:
            while not self._over.is_set():
                self._remote.assert_holds("held", self._held, "latest")
                assert self._remote.tags("held") == ["latest"]
                self._remote.referrers("held", self._held.digest)
                self.pulls += 1
                self._over.wait(0.05)
        except BaseException as fault:  # noqa: BLE001 - the test fails with it
            self.fault = fault

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self.join()


def push_until_refused(remote):
    """Push until the disk has no space for the smallest blob."""
    for size in (LAYER, 50_000, 1):
        for number in range(1000):
            blob = noise((size, number, time.monotonic_ns()), size)
            response = remote.request("POST", "/v2/filler/blobs/uploads/", b"")
            if response.status == 202:
                location = with_digest(response.headers["location"], digest_of(blob))
                response = remote.request("PUT", location, blob)
            if response.status not in {201, 202}:
                assert response.status == 507, response
                break
        else:
            pytest.fail("the disk is never full")


nightly = pytest.mark.nightly


@pytest.mark.parametrize("way", ["api", "commands"])
@pytest.mark.parametrize(
    ("filler", "keep", "workers"),
    [
        ("file", "off", 1),
        ("pushes", "1s", 1),
        ("inodes", "1s", 2),
        pytest.param("file", "1s", 2, marks=nightly),
        pytest.param("pushes", "off", 2, marks=nightly),
        pytest.param("inodes", "off", 1, marks=nightly),
    ],
)
def test_everything_that_frees_space_works_without_any(tmp_path, filler, keep, workers, way):
    with mounted_disk(tmp_path, DISK_OPTIONS) as disk:
        debug = free_port()
        text = CONFIGURATION.format(
            root=disk.root / "store", keep=keep, workers=workers, debug=debug
        )
        (tmp_path / "registry.yml").write_text(text)
        users = disk.root / "users"
        users.write_bytes(password_lines(alice="secret", bob="secret"))
        (tmp_path / "tokens.yml").write_text(text + TOKENS.format(users=tmp_path / "small/users"))
        with RegistryProcess(*SERVE, "registry.yml", cwd=tmp_path) as server:
            operator = Operator(disk, server, tmp_path, debug, None)
            operator.fill = {
                "file": disk.fill,
                "inodes": disk.fill_inodes,
                "pushes": lambda: push_until_refused(operator.remote),
            }[filler]
            ways = {"api": use_api_and_tasks, "commands": use_commands}
            free_everything(operator, ways[way], has_trash=keep != "off")
            status, _, lines = server.stop()
        assert status == 0
        assert not any("Traceback" in line for line in lines), lines


def test_a_disk_that_was_full_before_there_was_a_reserve_is_freed_after_deletes(tmp_path):
    with mounted_disk(tmp_path, DISK_OPTIONS) as disk:
        debug = free_port()
        text = CONFIGURATION.format(root=disk.root / "store", keep="off", workers=1, debug=debug)
        path = tmp_path / "registry.yml"
        path.write_text(text.replace("/store}", "/store, reserve: 0}"))
        held = image("held", size=100_000)
        images = [image(("doomed", n), layers=1, size=LAYER) for n in range(12)]
        with RegistryProcess(*SERVE, "registry.yml", cwd=tmp_path) as server:
            operator = Operator(disk, server, tmp_path, debug, disk.fill)
            operator.remote.push("held", held, "latest")
            for number, doomed in enumerate(images):
                operator.remote.push(f"doomed/{number}", doomed, "latest")
            assert server.stop()[0] == 0
        assert operator.reserve_pieces() == 0
        path.write_text(text)
        disk.fill()
        with RegistryProcess(*SERVE, "registry.yml", cwd=tmp_path) as server:
            operator = Operator(disk, server, tmp_path, debug, disk.fill)
            remote = operator.remote
            remote.assert_holds("held", held, "latest")
            assert remote.request("POST", "/v2/a/blobs/uploads/", b"").status == 507
            for number in range(len(images)):
                path = f"/v2/doomed/{number}/manifests/latest"
                assert remote.request("DELETE", path).status == 202
            assert wait_until(operator.reserve_pieces, 20)
            disk.fill()
            operator.on_store("garbage-collect", "-m")
            assert not any(operator.has_blob(each.layers[0].digest) for each in images)
            remote.assert_holds("held", held, "latest")
            wait_until(lambda: can_push(remote, images[0]), 20)


def free_everything(operator, way, *, has_trash):
    """Use each way to free space once while an image is pulled, then push again.

    :param way: deletes by the API and runs tasks, or uses commands.
    """
    remote = operator.remote
    held = image("held", size=100_000)
    remote.push("held", held, "latest")
    images = [image(("doomed", n), layers=1, size=LAYER) for n in range(6)]
    layers = [each.layers[0].digest for each in images]
    fill_store(remote, images)
    assert wait_until(lambda: operator.reserve_pieces() > 100)
    # Retention keeps tags until it knows their pulls for a second.
    time.sleep(2)
    with Reader(remote, held) as reader:
        way(operator, images, layers, has_trash=has_trash)
    assert reader.fault is None, reader.fault
    assert reader.pulls
    operator.make_room()
    again = image("again", size=100_000)
    wait_until(lambda: can_push(remote, again), 20)
    remote.assert_holds("again", again, "latest")
    assert wait_until(lambda: operator.reserve_pieces() > 100, 20)


def can_push(remote, made):
    """Push an image, and return whether every request found room.

    Each process looks at intervals whether the reserve is complete, so one may refuse for longer.
    """
    try:
        remote.push("again", made, "latest")
    except UnexpectedResponse as refusal:
        if "no space left" not in str(refusal):
            raise
        return False
    return True


def fill_store(remote, images):
    """Push what will be deleted."""
    for number, doomed in enumerate(images):
        remote.push(f"doomed/{number}", doomed, "latest")
    for tag in "abc":
        remote.push("retained/one", image(tag, size=1000), tag)
        remote.push("retained/two", image(("two", tag), size=1000), tag)
    for _ in range(2):
        location = remote.start_upload("unfinished")
        assert remote.request("PATCH", location, bytes(LAYER)).status == 202


def use_api_and_tasks(operator, images, layers, *, has_trash):
    """Delete a manifest by digest and by tag, a blob and a repository; run every task."""
    remote = operator.remote
    operator.delete(f"/v2/doomed/0/manifests/{images[0].digest}")
    assert remote.manifest("doomed/0", "latest").status == 404
    operator.delete("/v2/doomed/1/manifests/latest")
    operator.delete(f"/v2/doomed/2/blobs/{layers[2]}")
    assert remote.blob("doomed/2", layers[2]).status == 404
    operator.delete("/v2/doomed/2/manifests/latest")
    operator.delete("/v2/_repository/doomed/3")
    result = operator.run_task("retention")
    assert (result["expired"], result["failed"]) == (4, 0)
    result = operator.run_task("uploadpurging")
    assert (result["removed"] >= 2, result["failed"]) == (True, 0)
    assert operator.run_task("gc")["failed"] == 0
    for gone in range(4):
        assert not operator.has_blob(layers[gone]), gone
    time.sleep(1.5)
    result = operator.run_task("trash")
    assert (result["failed"], result["removed"] > 0) == (0, has_trash)
    assert operator.run_task("scrub")["damaged"] == 0


def use_commands(operator, _images, layers, *, has_trash):
    """Delete, collect, empty the trash, repair, revoke, and run tasks by commands."""
    token = json.loads(
        operator.command_as_is(
            "token", "create", "robot", "--allow", "**:pull", "--json", "tokens.yml"
        )
    )
    operator.on_store("delete", "doomed/4")
    operator.delete("/v2/doomed/5/manifests/latest")
    operator.on_store("garbage-collect", "-m")
    for gone in (4, 5):
        assert not operator.has_blob(layers[gone]), gone
    out = operator.on_store("trash", "empty")
    assert has_trash != out.startswith("0 items")
    out = operator.on_store("maintenance", "run", "uploadpurging")
    assert "failure" not in out
    assert re.search(r"\b[1-9]\d* deleted", out), out
    assert operator.on_store("retention").endswith("4 of 6 tags deleted in 2 repositories\n")
    repair(operator)
    revoke(operator, token["id"])


def repair(operator):
    """Move a damaged blob to the quarantine."""
    damaged = operator.store / f"docker/registry/v2/blobs/sha256/00/{'00' * 32}"
    operator.make_room()
    damaged.mkdir(parents=True)
    (damaged / "data").write_bytes(b"damaged")
    out = operator.on_store("fsck", "--repair")
    assert "corrupt blob" in out
    assert "(repaired)" in out
    assert not (damaged / "data").exists()


def revoke(operator, token):
    """Revoke a token and remove a user."""
    operator.command("token", "revoke", token, "tokens.yml")
    assert operator.command("token", "list", "--json-lines", "tokens.yml") == ""
    operator.command("user", "remove", "alice", "tokens.yml")
    listed = json.loads(operator.command("user", "list", "--json", "tokens.yml"))
    assert [user["name"] for user in listed["users"]] == ["bob"]
