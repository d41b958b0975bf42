"""``middleware.storage``: the drivers that are wrapped around the driver of the store."""

from __future__ import annotations

import io
from urllib.parse import urlsplit

import pytest
import pytest_twisted
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.internet import reactor

from twisted_registry.app.middleware import apply_middleware
from twisted_registry.app.service import RegistryService
from twisted_registry.config.loading import load_text
from twisted_registry.frame.errors import StartError
from twisted_registry.storage.interfaces import IPresigner

BUCKET = (
    "{s3: {bucket: images, regionendpoint: 'http://objects:9000', rootdirectory: /deep,"
    " accesskey: AKIA, secretkey: hunter2}}"
)


def service(entries, storage=BUCKET):
    text = f"version: 0.1\nstorage: {storage}\nmiddleware: {{storage: [{entries}]}}\n"
    return RegistryService(load_text(text, {}), reactor, {}, io.StringIO())


async def url(driver, client="192.0.2.1"):
    return await IPresigner(driver).presign("docker/a", "GET", 60, client)


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "key.pem"
    path.write_bytes(
        rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    return path


@pytest_twisted.ensureDeferred
async def test_redirect_wraps_any_driver():
    made = service("{name: redirect, options: {baseurl: 'https://a/x'}}", "inmemory")
    assert made.driver.name == "inmemory"
    assert await url(made.driver) == "https://a/x/docker/a"
    assert IPresigner(made.registry.driver, None) is not None
    await made.driver.close()


@pytest_twisted.ensureDeferred
async def test_rewrite_is_applied_and_a_disabled_entry_is_not():
    made = service(
        "{name: redirect, options: {baseurl: 'https://a'}, disabled: true},"
        "{name: rewrite, options: {scheme: https, host: public, trimpathprefix: /images}}"
    )
    assert (await url(made.driver)).startswith("https://public/deep/docker/a?X-Amz-Algorithm=")
    await made.driver.close()


@pytest_twisted.ensureDeferred
async def test_the_first_entry_is_the_innermost():
    made = service(
        "{name: redirect, options: {baseurl: 'http://a'}}, {name: rewrite, options: {host: b}}"
    )
    assert await url(made.driver) == "http://b/docker/a"
    await made.driver.close()


@pytest_twisted.ensureDeferred
async def test_cloudfront_signs_urls(key):
    options = f"baseurl: d1.example, privatekey: {key}, keypairid: K"
    made = service(f"{{name: cloudfront, options: {{{options}}}}}")
    found = urlsplit(await url(made.driver))
    assert (found.scheme, found.netloc, found.path) == ("https", "d1.example", "/deep/docker/a")
    assert "Key-Pair-Id=K" in found.query
    await made.driver.close()


@pytest.mark.parametrize(
    ("filtered", "inside"),
    [("aws", True), ("awsregion, awsregion: eu-west-1", True),
     ("awsregion, awsregion: us-east-1", False)],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_cloudfront_is_only_for_clients_outside_of_aws(key, tmp_path, filtered, inside):
    ranges = tmp_path / "ip-ranges.json"
    ranges.write_text('{"prefixes": [{"ip_prefix": "192.0.2.0/24", "region": "eu-west-1"}]}')
    options = (
        f"baseurl: d1.example, privatekey: {key}, keypairid: K, iprangesurl: 'file://{ranges}',"
        f" ipfilteredby: {filtered}"
    )
    made = service(f"{{name: cloudfront, options: {{{options}}}}}")
    assert urlsplit(await url(made.driver)).netloc == "d1.example"
    await made.driver.inside.updating
    expected = "objects:9000" if inside else "d1.example"
    assert urlsplit(await url(made.driver)).netloc == expected
    assert urlsplit(await url(made.driver, "198.51.100.1")).netloc == "d1.example"
    await made.driver.close()


@pytest.mark.parametrize(
    ("content", "text"), [(None, "No such file"), (b"x", "not a private key in PEM")]
)
def test_an_unusable_private_key_names_the_option(tmp_path, content, text):
    path = tmp_path / "key.pem"
    if content is not None:
        path.write_bytes(content)
    options = f"baseurl: d1.example, privatekey: {path}, keypairid: K"
    with pytest.raises(StartError) as caught:
        service(f"{{name: cloudfront, options: {{{options}}}}}")
    said = str(caught.value)
    assert said.startswith(f"middleware.storage[0].options.privatekey: {path}: ")
    assert text in said


def test_the_driver_is_unchanged_without_middleware():
    configuration = load_text("version: 0.1\nstorage: inmemory\n", {}).configuration
    assert apply_middleware(configuration, driver := object(), reactor) is driver
