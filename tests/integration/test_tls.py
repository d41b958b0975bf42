"""Client programs over TLS, with a certificate from the registry's authority."""

from __future__ import annotations

import re
from http.client import HTTPSConnection
from ssl import TLSVersion

import pytest

from tests.integration.images import assert_layout_holds, image
from tests.integration.servers import own_address, program
from tests.support.certificates import Authority
from tests.support.processes import SERVE, RegistryProcess, free_port, run, write_configuration
from twisted_registry.testing import write_layout

pytestmark = pytest.mark.integration

AUTO = "  workers: 2\n  tls:\n    auto: {{hosts: [{host}, localhost]}}\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A registry with a self-made certificate; ``address`` is the host and port for clients."""
    folder = tmp_path_factory.mktemp("tls")
    path = write_configuration(folder, more=AUTO.format(host="127.0.0.1"))
    with RegistryProcess(*SERVE, path, cwd=folder) as running:
        running.address = f"127.0.0.1:{running.port}"
        running.authority = folder / "store/twisted-registry/tls/ca.crt"
        yield running


@pytest.fixture
def strict(sandbox):
    """A sandbox whose clients verify certificates."""
    (sandbox.home / ".config/containers/registries.conf").write_text("")
    return sandbox


def advised(served, client, folder):
    """Return the command that the log advises for a client, with a folder instead of ``/etc``."""
    (line,) = [line for line in served.lines if f"to trust it, {client}: " in line]
    command = re.search(r'to trust it, [^:]*: ([^"]*)', line)[1]
    return re.sub(r"/etc/\w+/certs.d", str(folder), command)


def test_curl_connects_with_tls_1_2_and_1_3_only(served, sandbox):
    url = f"https://{served.address}/v2/"
    trusting = ("--silent", "--show-error", "--fail", "--cacert", served.authority)
    assert sandbox.run("curl", *trusting, "--tlsv1.3", url) == "{}"
    assert sandbox.run("curl", *trusting, "--tls-max", "1.2", url) == "{}"
    old = ("--tls-max", "1.1", "--ciphers", "DEFAULT:@SECLEVEL=0")
    assert sandbox.attempt("curl", *trusting, *old, url).returncode == 35
    assert sandbox.attempt("curl", "--silent", url).returncode == 60
    assert sandbox.run("curl", "--silent", "-k", f"https://{served.address}/ca.crt") == (
        served.authority.read_text()
    )


def test_skopeo_podman_and_buildah_trust_the_advised_certificate(served, strict, tmp_path):
    made = image("tls")
    layout = tmp_path / "layout"
    write_layout(layout, {"1": made})
    target = f"docker://{served.address}/skopeo:1"
    copy = ("skopeo", "copy", "--preserve-digests", f"oci:{layout}:1", target)
    refused = strict.attempt(*copy)
    assert refused.returncode != 0
    assert "certificate signed by unknown authority" in refused.stderr

    folder = strict.home / ".config/containers/certs.d"
    strict.run("sh", "-c", advised(served, "podman, buildah and skopeo", folder))
    strict.run(*copy)
    strict.run("skopeo", "copy", "--preserve-digests", target, f"oci:{tmp_path / 'back'}:1")
    assert_layout_holds(tmp_path / "back", made)

    name = f"{served.address}/buildah:1"
    container = strict.run("buildah", "from", "scratch").strip()
    strict.run("buildah", "commit", container, name)
    strict.run("podman", "push", name)
    strict.run("podman", "rmi", "--force", name)
    strict.run("podman", "pull", name)


def test_oras_trusts_the_authority_file(served, sandbox):
    (sandbox.home / "notes.txt").write_text("over TLS")
    name = f"{served.address}/oras:1"
    push = ("oras", "push", name, "notes.txt:text/plain")
    assert "unknown authority" in sandbox.attempt(*push).stderr
    trusting = ("--ca-file", served.authority)
    sandbox.run(*push, *trusting)
    sandbox.run("oras", "pull", *trusting, "-o", "back", name)
    assert (sandbox.home / "back/notes.txt").read_text() == "over TLS"


def test_containerd_trusts_the_advised_certificate(served, shared_sandbox, ctr, tmp_path):
    made = image("tls-ctr")
    layout = tmp_path / "layout"
    write_layout(layout, {"1": made})
    certificates = shared_sandbox.home / "certs.d"
    shared_sandbox.run("sh", "-c", advised(served, "containerd", certificates))
    target = f"{served.address}/ctr:1"
    shared_sandbox.run(
        "skopeo", "copy", "--preserve-digests", "--dest-cert-dir",
        certificates / served.address, f"oci:{layout}:1", f"docker://{target}",
    )  # fmt: skip
    pull = ("images", "pull", "--hosts-dir", certificates, "--snapshotter=native", target)
    ctr(*pull)
    assert made.digest in ctr("images", "ls")


def test_docker_trusts_the_advised_certificate(docker, shared_sandbox, tmp_path):
    host = own_address() or pytest.skip("this machine is on no network")
    path = write_configuration(tmp_path, addr=f"{host}:0", more=AUTO.format(host=host))
    archive = tmp_path / "saved.tar"
    write_layout(archive, {"saved:1": image("docker-tls")})
    docker("load", "--input", archive)
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as served:
        name = f"{host}:{served.port}/docker:1"
        docker("tag", "saved:1", name)
        with pytest.raises(AssertionError, match="certificate signed by unknown authority"):
            docker("push", name)
        shared_sandbox.run("sh", "-c", advised(served, "docker", docker.certificates))
        docker("push", name)
        docker("rmi", name, "saved:1")
        docker("pull", name)


AUTHORITY = Authority()
KINDS = (SERVE, ("docker-registry", "serve"))


def outcome(port, client):
    """Return the status that a client gets, or ``"refused"``."""
    connection = HTTPSConnection("127.0.0.1", port, timeout=30, context=client)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status
    except OSError:
        return "refused"
    finally:
        connection.close()


# Distribution 2.8.3 ignores clientauth and always uses require-and-verify-client-cert.
@pytest.mark.parametrize("auth", ["", "require-and-verify-client-cert"])
def test_distribution_accepts_the_same_client_certificates(tmp_path, monkeypatch, auth):
    monkeypatch.delenv(
        "AWS_CA_BUNDLE", raising=False
    )  # the AWS library of Distribution 2.8.3 panics if it is set
    program("docker-registry")
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.pem)
    more = AUTHORITY.issue("127.0.0.1").section(tmp_path)
    more += f"    clientcas: [{tmp_path}/ca.pem]\n" + (f"    clientauth: {auth}\n" if auth else "")
    certificates = {
        "none": None,
        "good": AUTHORITY.issue(client=True).write(tmp_path, "good"),
        "strange": Authority("stranger").issue(client=True).write(tmp_path, "strange"),
    }
    seen = []
    for command in KINDS:
        port = free_port()
        path = write_configuration(tmp_path, addr=f"127.0.0.1:{port}", more=more)
        with RegistryProcess(*command, path, cwd=tmp_path):
            seen.append(
                {
                    (name, version): outcome(
                        port, AUTHORITY.client(certificate, maximum_version=version)
                    )
                    for name, certificate in certificates.items()
                    for version in (TLSVersion.TLSv1_2, TLSVersion.TLSv1_3)
                }
            )
    ours, theirs = seen
    assert ours == theirs
    assert ours["good", TLSVersion.TLSv1_3] == 200


@pytest.mark.parametrize(
    "section",
    [
        "certificate: server.pem",
        "certificate: server.pem, key: other.key",
        "certificate: server.pem, key: server.key, minimumtls: tls1.9",
        "certificate: server.pem, key: server.key, clientcas: [server.key]",
    ],
)
def test_distribution_refuses_the_same_settings(tmp_path, monkeypatch, section):
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    program("docker-registry")
    for name in ("server", "other"):
        AUTHORITY.issue().write(tmp_path, name)
    path = write_configuration(tmp_path, more=f"  tls: {{{section}}}\n")
    for command in KINDS:
        assert run(*command, path, cwd=tmp_path)[0] != 0
