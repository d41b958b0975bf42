"""Keys that are replaced while the driver runs, on a real store."""

from __future__ import annotations

import subprocess
from uuid import uuid4

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from tests.support.s3_servers import BUCKET, PATH
from twisted_registry.storage.s3.address import endpoint_address
from twisted_registry.storage.s3.client import S3Client
from twisted_registry.storage.s3.credentials import find_credentials
from twisted_registry.storage.s3.errors import BadCredentials
from twisted_registry.storage.s3.sender import Sender
from twisted_registry.storage.s3.transport import make_transport

pytestmark = pytest.mark.integration


@pytest.fixture
def keys(object_stores):
    """Return a function that creates a key of the test user, or removes it."""
    object_stores.get("ceph")
    folder = object_stores.folder / "ceph"

    def change(action, access_key):
        secret = ["--secret-key=secret"] if action == "create" else []
        subprocess.run(
            ["radosgw-admin", "-c", folder / "ceph.conf", "key", action, "--uid=registry",
             "--key-type=s3", f"--access-key={access_key}", *secret],
            check=True, capture_output=True, cwd=folder, env={"PATH": PATH},
        )  # fmt: skip

    return change


@pytest_twisted.ensureDeferred
async def test_replaced_keys_are_used_at_once(object_stores, keys, tmp_path):
    store = object_stores.get("ceph")
    old, new = f"old{uuid4().hex}", f"new{uuid4().hex}"
    path = tmp_path / "credentials"

    def write(key):
        path.write_text(f"[default]\naws_access_key_id={key}\naws_secret_access_key=secret\n")

    await deferToThread(keys, "create", old)
    write(old)
    environ = {"AWS_SHARED_CREDENTIALS_FILE": str(path), "HOME": str(tmp_path)}
    address = endpoint_address(BUCKET, store.endpoint)
    credentials = find_credentials(reactor, environ)
    client = S3Client(Sender(reactor, make_transport(reactor), address, credentials, "tests"))
    root = uuid4().hex
    await client.put_object(f"{root}/a", b"content")

    await deferToThread(keys, "create", new)
    await deferToThread(keys, "rm", old)
    with pytest.raises(BadCredentials):
        await client.read_object(f"{root}/a", 10)
    write(new)
    assert (await client.read_object(f"{root}/a", 10))[1] == b"content"
    assert (await client.head_object(f"{root}/a")).size == 7
    await client.delete_object(f"{root}/a")
    await client.close()
    await deferToThread(keys, "rm", new)
