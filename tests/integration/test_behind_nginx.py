"""Two registries over one bucket behind nginx, with real clients.

nginx sends the requests to both in turn; one is killed and restarted during the pushes. All pushed
images are complete afterwards, with the right digests.
"""

from __future__ import annotations

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from grp import getgrgid
from http.client import HTTPConnection
from pwd import getpwuid
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from attrs import frozen

from tests.documentation.pages import blocks_in
from tests.integration.images import assert_layout_holds, image
from tests.integration.remote import Remote
from tests.integration.servers import OURS, Bucket, answers, end, program, wait_until
from tests.support.processes import free_port
from twisted_registry.testing import write_layout

if TYPE_CHECKING:
    from pathlib import Path

    from twisted_registry.testing import Image

pytestmark = pytest.mark.integration

NGINX = """
daemon off;
user {user};
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  {http}
  upstream registries {{
    server {first} max_fails=0;
    server {second} max_fails=0;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://registries;
      {documented}
      {location}
    }}
  }}
}}
"""
#: How often a client is run when a registry is killed during its push.
ATTEMPTS = 8
COPY = ("copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests")


@pytest.fixture
def servers(object_stores, launcher):
    bucket = Bucket(object_stores.get("ceph"), f"nginx-{uuid4().hex}")
    return [launcher.start(OURS, bucket) for _ in range(2)]


@pytest.fixture
def address(servers, tmp_path):
    """The address of nginx."""
    with run_nginx(tmp_path / "nginx", *(served.address for served in servers)) as address:
        yield address


@contextmanager
def run_nginx(folder, first, second, *, http="", location=""):
    """Run nginx, as documented, in front of two registries, and yield its address.

    :param http: further lines of the section ``http``.
    :param location: further lines of the section ``location``.
    """
    port = free_port()
    folder.mkdir()
    (documented,) = (block.text for block in blocks_in("nginx"))
    buffering = "on" if http else "off"
    configuration = folder / "nginx.conf"
    configuration.write_text(
        NGINX.format(
            user=f"{getpwuid(os.geteuid()).pw_name} {getgrgid(os.getegid()).gr_name}",
            folder=folder,
            port=port,
            first=first,
            second=second,
            http=http,
            location=location,
            documented=documented.replace("proxy_buffering off", f"proxy_buffering {buffering}"),
        )
    )
    log = folder / "nginx.log"
    with log.open("wb") as out:
        nginx = subprocess.Popen(
            [program("nginx"), "-e", log, "-c", configuration], stdout=out, stderr=out
        )
    address = f"127.0.0.1:{port}"
    try:
        wait_until(lambda: answers(address), nginx, log)
        yield address
    finally:
        end(nginx)


@frozen
class Pushed:
    """An image and the client that pushes and pulls it; podman compresses layers again."""

    number: int
    image: Image
    client: str

    @property
    def name(self) -> str:
        """The repository, which is shared with other images."""
        return f"nginx/{self.number % 5}"

    @property
    def tag(self) -> str:
        """The tag, which is unique."""
        return f"t{self.number}"

    def push(self, address: str, sandbox, layout: Path) -> None:
        """Push it with its client."""
        target = f"{address}/{self.name}:{self.tag}"
        if self.client == "skopeo":
            sandbox.run("skopeo", *COPY, f"oci:{layout}:{self.tag}", f"docker://{target}")
        elif self.client == "podman":
            sandbox.run("podman", "pull", "--quiet", f"oci:{layout}:{self.tag}")
            identity = "sha256:" + self.configuration
            sandbox.run("podman", "push", "--quiet", identity.removeprefix("sha256:"), target)
        else:
            remote = Remote(address)
            for blob in self.image.blobs:
                remote.push_in_chunks(self.name, blob.read(), blob.size // 3 + 1)
            remote.push_manifest(self.name, self.tag, self.image)

    @property
    def configuration(self) -> str:
        """The digest of the configuration, which is the id of the image in podman."""
        return self.image.config.digest.removeprefix("sha256:")

    def check(self, address: str, sandbox, folder: Path) -> None:
        """Pull it, and compare all bytes."""
        remote, source = Remote(address), f"{address}/{self.name}:{self.tag}"
        if self.client == "podman":
            manifest = remote.assert_complete(self.name, self.tag).json()
            assert manifest["config"]["digest"].endswith(self.configuration)
            sandbox.run("podman", "rmi", "--force", self.configuration)
            pulled = sandbox.run("podman", "pull", "--quiet", source)
            assert pulled.strip() == self.configuration
            return
        remote.assert_holds(self.name, self.image, self.tag)
        if self.client == "skopeo":
            sandbox.run("skopeo", *COPY, f"docker://{source}", f"oci:{folder / self.tag}:1")
            assert_layout_holds(folder / self.tag, self.image)


def again(work, *arguments):
    """Run ``work`` until it succeeds, at most ``ATTEMPTS`` times."""
    for _ in range(ATTEMPTS):
        try:
            return work(*arguments)
        except (AssertionError, OSError) as error:
            last = error
            time.sleep(0.2)
    raise last


@pytest.mark.parametrize(
    ("count", "podman_each"),
    [
        (15, 7),
        pytest.param(200, 4, marks=[pytest.mark.nightly, pytest.mark.timeout(1500)]),
    ],
)
def test_images_survive_a_kill_behind_nginx(
    servers, address, sandbox, tmp_path, count, podman_each
):
    everything = []
    for number in range(count):
        client = ("skopeo", "chunks")[number % 2] if number % podman_each else "podman"
        everything.append(Pushed(number, image(("nginx", number), size=20_000), client))
    layout = tmp_path / "layout"
    write_layout(layout, {each.tag: each.image for each in everything})
    with ThreadPoolExecutor(6) as pool:
        pushes = [pool.submit(again, each.push, address, sandbox, layout) for each in everything]
        while sum(push.done() for push in pushes) < count // 3:
            time.sleep(0.05)
        servers[0].kill()
        while sum(push.done() for push in pushes) < count // 2:
            time.sleep(0.05)
        servers[0].start()
        for push in pushes:
            push.result()
        back = tmp_path / "back"
        back.mkdir()
        for checked in [pool.submit(each.check, address, sandbox, back) for each in everything]:
            checked.result()
    for served in servers:
        for name in {each.name for each in everything}:
            tags = {each.tag for each in everything if each.name == name}
            assert set(served.remote.tags(name)) == tags


#: A cache that keeps whatever it may, as long as it may, and shows whether it had it.
CACHE = """
  proxy_cache_path {folder}/cache keys_zone=blobs:1m max_size=100m inactive=1d use_temp_path=off;
"""
CACHED = """
      proxy_cache blobs;
      proxy_cache_valid any 1h;
      proxy_cache_revalidate on;
      proxy_ignore_headers Vary;
      add_header X-Cache $upstream_cache_status always;
"""
URL_LIFETIME_S = 5


@pytest.fixture(params=["swift", "ceph"])
def short_lived(request, object_stores, launcher):
    """A registry whose redirects are valid for five seconds."""
    bucket = Bucket(object_stores.get(request.param), f"cached-{uuid4().hex}")
    within = f"  redirect: {{lifetime: {URL_LIFETIME_S}s}}\n"
    return launcher.start(OURS, bucket, within=within)


def get(address, path):
    """Send a GET, and do not follow redirects."""
    connection = HTTPConnection(address, timeout=60)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def test_a_cache_in_front_gives_out_no_expired_urls(short_lived, tmp_path):
    content = b"content of a blob"
    digest = short_lived.remote.push_blob("cached", content)
    cache, address = CACHE.format(folder=tmp_path), short_lived.address
    path = f"/v2/cached/blobs/{digest}"
    with run_nginx(tmp_path / "nginx", address, address, http=cache, location=CACHED) as proxy:
        status, first, _ = get(proxy, path)
        assert status == 307
        end = time.monotonic() + URL_LIFETIME_S + 3
        pulls = 0
        while time.monotonic() < end or pulls < 5:
            assert Remote(proxy).blob("cached", digest).body == content
            pulls += 1
            time.sleep(0.5)
        # The store refuses what has expired, and the cache works.
        old = urlsplit(first["Location"])
        assert get(old.netloc, f"{old.path}?{old.query}")[0] == 403
        assert get(proxy, path)[1]["X-Cache"] != "HIT"
        for _ in range(2):
            _, headers, _ = get(proxy, "/v2/cached/blobs/sha256:" + "0" * 64)
        assert headers["X-Cache"] == "HIT"
