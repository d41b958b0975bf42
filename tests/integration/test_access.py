"""Real clients at a registry with users, rules, tokens of its own and robots.

They log in, push and pull what they may, are refused what they may not, and tell their user so.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from images import image, write_archive, write_layout
from passwordkit import entries
from servers import OURS, Launcher

pytestmark = pytest.mark.integration

ACCESS = """\
auth:
  htpasswd: {{realm: here, path: {users}}}
access:
  rules:
  - {{repositories: [public/**], anonymous: true, allow: [pull]}}
  - {{repositories: [public/**, team/**], users: [ada], allow: [push, delete]}}
  - {{repositories: [team/**], users: [eve], allow: [pull]}}
  tokens:
"""


class Guarded:
    """The registry, and who may do what with it."""

    def __init__(self, served, config):
        self.address = served.address
        self.image = served.image
        self.log = served.log
        self.credentials = {"user": ("ada", "secret"), "reader": ("eve", "secret")}
        self._config = config
        self.credentials["robot"] = ("ci", self.robot("public/**,team/**:push,delete"))

    def robot(self, allow):
        """The token of a new robot."""
        return self._token("create", f"--allow={allow}", "ci").strip()

    def _token(self, *arguments):
        done = subprocess.run(
            [sys.executable, "-m", "twisted_registry", "token", *arguments, self._config],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        return done.stdout


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A registry in two processes."""
    folder = tmp_path_factory.mktemp("guarded")
    users = folder / "users"
    users.write_bytes(entries(ada="secret", eve="secret"))
    started = Launcher(folder / "servers")
    try:
        served = started.start(OURS, folder / "root", 2, ACCESS.format(users=users))
        (config,) = served.work.glob("*.yml")
        yield Guarded(served, str(config))
    finally:
        started.close()


@pytest.fixture(params=["user", "robot"])
def credentials(request, guarded):
    """A name and a password that may push."""
    return guarded.credentials[request.param]


PLAIN = "--tls-verify=false"
DENIED = "requested access to the resource is denied"


def refused(sandbox, said, *command):
    """A command that has to fail, with something that its user can make sense of."""
    done = sandbox.attempt(*command)
    assert done.returncode != 0, done
    assert said in done.stdout + done.stderr, done


def test_skopeo(guarded, sandbox, credentials, tmp_path):
    name, password = credentials
    layout = write_layout(tmp_path / "layout", {"1": image("skopeo-access")})
    copy = ("skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false")
    team, public, other = (
        f"docker://{guarded.image(each)}" for each in ("team/skopeo", "public/skopeo", "other/x")
    )
    refused(sandbox, DENIED, *copy, f"oci:{layout}:1", team)
    sandbox.run("skopeo", "login", PLAIN, "-u", name, "-p", password, guarded.address)
    sandbox.run(*copy, f"oci:{layout}:1", team)
    sandbox.run(*copy, team, public)
    refused(sandbox, "403", *copy, team, other)
    sandbox.run("skopeo", "delete", PLAIN, team)
    sandbox.run("skopeo", "logout", guarded.address)
    sandbox.run("skopeo", "inspect", PLAIN, public)
    refused(sandbox, DENIED, "skopeo", "inspect", PLAIN, team)
    refused(sandbox, "invalid username/password", "skopeo", "login", PLAIN, "-u", name, "-p", "x",
            guarded.address)  # fmt: skip


def test_podman_and_buildah(guarded, sandbox, credentials):
    name, password = credentials
    target, other = guarded.image("team/podman"), guarded.image("other/podman")
    container = sandbox.run("buildah", "from", "scratch").strip()
    sandbox.run("buildah", "config", "--label=made=here", container)
    sandbox.run("buildah", "commit", container, target)
    refused(sandbox, DENIED, "podman", "push", target)
    sandbox.run("podman", "login", "-u", name, "-p", password, guarded.address)
    sandbox.run("podman", "push", target)
    sandbox.run("buildah", "push", target, f"docker://{guarded.image('public/buildah')}")
    sandbox.run("podman", "tag", target, other)
    refused(sandbox, "403", "podman", "push", other)
    sandbox.run("podman", "rmi", "--force", target)
    sandbox.run("podman", "pull", target)
    sandbox.run("podman", "logout", guarded.address)
    sandbox.run("podman", "pull", guarded.image("public/buildah"))
    refused(sandbox, DENIED, "podman", "pull", target)
    # Who may read and no more.
    name, password = guarded.credentials["reader"]
    sandbox.run("buildah", "login", "-u", name, "-p", password, guarded.address)
    sandbox.run("buildah", "pull", target)
    refused(sandbox, DENIED, "buildah", "push", target)
    refused(sandbox, DENIED, "skopeo", "inspect", PLAIN, f"docker://{other}")


def test_oras(guarded, sandbox, credentials):
    name, password = credentials
    (sandbox.home / "notes.txt").write_text("notes")
    target = guarded.image("team/oras")
    push = ("oras", "push", "--plain-http")
    refused(sandbox, "401", *push, target, "notes.txt")
    login = ("oras", "login", "--plain-http", "-u", name, "-p")
    refused(sandbox, "unauthorized", *login, "wrong", guarded.address)
    sandbox.run(*login, password, guarded.address)
    sandbox.run(*push, target, "notes.txt")
    sandbox.run("oras", "cp", "--from-plain-http", "--to-plain-http", target,
                guarded.image("public/oras"))  # fmt: skip
    refused(sandbox, "403: Forbidden", *push, guarded.image("other/oras"), "notes.txt")
    listed = sandbox.run("oras", "repo", "ls", "--plain-http", guarded.address)
    assert "team/oras" in listed.split()
    sandbox.run("oras", "logout", guarded.address)
    sandbox.run("oras", "pull", "--plain-http", "-o", "out", guarded.image("public/oras"))


def test_docker(guarded, docker, shared_sandbox, tmp_path, credentials):
    name, password = credentials
    archive = write_archive(tmp_path / "saved.tar", "saved:1", seed=f"docker-{name}", layers=2)
    team, public, other = (
        guarded.image(f"{each}/docker-{name}") for each in ("team", "public", "other")
    )
    docker("load", "--input", archive)
    for target in (team, public, other):
        docker("tag", "saved:1", target)
    daemon = ("docker", f"--host=unix://{shared_sandbox.home / 'docker.sock'}")
    refused(shared_sandbox, DENIED, *daemon, "push", team)
    refused(
        shared_sandbox, "unauthorized", *daemon, "login", "-u", name, "-p", "x", guarded.address
    )
    docker("login", "-u", name, "-p", password, guarded.address)
    kept = json.loads((shared_sandbox.home / ".docker" / "config.json").read_text())
    # A user's password is replaced by a token that can be revoked; a robot's is such a token.
    assert ("identitytoken" in kept["auths"][guarded.address]) == (name == "ada")
    assert docker("push", team).count(": Pushed") == 2
    assert docker("push", public).count(f"Mounted from team/docker-{name}") == 2
    refused(shared_sandbox, DENIED, *daemon, "push", other)
    docker("rmi", team)
    docker("pull", team)
    docker("logout", guarded.address)
    docker("pull", public)
    refused(shared_sandbox, "denied", *daemon, "pull", team)


def test_docker_mounts_nothing_that_its_user_may_not_read(guarded, docker, tmp_path):
    """It believes to know where a layer is, and uploads it after all."""
    archive = write_archive(tmp_path / "saved.tar", "saved:1", seed="docker-mount", layers=2)
    docker("load", "--input", archive)
    secret, mine = guarded.image("team/mount"), guarded.image("mine/mount")
    docker("tag", "saved:1", secret)
    docker("tag", "saved:1", mine)
    docker("login", "-u", "ada", "-p", "secret", guarded.address)
    docker("push", secret)
    docker("login", "-u", "x", "-p", guarded.robot("mine/**:push"), guarded.address)
    pushed = docker("push", mine)
    assert "Mounted" not in pushed
    assert pushed.count(": Pushed") == 2
    docker("logout", guarded.address)


def test_no_secret_is_in_the_log(guarded):
    """The last of this file: all of the others have written to it."""
    log = guarded.log.read_text()
    _, robot = guarded.credentials["robot"]
    assert "robot:ci" in log
    assert "secret" not in log.replace("/team/", "").replace("http.secret", "")
    assert robot.rpartition("_")[2] not in log
    assert "eyJ" not in log, "no token"
