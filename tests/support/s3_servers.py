"""S3 servers on 127.0.0.1 from Debian packages, OpenStack Swift and Ceph RGW, and moto.

Each consists of daemons over a temporary folder, and neither reads nor changes the configuration of
the system. ``moto``, a fake from PyPI, accepts any secret, so it proves nothing about signatures.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import urlopen
from uuid import uuid4

import pytest
from attrs import define, field, frozen

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds that a server may take to start.
START_TIMEOUT_S = 90
#: The bucket that is created in each server.
BUCKET = "registry"
#: Debian installs daemons in sbin.
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"


@frozen
class ObjectStore:
    """A running S3 server; ``endpoint`` is ``http://127.0.0.1:PORT``."""

    kind: str
    endpoint: str
    access_key: str
    secret_key: str

    @property
    def options(self) -> dict[str, object]:
        """The ``s3`` section of a configuration that uses the bucket."""
        return {
            "accesskey": self.access_key,
            "secretkey": self.secret_key,
            "region": "us-east-1",
            "regionendpoint": self.endpoint,
            "bucket": BUCKET,
            "secure": False,
        }


@define(eq=False)
class Daemons:
    """Daemons that run until ``close``; their files and logs are in ``folder``."""

    folder: Path
    running: list[subprocess.Popen[bytes]] = field(factory=list)

    def start(self, *command: object) -> None:
        """Start a program in the background."""
        log = self.folder / f"{len(self.running)}-{Path(str(command[0])).name}.log"
        with log.open("wb") as out:
            self.running.append(
                subprocess.Popen(
                    [str(part) for part in command],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    cwd=self.folder,
                    env={**os.environ, "PATH": PATH},
                )
            )

    def run(self, *command: object) -> None:
        """Run a program to its end, and fail unless it succeeds."""
        done = subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env={**os.environ, "PATH": PATH},
            timeout=START_TIMEOUT_S,
            check=False,
        )
        output = done.stdout.decode(errors="replace")
        assert done.returncode == 0, f"{command}: exit {done.returncode}\n{output}\n{self.logs()}"

    def wait(self, ready: Callable[[], bool]) -> None:
        """Poll until ``ready`` is true; fail with the logs if a daemon ends or time runs out."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            ended = [process.args for process in self.running if process.poll() is not None]
            assert not ended, f"ended: {ended}\n{self.logs()}"
            assert time.monotonic() < deadline, f"not up in time\n{self.logs()}"
            time.sleep(0.05)

    def logs(self) -> str:
        """Return the last part of each log."""
        return "\n".join(
            f"--- {path.name}\n{path.read_bytes()[-1500:].decode(errors='replace')}"
            for path in sorted(self.folder.glob("**/*.log"))
        )

    def close(self) -> None:
        """Kill the daemons; their files are temporary, so no clean shutdown is needed."""
        for process in reversed(self.running):
            process.kill()
        for process in self.running:
            process.wait()


def free_ports(count: int) -> list[int]:
    """Return ports that are free at this moment."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def answers(url: str) -> bool:
    """Return whether an HTTP server responds."""
    try:
        with urlopen(url, timeout=5):
            return True
    except HTTPError:
        return True
    except OSError:
        return False


def write_sections(path: Path, sections: dict[str, dict[str, object]]) -> None:
    """Write a configuration file of ``[sections]``."""
    lines = []
    for name, options in sections.items():
        lines += [f"[{name}]", *(f"{key} = {value}" for key, value in options.items())]
    path.write_text("\n".join(lines) + "\n")


def start_swift(daemons: Daemons) -> ObjectStore:
    """Start Swift with its S3 API: one server of each kind, a single replica."""
    proxy, account, container, objects, memcached = free_ports(5)
    etc, disks, cache = (daemons.folder / name for name in ("etc", "disks", "cache"))
    for folder in (etc, disks / "d", cache):
        folder.mkdir(parents=True)
    remember = {"memcache_servers": f"127.0.0.1:{memcached}"}
    common: dict[str, object] = {
        "bind_ip": "127.0.0.1", "workers": 0, "user": getuser(), "swift_dir": etc,
        "log_level": "WARNING", "log_facility": "",
    }  # fmt: skip
    write_sections(
        etc / "swift.conf",
        {
            "swift-hash": {"swift_hash_path_suffix": "tests", "swift_hash_path_prefix": "tests"},
            "storage-policy:0": {"name": "default", "default": "yes"},
        },
    )
    write_sections(etc / "memcache.conf", {"memcache": dict(remember)})
    for kind, port in (("account", account), ("container", container), ("object", objects)):
        ring = etc / f"{kind}.builder"
        daemons.run("swift-ring-builder", ring, "create", 4, 1, 0)
        daemons.run("swift-ring-builder", ring, "add", f"r1z1-127.0.0.1:{port}/d", 1)
        daemons.run("swift-ring-builder", ring, "rebalance")
        write_sections(
            etc / f"{kind}.conf",
            {
                "DEFAULT": {
                    **common, "bind_port": port, "devices": disks, "mount_check": "false",
                },
                "pipeline:main": {"pipeline": f"{kind}-server"},
                f"app:{kind}-server": {"use": f"egg:swift#{kind}", "recon_cache_path": cache},
            },
        )  # fmt: skip
    filters: dict[str, dict[str, object]] = {
        "catch_errors": {}, "gatekeeper": {}, "healthcheck": {},
        # Logins fail without it: it stores the tokens of users, of S3 as well.
        "memcache": dict(remember),
        "listing_formats": {}, "bulk": {},
        "s3api": {"location": "us-east-1", "s3_acl": "false"},
        "tempauth": {"user_test_tester": "testing .admin"},
        "copy": {}, "slo": {}, "dlo": {},
        "versioned_writes": {"allow_versioned_writes": "true"}, "symlink": {},
    }  # fmt: skip
    write_sections(
        etc / "proxy.conf",
        {
            "DEFAULT": {**common, "bind_port": proxy},
            "pipeline:main": {"pipeline": " ".join([*filters, "proxy-server"])},
            "app:proxy-server": {
                "use": "egg:swift#proxy", "account_autocreate": "true",
                "allow_account_management": "true",
            },
            **{
                f"filter:{name}": {"use": f"egg:swift#{name}", **options}
                for name, options in filters.items()
            },
        },
    )  # fmt: skip
    daemons.start("memcached", "-l", "127.0.0.1", "-p", memcached, "-m", 16, "-u", getuser())
    for kind in ("account", "container", "object", "proxy"):
        daemons.start(f"swift-{kind}-server", etc / f"{kind}.conf", "-v")
    endpoint = f"http://127.0.0.1:{proxy}"
    daemons.wait(lambda: answers(f"{endpoint}/healthcheck"))
    return ObjectStore("swift", endpoint, "test:tester", "testing")


#: Storage of the only OSD of Ceph: memory, or a sparse file.
IN_MEMORY: dict[str, object] = {
    "osd_objectstore": "memstore", "memstore_device_bytes": 4 * 1024**3,
}  # fmt: skip
ON_DISK: dict[str, object] = {
    "osd_objectstore": "bluestore", "bluestore_block_size": 32 * 1024**3,
    "osd_memory_target": 1024**3,
}  # fmt: skip


def start_ceph(daemons: Daemons, osd_options: dict[str, object] = IN_MEMORY) -> ObjectStore:
    """Start Ceph's S3 gateway over one monitor and one OSD.

    :param osd_options: options of the OSD's storage.
    """
    monitor, gateway = free_ports(2)
    folder = daemons.folder
    for name in ("mon", "osd", "run"):
        (folder / name).mkdir()
    cluster = str(uuid4())
    keyring, monmap = folder / "keyring", folder / "monmap"
    write_sections(
        folder / "ceph.conf",
        {
            "global": {
                "fsid": cluster, "mon_host": f"v2:127.0.0.1:{monitor}",
                "mon_initial_members": "a", "public_addr": "127.0.0.1",
                "cluster_addr": "127.0.0.1", "ms_bind_msgr1": "false", "keyring": keyring,
                # Without authentication between them the gateway never comes up.
                "auth_cluster_required": "cephx", "auth_service_required": "cephx",
                "auth_client_required": "cephx",
                "osd_pool_default_size": 1, "osd_pool_default_min_size": 1,
                "osd_pool_default_pg_num": 4, "osd_pool_default_pgp_num": 4,
                "osd_pool_default_pg_autoscale_mode": "off", "mon_allow_pool_size_one": "true",
                "osd_crush_chooseleaf_type": 0, "mon_data_avail_warn": 1,
                "mon_data_avail_crit": 1,
                "run_dir": folder / "run", "log_file": "/dev/null",
                "pid_file": folder / "run/$name.pid", "admin_socket": folder / "run/$name.asok",
            },
            "mon.a": {
                "mon_data": folder / "mon", "mon_addr": f"127.0.0.1:{monitor}",
                "host": "localhost",
            },
            "osd.0": {
                "osd_data": folder / "osd", "host": "localhost", **osd_options,
                # Debian's default is a relative path; the gateway needs these classes.
                "osd_class_dir": next(Path("/usr/lib").glob("*/rados-classes"), "/"),
            },
            "client.rgw.a": {
                "rgw_frontends": f"beast endpoint=127.0.0.1:{gateway}",
                "rgw_dns_name": "localhost", "rgw_crypt_require_ssl": "false",
                "rgw_thread_pool_size": 64,
            },
        },
    )  # fmt: skip
    for name, rights in (
        ("mon.", ("mon", "allow *")),
        ("client.admin", ("mon", "allow *", "osd", "allow *", "mgr", "allow *")),
        ("client.rgw.a", ("mon", "allow rw", "osd", "allow rwx")),
        ("osd.0", ("mon", "allow profile osd", "osd", "allow *")),
    ):
        caps = [part for pair in zip(rights[::2], rights[1::2], strict=True)
                for part in ("--cap", *pair)]  # fmt: skip
        create = [] if keyring.exists() else ["--create-keyring"]
        daemons.run("ceph-authtool", keyring, *create, "--gen-key", "-n", name, *caps)
    daemons.run("monmaptool", "--create", "--fsid", cluster,
                "--addv", "a", f"[v2:127.0.0.1:{monitor}]", monmap)  # fmt: skip
    with_conf = ("-c", folder / "ceph.conf")
    daemons.run("ceph-mon", *with_conf, "--mkfs", "-i", "a", "--monmap", monmap,
                "--keyring", keyring)  # fmt: skip
    daemons.start("ceph-mon", *with_conf, "-i", "a", "-f")
    disk = str(uuid4())
    daemons.run("ceph", *with_conf, "osd", "create", disk, 0)
    daemons.run("ceph-osd", *with_conf, "-i", 0, "--mkfs", "--osd-uuid", disk)
    daemons.start("ceph-osd", *with_conf, "-i", 0, "-f")
    daemons.start("radosgw", *with_conf, "-n", "client.rgw.a", "-f")
    endpoint = f"http://127.0.0.1:{gateway}"
    daemons.wait(lambda: answers(endpoint))
    store = ObjectStore("ceph", endpoint, "registrykey", "registrysecretkey")
    daemons.run("radosgw-admin", *with_conf, "user", "create", "--uid=registry",
                "--display-name=registry", f"--access-key={store.access_key}",
                f"--secret-key={store.secret_key}")  # fmt: skip
    return store


def start_moto(daemons: Daemons) -> ObjectStore:
    """Start moto."""
    (port,) = free_ports(1)
    daemons.start(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port)
    endpoint = f"http://127.0.0.1:{port}"
    daemons.wait(lambda: answers(endpoint))
    return ObjectStore("moto", endpoint, "double", "anything")


def start_strict(daemons: Daemons) -> ObjectStore:
    """Start the server of :mod:`tests.support.bucket_server`."""
    (port,) = free_ports(1)
    path = f"PYTHONPATH={Path(__file__).parents[2]}"
    daemons.start("env", path, sys.executable, "-m", "tests.support.bucket_server", port)
    endpoint = f"http://127.0.0.1:{port}"
    daemons.wait(lambda: answers(endpoint))
    return ObjectStore("strict", endpoint, "strict", "anything")


def start_ceph_on_disk(daemons: Daemons) -> ObjectStore:
    """Start Ceph for more objects than fit into memory."""
    return start_ceph(daemons, ON_DISK)


_CEPH = (
    "ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin",
)  # fmt: skip
#: Kind of server -> its start function, and the programs that it needs.
STORES: dict[str, tuple[Callable[[Daemons], ObjectStore], tuple[str, ...]]] = {
    "swift": (
        start_swift,
        ("swift-ring-builder", "swift-proxy-server", "swift-account-server",
         "swift-container-server", "swift-object-server", "memcached"),
    ),
    "ceph": (start_ceph, _CEPH),
    "ceph on disk": (start_ceph_on_disk, _CEPH),
    "moto": (start_moto, ()),
    "strict": (start_strict, ()),
}  # fmt: skip


@define(eq=False)
class ObjectStores:
    """The S3 servers of one test run; each starts when it is first used."""

    folder: Path
    started: dict[str, tuple[ObjectStore, Daemons]] = field(factory=dict)

    def get(self, kind: str) -> ObjectStore:
        """Return a running server; without its programs, fail in CI and skip elsewhere."""
        if kind not in self.started:
            start, programs = STORES[kind]
            missing = [name for name in programs if shutil.which(name, path=PATH) is None]
            if missing:
                reason = f"not installed: {', '.join(missing)}"
                (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
            folder = self.folder / kind
            folder.mkdir(parents=True)
            daemons = Daemons(folder)
            try:
                store = start(daemons)
                make_bucket(store)
            except BaseException:
                daemons.close()
                raise
            self.started[kind] = store, daemons
        return self.started[kind][0]

    def close(self) -> None:
        """Stop all servers."""
        for _, daemons in self.started.values():
            daemons.close()


def client(store: ObjectStore):
    """Return a botocore client, to prepare and inspect a bucket independently of our client."""
    from botocore.config import Config
    from botocore.session import Session

    return Session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=store.endpoint,
        aws_access_key_id=store.access_key,
        aws_secret_access_key=store.secret_key,
        config=Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def make_bucket(store: ObjectStore) -> None:
    """Create the bucket of the tests."""
    client(store).create_bucket(Bucket=BUCKET)
