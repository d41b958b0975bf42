"""The configuration in the container image, ``conf/image.yml``."""

from __future__ import annotations

from pathlib import Path

import pytest

from twisted_registry.config.loading import load_text

TEXT = (Path(__file__).parents[2] / "conf" / "image.yml").read_text()


def test_it_is_that_of_the_images_of_distribution():
    loaded = load_text(TEXT, {}, "conf/image.yml")
    assert (loaded.warnings, loaded.notices) == ((), ())
    configuration = loaded.configuration
    assert configuration.http.addr == ":5000"
    assert configuration.http.headers == {"X-Content-Type-Options": ("nosniff",)}
    assert configuration.storage.filesystem.rootdirectory == "/var/lib/registry"
    assert configuration.log.fields == {"service": "registry"}
    assert not configuration.storage.delete.enabled
    check = configuration.health.storagedriver
    assert (check.enabled, check.interval, check.threshold) == (True, 10.0, 3)


@pytest.mark.parametrize("more", [{}, {"REGISTRY_STORAGE": "s3"}])
def test_a_bucket_in_variables_replaces_the_volume(more):
    """As deployments of ``registry:2`` do it, with and without the name of the driver."""
    variables = {
        "REGISTRY_STORAGE_S3_REGION": "eu-central-1",
        "REGISTRY_STORAGE_S3_BUCKET": "images",
    }
    storage = load_text(TEXT, {**more, **variables}, "conf/image.yml").configuration.storage
    assert storage.s3.bucket == "images"
    assert storage.filesystem is None
