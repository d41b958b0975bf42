"""The systemd unit: how much it permits, and a registry that runs with what it permits.

These tests need no systemd that runs; ``test_systemd.py`` boots one each night. ``unshare`` and
``setpriv`` do what the unit makes systemd do (another user without capabilities, a file system that
is read-only except for the directory of the state), and ``strace`` tells which system calls its
filter has to allow.
"""

from __future__ import annotations

import base64
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.integration.images import image
from tests.integration.remote import Remote
from tests.integration.servers import program
from tests.support.processes import ROOT, SERVE, RegistryProcess, environment, run
from tests.support.self_signed import self_signed

pytestmark = pytest.mark.integration

UNIT = ROOT / "conf/twisted-registry.service"
#: A user and a group that no machine has.
USER, GROUP = 61184, 61185
CONFIGURATION = """\
version: 0.1
storage:
  filesystem: {{rootdirectory: {state}/store}}
  maintenance: {{gc: {{grace: 0s}}}}
http:
  addr: 127.0.0.1:0
  tls: {{certificate: {etc}/chain.pem, key: {etc}/key.pem}}
auth:
  htpasswd: {{realm: here, path: {etc}/users}}
"""


def settings_of_unit(name):
    """Return the values of a setting of the unit, in order."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def test_systemd_reads_the_unit_without_a_complaint(tmp_path):
    # The path of the program is that of an installation.
    text = UNIT.read_text().replace("ExecStart=/opt/twisted-registry/bin/", "ExecStart=/bin/true ")
    (tmp_path / UNIT.name).write_text(text)
    command = (program("systemd-analyze"), "verify", "--man=no", str(tmp_path / UNIT.name))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_unit_scores_below_3():
    command = (program("systemd-analyze"), "security", "--offline=true", "--no-pager", str(UNIT))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    score = float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)[1])
    assert score < 3, done.stdout


def test_the_filter_of_the_unit_allows_every_system_call_of_a_registry(tmp_path):
    (tmp_path / "registry.yml").write_text(
        "version: 0.1\n"
        f"storage: {{filesystem: {{rootdirectory: {tmp_path}/store}}, delete: {{enabled: true}}}}\n"
        "http: {addr: '127.0.0.1:0', workers: 2}\n"
    )
    log = tmp_path / "calls"
    strace = (program("strace"), "-f", "-qq", "-e", "signal=none", "-o", str(log))
    with RegistryProcess(*strace, *SERVE, "registry.yml", cwd=tmp_path) as server:
        remote = Remote(f"127.0.0.1:{server.port}")
        pushed = image("image", size=200_000)
        remote.push("a", pushed, "latest")
        remote.assert_holds("a", pushed, "latest")
        assert remote.request("DELETE", "/v2/a/manifests/latest").status == 202
        tracer = server.process.pid
        children = Path(f"/proc/{tracer}/task/{tracer}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)
        assert server.process.wait(60) == 0
    # A call that another thread interrupts is written twice; the first line has its name.
    used = set(re.findall(r"^\d+ +(\w+)\(", log.read_text(errors="replace"), re.MULTILINE))
    assert "openat" in used
    allowed = set()
    for words in settings_of_unit("SystemCallFilter"):
        names = {name for word in words.lstrip("~").split() for name in calls_in(word)}
        allowed = allowed - names if words.startswith("~") else allowed | names
    assert used <= allowed, sorted(used - allowed)


def calls_in(name):
    """Return the system calls of a set of systemd, such as ``@system-service``."""
    if not name.startswith("@"):
        return {name}
    done = subprocess.run(
        (program("systemd-analyze"), "syscall-filter", "--no-pager", name),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    words = [line.strip() for line in done.stdout.splitlines()[1:]]
    return {call for word in words if word and not word.startswith("#") for call in calls_in(word)}


@pytest.fixture
def place():
    """A folder that any user may enter, unlike those of pytest."""
    made = Path(tempfile.mkdtemp(prefix="unit-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def sandbox(state, *command):
    """Return a command that runs another one as systemd runs it for the unit."""
    if os.geteuid() != 0:
        reason = "only root can become another user"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    # The interpreter may be in a home directory, which the unit hides; it is at another place when
    # the registry is installed.
    above = reversed(Path(sys.base_prefix).parents)
    hidden = next((folder for folder in above if not folder.stat().st_mode & 1), None)
    lines = ["set -e", "mount --make-rprivate /", f"mount --bind {state} {state}"]
    if hidden is not None:
        needed = sorted({Path(sys.base_prefix), Path(sys.prefix), ROOT})
        needed = [path for path in needed if path.is_relative_to(hidden)]
        for number, path in enumerate(needed):
            lines += [f"mkdir -p {state}.{number}", f"mount --bind {path} {state}.{number}"]
        lines += [f"mount -t tmpfs -o mode=755 tmpfs {hidden}"]
        for number, path in enumerate(needed):
            lines += [f"mkdir -p {path}", f"mount --bind {state}.{number} {path}"]
    lines += ["mount -o remount,bind,ro /"]
    setpriv = (
        program("setpriv"), f"--reuid={USER}", f"--regid={GROUP}", "--clear-groups",
        "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", *command,
    )  # fmt: skip
    (umask,) = settings_of_unit("UMask")
    lines += [f"umask {umask}", f"cd {state}", f"exec {shlex.join(setpriv)}"]
    return program("unshare"), "-m", "sh", "-c", "\n".join(lines)


def user(etc, *words, password="secret"):
    """Run ``twisted-registry user`` as an administrator does."""
    command = (sys.executable, "-m", "twisted_registry", "user", *words)
    subprocess.run(
        (*command, "--htpasswd", str(etc / "users")),
        input=password + "\n", text=True, check=True, env=environment(), umask=0o077,
    )  # fmt: skip


def install_as_documented(place):
    """Make the directories of docs/operations.rst; return them."""
    etc, state = place / "etc", place / "state"
    etc.mkdir()
    os.chown(etc, 0, GROUP)
    etc.chmod(0o2750)
    state.mkdir(mode=0o700)
    os.chown(state, USER, GROUP)
    pair = self_signed("127.0.0.1")
    for name, content in (
        ("registry.yml", CONFIGURATION.format(etc=etc, state=state).encode()),
        ("chain.pem", pair.certificate_pem),
        ("key.pem", pair.key_pem),
    ):
        (etc / name).write_bytes(content)
        os.chown(etc / name, 0, GROUP)
        (etc / name).chmod(0o640)
    user(etc, "add", "alice")
    return etc, state


def test_a_registry_that_runs_like_the_unit_reads_users_and_keys_of_root(place):
    server_command = (*SERVE, str(place / "etc/registry.yml"))
    state = place / "state"
    command = sandbox(state, *server_command)
    etc, state = install_as_documented(place)
    users = (etc / "users").stat()
    assert (users.st_uid, users.st_gid, users.st_mode & 0o777) == (0, GROUP, 0o640)
    secure = ssl.create_default_context(cafile=str(etc / "chain.pem"))
    with RegistryProcess(*command, cwd=place, secure=secure, PYTHONDONTWRITEBYTECODE="1") as server:

        def status(name, method="GET", path="/v2/", body=None):
            login = base64.b64encode(f"{name}:secret".encode()).decode()
            return server.ask(method, path, body, {"Authorization": f"Basic {login}"})[0].status

        assert status("alice") == 200
        assert status("alice", "POST", "/v2/a/blobs/uploads/", b"") == 202
        assert status("bob") == 401
        user(etc, "add", "bob")
        assert status("bob") == 200
        user(etc, "remove", "alice")
        assert status("alice") == 401
        # An administrator collects beside it.
        done = run(
            sys.executable, "-m", "twisted_registry", "garbage-collect", str(etc / "registry.yml"),
            cwd=place,
        )  # fmt: skip
        assert done[0] == 0, done
        assert status("bob", "POST", "/v2/a/blobs/uploads/", b"") == 202
        exit_status, _, lines = server.stop()
    assert exit_status == 0
    assert not [line for line in lines if "level=error" in line], lines


@pytest.mark.parametrize(
    ("closed", "mode", "key"),
    [
        ("etc/users", 0o600, "auth.htpasswd.path"),
        ("etc/key.pem", 0o600, "http.tls.key"),
        ("etc", 0o700, ""),
    ],
)
def test_a_file_that_only_root_reads_ends_the_start_with_the_commands_that_help(
    place, closed, mode, key
):
    command = sandbox(place / "state", *SERVE, str(place / "etc/registry.yml"))
    install_as_documented(place)
    target = place / closed
    os.chown(target, 0, 0)
    target.chmod(mode)
    status, out, (line,) = run(*command, cwd=place, PYTHONDONTWRITEBYTECODE="1")
    assert (status, out) == (1, "")
    assert f"{place}/etc/registry.yml: {key}" in line
    said = f"Permission denied for the user {USER}; to permit it, as root: "
    advice = line.partition(said)[2]
    assert advice == f"chgrp {GROUP} {target} && chmod 0{mode | (mode >> 3 & 0o50):o} {target}"
    subprocess.run(advice, shell=True, check=True)
    secure = ssl.create_default_context(cafile=str(place / "etc/chain.pem"))
    with RegistryProcess(*command, cwd=place, secure=secure, PYTHONDONTWRITEBYTECODE="1") as server:
        assert server.ask()[0].status == 401


def test_the_sandbox_of_the_test_refuses_what_the_unit_refuses(place):
    state = place / "state"
    state.mkdir()
    secret = place / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    script = f"touch {state}/file; cat {secret}; touch {place}/file /tmp/file-of-unit; id -u"
    command = sandbox(state, "sh", "-c", script)
    os.chown(state, USER, GROUP)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == f"{USER}\n"
    assert done.stderr.count("Permission denied") + done.stderr.count("Read-only") == 3
    assert (state / "file").exists()
