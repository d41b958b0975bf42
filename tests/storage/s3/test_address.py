from __future__ import annotations

import pytest

from twisted_registry.storage.s3.address import (
    AddressError,
    BucketAddress,
    aws_address,
    endpoint_address,
    is_region,
)


def url(address, key="a b/c"):
    return address.url(address.path(key))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "https://images.s3.eu-west-1.amazonaws.com/a%20b/c"),
        ({"secure": False}, "http://images.s3.eu-west-1.amazonaws.com/a%20b/c"),
        ({"path_style": True}, "https://s3.eu-west-1.amazonaws.com/images/a%20b/c"),
        ({"dual_stack": True}, "https://images.s3.dualstack.eu-west-1.amazonaws.com/a%20b/c"),
        ({"fips": True}, "https://images.s3-fips.eu-west-1.amazonaws.com/a%20b/c"),
        (
            {"fips": True, "dual_stack": True},
            "https://images.s3-fips.dualstack.eu-west-1.amazonaws.com/a%20b/c",
        ),
        ({"accelerate": True}, "https://images.s3-accelerate.amazonaws.com/a%20b/c"),
        (
            {"accelerate": True, "dual_stack": True},
            "https://images.s3-accelerate.dualstack.amazonaws.com/a%20b/c",
        ),
        ({"bucket": "my.images"}, "https://s3.eu-west-1.amazonaws.com/my.images/a%20b/c"),
        (
            {"bucket": "my.images", "secure": False},
            "http://my.images.s3.eu-west-1.amazonaws.com/a%20b/c",
        ),
        ({"bucket": "Old_Name"}, "https://s3.eu-west-1.amazonaws.com/Old_Name/a%20b/c"),
        ({"region": "cn-north-1"}, "https://images.s3.cn-north-1.amazonaws.com.cn/a%20b/c"),
        ({"region": "us-isob-east-1"}, "https://images.s3.us-isob-east-1.sc2s.sgov.gov/a%20b/c"),
        ({"region": "eusc-de-east-1"}, "https://images.s3.eusc-de-east-1.amazonaws.eu/a%20b/c"),
    ],
)
def test_aws_urls(options, expected):
    options = {"bucket": "images", "region": "eu-west-1", **options}
    assert url(aws_address(options.pop("bucket"), **options)) == expected


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"path_style": True}, "forcepathstyle"),
        ({"fips": True}, "usefipsendpoint"),
        ({"bucket": "my.images"}, "my.images"),
    ],
)
def test_options_that_exclude_acceleration(options, word):
    options = {"bucket": "images", "region": "eu-west-1", "accelerate": True, **options}
    with pytest.raises(AddressError, match=word):
        aws_address(options.pop("bucket"), **options)


@pytest.mark.parametrize(
    ("endpoint", "options", "expected"),
    [
        ("myobjects.local", {}, "https://myobjects.local/images/a%20b/c"),
        ("myobjects.local", {"secure": False}, "http://myobjects.local/images/a%20b/c"),
        ("http://myobjects.local", {}, "http://myobjects.local/images/a%20b/c"),
        ("https://myobjects.local", {"secure": False}, "https://myobjects.local/images/a%20b/c"),
        ("myobjects.local:9000/", {}, "https://myobjects.local:9000/images/a%20b/c"),
        ("HTTP://127.0.0.1:9000", {}, "http://127.0.0.1:9000/images/a%20b/c"),
        ("http://[::1]:9000", {}, "http://[::1]:9000/images/a%20b/c"),
        ("http://objects:80", {}, "http://objects/images/a%20b/c"),
        ("https://objects:443", {}, "https://objects/images/a%20b/c"),
        ("https://objects:80", {}, "https://objects:80/images/a%20b/c"),
        ("https://objects/s3 x/", {}, "https://objects/s3%20x/images/a%20b/c"),
        ("https://objects/s3", {"path_style": False}, "https://images.objects/s3/a%20b/c"),
        ("objects:9000", {"path_style": False}, "https://images.objects:9000/a%20b/c"),
        (
            "objects",
            {"path_style": False, "bucket": "my.images"},
            "https://objects/my.images/a%20b/c",
        ),
        ("objects", {"path_style": True}, "https://objects/images/a%20b/c"),
    ],
)
def test_endpoint_urls(endpoint, options, expected):
    options = {"bucket": "images", **options}
    assert url(endpoint_address(options.pop("bucket"), endpoint, **options)) == expected


@pytest.mark.parametrize(
    ("endpoint", "region", "expected"),
    [
        ("objects", "", "us-east-1"),
        ("objects", "anything", "anything"),
        ("https://s3.eu-west-1.amazonaws.com", "", "eu-west-1"),
        ("https://s3-eu-west-1.amazonaws.com", "", "eu-west-1"),
        ("https://s3.amazonaws.com", "", "us-east-1"),
        ("https://s3-accelerate.amazonaws.com", "", "us-east-1"),
    ],
)
def test_region_of_an_endpoint(endpoint, region, expected):
    assert endpoint_address("images", endpoint, region=region).region == expected


@pytest.mark.parametrize(
    "endpoint",
    [
        "", " ", "http://", "ftp://objects", "objects:port", "objects:99999", "http://[::1",
        "https://user@objects", "https://objects?x=1", "https://objects#x", "https://a b",
        "s3://bucket",
    ],
)  # fmt: skip
def test_invalid_endpoints_are_refused(endpoint):
    with pytest.raises(AddressError, match="is not an endpoint"):
        endpoint_address("images", endpoint)


@pytest.mark.parametrize("endpoint", ["http://10.0.0.1:9000", "http://[::1]"])
def test_ip_address_requires_path_style(endpoint):
    with pytest.raises(AddressError, match="forcepathstyle"):
        endpoint_address("images", endpoint, path_style=False)


def test_path_and_url_of_the_bucket():
    assert BucketAddress("b", "r", "https", "b.host").path() == "/"
    assert BucketAddress("b", "r", "https", "host", "/b").path() == "/b"
    assert BucketAddress("b", "r", "https", "host", "/b").url("/b", "x=1") == "https://host/b?x=1"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("us-east-1", True), ("us-gov-west-1", True), ("ap-southeast-7", True),
        ("eusc-de-east-1", True), ("us-isob-east-1", True), ("US-EAST-1", False),
        ("us-east", False), ("eu", False), ("us-east-1a", False), ("", False),
    ],
)  # fmt: skip
def test_form_of_region_names(name, expected):
    assert is_region(name) is expected
