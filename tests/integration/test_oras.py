"""oras: artifacts, attached artifacts, and copies of whole graphs."""

from __future__ import annotations

import json

import pytest

from tests.integration.images import image, noise
from tests.support.manifests import digest_of

pytestmark = pytest.mark.integration

REFERRERS = "--distribution-spec=v1.1-referrers-api"


@pytest.fixture
def artifact(registry, sandbox):
    """Return a function that pushes an artifact of two files and returns its digest."""

    def push(name: str) -> str:
        (sandbox.home / "notes.txt").write_text(f"notes on {name}")
        (sandbox.home / "data.bin").write_bytes(noise("oras", 200_000))
        sandbox.run(
            "oras", "push", "--plain-http", "--artifact-type=application/x-thing",
            registry.image(name), "notes.txt:text/plain", "data.bin",
        )  # fmt: skip
        return digest_of(registry.remote.assert_complete(name, "1").body)

    return push


def attach(sandbox, subject, kind, text, *options):
    (sandbox.home / f"{text}.json").write_text(json.dumps(text))
    sandbox.run(
        "oras", "attach", "--plain-http", *options, f"--artifact-type={kind}", subject,
        f"{text}.json:application/json",
    )  # fmt: skip


def discover(sandbox, subject, *options):
    found = sandbox.run("oras", "discover", "--plain-http", "--format=json", *options, subject)
    return json.loads(found)["manifests"]


def test_oras_pulls_what_it_pushed(registry, sandbox, artifact):
    digest = artifact("oras/pull")
    sandbox.run("oras", "pull", "--plain-http", "-o", "out", registry.image("oras/pull"))
    assert (sandbox.home / "out" / "notes.txt").read_text() == "notes on oras/pull"
    assert (sandbox.home / "out" / "data.bin").read_bytes() == noise("oras", 200_000)
    fetched = sandbox.run(
        "oras", "manifest", "fetch", "--plain-http", f"{registry.address}/oras/pull@{digest}"
    )
    assert digest_of(fetched.strip().encode()) == digest


def test_attached_artifacts_are_discovered(ours_only, registry, sandbox, artifact):
    digest = artifact("oras/attach")
    subject = registry.image("oras/attach")
    attach(sandbox, subject, "application/x-sbom", "sbom", REFERRERS)
    attach(sandbox, subject, "application/x-scan", "scan", REFERRERS)

    found = discover(sandbox, subject, REFERRERS)
    assert {entry["artifactType"] for entry in found} == {
        "application/x-sbom",
        "application/x-scan",
    }
    (sbom,) = discover(sandbox, subject, REFERRERS, "--artifact-type=application/x-sbom")
    assert sbom["artifactType"] == "application/x-sbom"
    assert {entry["digest"] for entry in found} == set(
        registry.remote.referrers("oras/attach", digest)
    )
    assert registry.remote.tags("oras/attach") == ["1"], "no fallback tag was needed"

    sandbox.run("oras", "pull", "--plain-http", "-o", "sbom", sbom["reference"])
    assert (sandbox.home / "sbom" / "sbom.json").read_text() == '"sbom"'


def test_oras_detects_the_referrers_api(ours_only, registry, sandbox, artifact):
    artifact("oras/auto")
    subject = registry.image("oras/auto")
    attach(sandbox, subject, "application/x-sbom", "auto")
    assert len(discover(sandbox, subject, REFERRERS)) == 1
    assert registry.remote.tags("oras/auto") == ["1"]


def test_referrers_pushed_with_a_fallback_tag_are_listed(ours_only, registry, sandbox, artifact):
    digest = artifact("oras/fallback")
    subject = registry.image("oras/fallback")
    attach(sandbox, subject, "application/x-old", "old", "--distribution-spec=v1.1-referrers-tag")
    assert registry.remote.tags("oras/fallback") == ["1", digest.replace(":", "-")]
    (entry,) = discover(sandbox, subject, REFERRERS)
    assert entry["artifactType"] == "application/x-old"


def test_copies_include_referrers(ours_only, registry, sandbox, artifact):
    digest = artifact("oras/from")
    subject = registry.image("oras/from")
    attach(sandbox, subject, "application/x-sbom", "copied", REFERRERS)
    (entry,) = discover(sandbox, subject, REFERRERS)
    attach(sandbox, entry["reference"], "application/x-signature", "signed", REFERRERS)

    target = registry.image("oras/to")
    sandbox.run("oras", "cp", "-r", "--from-plain-http", "--to-plain-http", subject, target)
    assert digest_of(registry.remote.assert_complete("oras/to", "1").body) == digest
    assert registry.remote.referrers("oras/to", digest) == [entry["digest"]]
    signatures = registry.remote.referrers("oras/to", entry["digest"])
    assert signatures == registry.remote.referrers("oras/from", entry["digest"])
    registry.remote.assert_complete("oras/to", signatures[0])


def test_referrers_survive_a_copy_through_a_layout(ours_only, registry, sandbox, artifact):
    digest = artifact("oras/out")
    subject = registry.image("oras/out")
    attach(sandbox, subject, "application/x-sbom", "out", REFERRERS)
    sandbox.run("oras", "cp", "-r", "--from-plain-http", subject, "--to-oci-layout", "layout:1")
    back = registry.image("oras/back")
    sandbox.run("oras", "cp", "-r", "--from-oci-layout", "layout:1", "--to-plain-http", back)
    assert registry.remote.referrers("oras/back", digest) == registry.remote.referrers(
        "oras/out", digest
    )


def test_repositories_and_tags_are_listed_and_deleted(registry, sandbox):
    made = image("oras-delete")
    for tag in ("a", "b"):
        registry.remote.push("oras/lists/deep", made, tag)
    names = sandbox.run("oras", "repo", "ls", "--plain-http", f"{registry.address}/oras/lists/")
    assert names.split() == ["deep"]
    listed = sandbox.run(
        "oras", "repo", "tags", "--plain-http", f"{registry.address}/oras/lists/deep"
    )
    assert sorted(listed.split()) == ["a", "b"]

    repository = f"{registry.address}/oras/lists/deep"
    sandbox.run(
        "oras", "manifest", "delete", "--plain-http", "--force", f"{repository}@{made.digest}"
    )
    assert registry.remote.manifest("oras/lists/deep", "a").status == 404
    layer = made.layers[0].digest
    sandbox.run("oras", "blob", "delete", "--plain-http", "--force", f"{repository}@{layer}")
    assert registry.remote.blob("oras/lists/deep", layer).status == 404


def test_single_blobs_are_pushed_and_fetched(registry, sandbox):
    data = noise("oras-blob", 100_000)
    (sandbox.home / "blob").write_bytes(data)
    where = f"{registry.address}/oras/blob@{digest_of(data)}"
    sandbox.run("oras", "blob", "push", "--plain-http", where, "blob")
    sandbox.run("oras", "blob", "fetch", "--plain-http", "--output=fetched", where)
    assert (sandbox.home / "fetched").read_bytes() == data


def test_several_tags_are_added_at_once(registry, sandbox, artifact):
    digest = artifact("oras/tags")
    sandbox.run("oras", "tag", "--plain-http", registry.image("oras/tags"), "2", "3")
    for tag in ("2", "3"):
        assert digest_of(registry.remote.manifest("oras/tags", tag).body) == digest
