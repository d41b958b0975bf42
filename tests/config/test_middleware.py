"""The ``middleware`` section: storage middleware and its options."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.config.config_loading import fault_lines, load_config
from twisted_registry.config.loading import LoadedConfiguration, effective_yaml

if TYPE_CHECKING:
    from twisted_registry.config.middleware import StorageMiddleware

MEMORY = "storage: inmemory"
BUCKET = "storage: {s3: {bucket: b, region: eu-central-1}}"
PAIR = "privatekey: /k.pem, keypairid: K"


def load_entry(entry: str, storage: str = BUCKET) -> LoadedConfiguration:
    return load_config(f"version: 0.1\n{storage}\nmiddleware: {{storage: [{entry}]}}\n")


def read(entry: str, storage: str = BUCKET) -> StorageMiddleware:
    result = load_entry(entry, storage)
    assert result.warnings == ()
    (found,) = result.configuration.middleware.storage
    return found


def faults(entry: str, storage: str = BUCKET) -> list[str]:
    return fault_lines(f"version: 0.1\n{storage}\nmiddleware: {{storage: [{entry}]}}\n")


def test_redirect_takes_a_base_url():
    found = read("{name: redirect, options: {baseurl: 'https://a.example/x'}}", MEMORY)
    assert found.name == "redirect"
    assert found.options.baseurl == "https://a.example/x"


def test_rewrite_takes_scheme_host_and_prefix():
    options = "{scheme: https, host: 'a:8443', trimpathprefix: /bucket}"
    settings = read(f"{{name: rewrite, options: {options}}}").options
    assert (settings.scheme, settings.host, settings.trimpathprefix) == (
        "https", "a:8443", "/bucket",
    )  # fmt: skip


def test_rewrite_requires_no_option():
    settings = read("{name: rewrite}", MEMORY).options
    assert (settings.scheme, settings.host, settings.trimpathprefix) == ("", "", "")


def test_cloudfront_has_defaults():
    settings = read(
        f"{{name: cloudfront, options: {{baseurl: d1.cloudfront.net, {PAIR}}}}}"
    ).options
    assert (settings.baseurl, settings.privatekey, settings.keypairid) == (
        "d1.cloudfront.net", "/k.pem", "K",
    )  # fmt: skip
    assert (settings.lifetime, settings.ipfilteredby, settings.regions) == (1200, "none", ())
    assert settings.frequency == 12 * 3600
    assert settings.iprangesurl == "https://ip-ranges.amazonaws.com/ip-ranges.json"


@pytest.mark.parametrize("name", ["updatefrequency", "updatefrenquency"])
def test_cloudfront_takes_lifetime_and_ip_filter(name: str):
    settings = read(
        f"{{name: cloudfront, options: {{baseurl: 'https://d1.cloudfront.net/x/', {PAIR},"
        f" duration: 5m, ipfilteredby: AWSRegion, awsregion: 'us-east-1, eu-west-1',"
        f" {name}: 1h, iprangesurl: 'file:///ip-ranges.json'}}}}"
    ).options
    assert (settings.lifetime, settings.ipfilteredby) == (300, "awsregion")
    assert settings.regions == ("us-east-1", "eu-west-1")
    assert settings.frequency == 3600
    assert settings.iprangesurl == "file:///ip-ranges.json"


@pytest.mark.parametrize(
    ("entry", "storage", "expected"),
    [
        ("{name: imaginary}", BUCKET, ["[0].name: got 'imaginary', expected redirect, rewrite or"]),
        ("{options: {}}", BUCKET, ["[0].name: this key is required"]),
        ("{name: redirect}", BUCKET, ["[0].options.baseurl: this key is required by redirect"]),
        (
            "{name: redirect, options: {baseurl: a.example}}",
            BUCKET,
            ["[0].options.baseurl: got 'a.example', expected a URL with a scheme"],
        ),
        (
            "{name: redirect, options: {baseurl: 'ftp://a'}}",
            BUCKET,
            [
                "[0].options.baseurl: got 'ftp://a', expected a URL with",
                "[0].options.baseurl: this key is required by redirect",
            ],
        ),
        (
            "{name: cloudfront}",
            BUCKET,
            [
                f"[0].options.{key}: this key is required by cloudfront"
                for key in ("baseurl", "privatekey", "keypairid")
            ],
        ),
        (
            f"{{name: cloudfront, options: {{baseurl: a, {PAIR}}}}}",
            MEMORY,
            ["[0]: cloudfront requires storage.s3"],
        ),
        (
            f"{{name: cloudfront, options: {{baseurl: a, {PAIR}, ipfilteredby: awsregion}}}}",
            BUCKET,
            ["[0].options.awsregion: this key is required by ipfilteredby: awsregion"],
        ),
        (
            f"{{name: cloudfront, options: {{baseurl: a, {PAIR}, ipfilteredby: all}}}}",
            BUCKET,
            ["[0].options.ipfilteredby: got 'all', expected none, aws or awsregion"],
        ),
        (
            f"{{name: cloudfront, options: {{baseurl: a, {PAIR}, iprangesurl: 'file://x'}}}}",
            BUCKET,
            ["[0].options.iprangesurl: got 'file://x', expected an http, https or file URL"],
        ),
        ("{name: rewrite, options: {scheme: ftp}}", BUCKET, ["[0].options.scheme: got 'ftp'"]),
    ],
)
def test_invalid_options_are_faults(entry: str, storage: str, expected: list[str]):
    found = faults(entry, storage)
    assert len(found) == len(expected)
    for line, begin in zip(found, expected, strict=True):
        assert f"middleware.storage{begin}" in line


@pytest.mark.parametrize("entry", ["{name: cloudfront, disabled: true}", "{disabled: true}"])
def test_a_disabled_entry_is_not_checked(entry: str):
    assert read(entry, MEMORY).disabled


def test_unknown_options_add_a_warning():
    (line,) = load_entry("{name: redirect, options: {baseurl: 'https://a', baseUrl: x}}").warnings
    assert "middleware.storage[0].options.baseUrl" in line


def test_the_private_key_is_masked():
    result = load_entry(f"{{name: cloudfront, options: {{baseurl: a, {PAIR}}}}}")
    assert "k.pem" not in effective_yaml(result.configuration)
    assert "k.pem" not in repr(result.configuration)
