"""cosign: sign with a local key, without a transparency log, and verify."""

from __future__ import annotations

import json

import pytest

from tests.integration.images import image

pytestmark = pytest.mark.integration

INSECURE = ("--allow-insecure-registry", "--allow-http-registry")


@pytest.fixture
def cosign(sandbox):
    """Run cosign with a new pair of keys."""
    sandbox.environment["COSIGN_PASSWORD"] = "password"
    sandbox.environment["COSIGN_EXPERIMENTAL"] = "1"

    def run(*arguments: object) -> str:
        return sandbox.run("cosign", *arguments)

    run("generate-key-pair")
    return run


@pytest.fixture
def signed(registry, cosign):
    """Push an image and sign it; return its reference by digest."""

    def sign(name: str, *options: str) -> str:
        made = image(name)
        registry.remote.push(name, made, "1")
        reference = f"{registry.address}/{name}@{made.digest}"
        cosign(
            "sign", "--yes", "--key=cosign.key", "--tlog-upload=false", *INSECURE, *options,
            reference,
        )  # fmt: skip
        return reference

    return sign


def verify(cosign, reference, *options):
    shown = cosign(
        "verify", "--key=cosign.pub", "--insecure-ignore-tlog", "--output=json", *INSECURE,
        *options, reference,
    )  # fmt: skip
    return json.loads(shown)


def test_a_signature_is_pushed_and_verified(registry, cosign, signed):
    reference = signed("cosign/tag")
    (claim,) = verify(cosign, reference)
    digest = reference.partition("@")[2]
    assert claim["critical"]["image"]["docker-manifest-digest"] == digest
    tag = digest.replace(":", "-") + ".sig"
    assert set(registry.remote.tags("cosign/tag")) == {"1", tag}
    registry.remote.assert_complete("cosign/tag", tag)


def test_verification_with_another_key_fails(cosign, sandbox, signed):
    reference = signed("cosign/refused")
    (sandbox.home / "cosign.key").unlink()
    (sandbox.home / "cosign.pub").unlink()
    cosign("generate-key-pair")
    refused = sandbox.attempt(
        "cosign", "verify", "--key=cosign.pub", "--insecure-ignore-tlog", *INSECURE, reference
    )
    assert refused.returncode != 0


def test_a_signature_is_pushed_as_a_referrer(ours_only, registry, cosign, signed):
    reference = signed("cosign/referrer", "--registry-referrers-mode=oci-1-1")
    digest = reference.partition("@")[2]
    (signature,) = registry.remote.referrers("cosign/referrer", digest)
    registry.remote.assert_complete("cosign/referrer", signature)
    assert registry.remote.tags("cosign/referrer") == ["1"]
    (claim,) = verify(cosign, reference, "--experimental-oci11")
    assert claim["critical"]["image"]["docker-manifest-digest"] == digest
