"""Real clients over TLS against registries with users and rules, under each authentication scheme.

The clients log in, push and pull what the rules allow, and report what the rules refuse. They send
their credentials to no other host.
"""

from __future__ import annotations

import json
import re

import pytest

from tests.integration.images import image
from tests.integration.protected_registries import KINDS, USERS, ProtectedRegistries
from twisted_registry.testing import write_layout

pytestmark = pytest.mark.integration

#: Messages of clients that were refused without a login (DENIED) and with one (FORBIDDEN).
DENIED = (
    *("requested access to the resource is denied", "authentication required", "unauthorized"),
    *("no basic auth credentials", "basic credential not found", "401 Unauthorized"),
    "401: Unauthorized",
)
FORBIDDEN = ("403", "denied")


@pytest.fixture(scope="module")
def registries(tmp_path_factory):
    """The registries of the module, with a token server and a store on another host."""
    made = ProtectedRegistries(tmp_path_factory.mktemp("registries"))
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module", params=KINDS)
def login(request, registries):
    """A user, or robot, that may push."""
    return registries.login(request.param)


@pytest.fixture(scope="module", autouse=True)
def _daemons_trust_the_authority(shared_sandbox, registries):
    shared_sandbox.environment["SSL_CERT_FILE"] = str(registries.authority)


@pytest.fixture
def strict(sandbox, registries):
    """A sandbox whose clients take no certificate but those of the authority."""
    (sandbox.home / ".config/containers/registries.conf").write_text("")
    sandbox.environment["SSL_CERT_FILE"] = str(registries.authority)
    return sandbox


@pytest.fixture(scope="module")
def traffic(registries, docker, shared_sandbox, tmp_path_factory):
    """Log in with each kind of credentials, push, and pull with each client from the store."""
    folder = tmp_path_factory.mktemp("traffic")
    layout = folder / "layout"
    write_layout(layout, {"1": image("traffic")})
    run = shared_sandbox.run
    for kind in KINDS:
        login = registries.login(kind)
        target = f"docker://{login.image('team/traffic')}"
        run("skopeo", "login", "-u", login.name, "-p", login.password, login.address)
        run("skopeo", "copy", f"oci:{layout}:1", target)
        run("skopeo", "copy", target, f"dir:{folder / kind}")
        run("skopeo", "logout", login.address)
    login = registries.login("user")
    target = login.image("team/traffic")
    run("podman", "login", "-u", login.name, "-p", login.password, login.address)
    run("podman", "pull", target)
    run("podman", "logout", login.address)
    run("oras", "login", "-u", login.name, "-p", login.password, login.address)
    run("oras", "copy", "--to-oci-layout", target, f"{folder / 'oras'}:1")
    run("oras", "logout", login.address)
    docker("login", "-u", login.name, "-p", login.password, login.address)
    docker("pull", target)
    docker("rmi", target)
    docker("logout", login.address)


def refused(sandbox, messages, *command):
    """Run a command that must fail with one of the messages."""
    messages = (messages,) if isinstance(messages, str) else messages
    done = sandbox.attempt(*command)
    assert done.returncode != 0, done
    words = done.stdout + done.stderr
    assert any(
        each in words for each in ((messages,) if isinstance(messages, str) else messages)
    ), done


def test_skopeo_gets_what_the_rules_allow(login, strict, tmp_path):
    layout = tmp_path / "layout"
    write_layout(layout, {"1": image(f"skopeo-{login.kind}")})
    copy = ("skopeo", "copy")
    team, public, other = (
        f"docker://{login.image(each)}" for each in ("team/skopeo", "public/skopeo", "other/x")
    )
    refused(strict, DENIED, *copy, f"oci:{layout}:1", team)
    strict.run("skopeo", "login", "-u", login.name, "-p", login.password, login.address)
    strict.run(*copy, f"oci:{layout}:1", team)
    strict.run(*copy, team, public)
    refused(strict, FORBIDDEN, *copy, team, other)
    strict.run("skopeo", "delete", team)
    strict.run("skopeo", "logout", login.address)
    strict.run("skopeo", "copy", public, f"dir:{tmp_path / 'back'}")
    refused(strict, DENIED, "skopeo", "inspect", team)
    refused(strict, "invalid username/password", "skopeo", "login", "-u", login.name, "-p", "x",
            login.address)  # fmt: skip


def test_podman_and_buildah_get_what_the_rules_allow(login, strict):
    target, other = login.image("team/podman"), login.image("other/podman")
    container = strict.run("buildah", "from", "scratch").strip()
    strict.run("buildah", "config", f"--label=made={login.kind}", container)
    strict.run("buildah", "commit", container, target)
    refused(strict, DENIED, "podman", "push", target)
    strict.run("podman", "login", "-u", login.name, "-p", login.password, login.address)
    strict.run("podman", "push", target)
    strict.run("buildah", "push", target, f"docker://{login.image('public/buildah')}")
    strict.run("podman", "tag", target, other)
    refused(strict, FORBIDDEN, "podman", "push", other)
    strict.run("podman", "rmi", "--force", target)
    strict.run("podman", "pull", target)
    strict.run("podman", "logout", login.address)
    strict.run("podman", "pull", login.image("public/buildah"))
    refused(strict, DENIED, "podman", "pull", target)
    if login.kind == "robot":
        return
    # A user that may only pull.
    strict.run("buildah", "login", "-u", "eve", "-p", USERS["eve"], login.address)
    strict.run("buildah", "rmi", "--force", target)
    strict.run("buildah", "pull", target)
    refused(strict, FORBIDDEN, "buildah", "push", target)
    refused(strict, FORBIDDEN, "skopeo", "inspect", f"docker://{other}")


def test_oras_gets_what_the_rules_allow(login, strict):
    (strict.home / "notes.txt").write_text(f"notes of {login.kind}")
    target = login.image("team/oras")
    push = ("oras", "push")
    refused(strict, DENIED, *push, target, "notes.txt")
    ask = ("oras", "login", "-u", login.name, "-p")
    refused(strict, DENIED, *ask, "wrong", login.address)
    strict.run(*ask, login.password, login.address)
    strict.run(*push, target, "notes.txt")
    strict.run("oras", "cp", target, login.image("public/oras"))
    refused(strict, "403: Forbidden", *push, login.image("other/oras"), "notes.txt")
    assert "team/oras" in strict.run("oras", "repo", "ls", login.address).split()
    strict.run("oras", "logout", login.address)
    strict.run("oras", "pull", "-o", "out", login.image("public/oras"))
    refused(strict, DENIED, "oras", "pull", "-o", "out", target)


def test_docker_gets_what_the_rules_allow(login, docker, shared_sandbox, tmp_path):
    archive = tmp_path / "saved.tar"
    write_layout(archive, {"saved:1": image(f"d-{login.kind}")})
    team, public, other = (
        login.image(f"{each}/docker-{login.kind}") for each in ("team", "public", "other")
    )
    docker("load", "--input", archive)
    for target in (team, public, other):
        docker("tag", "saved:1", target)
    daemon = ("docker", f"--host=unix://{shared_sandbox.home / 'docker.sock'}")
    ask = ("login", "-u", login.name, "-p")
    refused(shared_sandbox, DENIED, *daemon, "push", team)
    refused(shared_sandbox, DENIED, *daemon, *ask, "x", login.address)
    docker(*ask, login.password, login.address)
    stored = json.loads((shared_sandbox.home / ".docker" / "config.json").read_text())
    # The registry's own tokens replace a user's password by a token that can be revoked.
    assert ("identitytoken" in stored["auths"][login.address]) == (login.kind == "user")
    assert docker("push", team).count(": Pushed") == 2
    assert docker("push", public).count(f"Mounted from team/docker-{login.kind}") == 2
    refused(shared_sandbox, DENIED, *daemon, "push", other)
    docker("rmi", team)
    docker("pull", team)
    docker("logout", login.address)
    docker("rmi", team, public, other, "saved:1")
    if login.kind == "password":
        # Without a login, docker only asks a token server.
        refused(shared_sandbox, DENIED, *daemon, "pull", public)
    else:
        docker("pull", public)
    refused(shared_sandbox, DENIED, *daemon, "pull", team)


def test_docker_cannot_mount_layers_that_its_user_may_not_pull(registries, docker, tmp_path):
    """docker tries a mount from the repository that it remembers, then uploads the layer."""
    login = registries.login("user")
    archive = tmp_path / "saved.tar"
    write_layout(archive, {"saved:1": image("docker-mount")})
    docker("load", "--input", archive)
    secret, mine = login.image("team/mount"), login.image("mine/mount")
    docker("tag", "saved:1", secret)
    docker("tag", "saved:1", mine)
    docker("login", "-u", login.name, "-p", login.password, login.address)
    docker("push", secret)
    docker("login", "-u", "x", "-p", registries.robot("mine/**:push"), login.address)
    pushed = docker("push", mine)
    assert "Mounted" not in pushed
    assert pushed.count(": Pushed") == 2
    docker("logout", login.address)


def test_credentials_are_not_sent_to_the_redirect_target(registries, traffic):
    assert len(registries.seen) > 20
    assert not [credentials for *_, credentials in registries.seen if credentials]
    agents = " ".join(agent for agent, *_ in registries.seen)
    assert all(name in agents for name in ("skopeo", "containers/", "oras", "docker"))


def test_logs_have_no_secrets(registries, traffic):
    logs = {name: served.log.read_text() for name, served in registries.by_scheme.items()}
    for name, log in logs.items():
        assert "ada" in log, name
        assert not [secret for secret in USERS.values() if secret in log]
        assert "eyJ" not in log, "no token"
        assert not re.search("twr_[0-9a-f]{16}_[0-9a-f]", log)
    assert "robot:ci" in logs["own"]
