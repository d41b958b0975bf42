"""The ``storage.s3`` section: syntax, ranges and defaults of its options."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import frozen

from tests.config.config_loading import fault_lines, load_config
from twisted_registry.config.loading import LoadedConfiguration, load_text
from twisted_registry.config.s3 import S3


def load_s3(text: str, name: str = "s3") -> LoadedConfiguration:
    return load_config(f"version: 0.1\nstorage: {{{name}: {{{text}}}}}\n")


def read(text: str) -> S3:
    found = load_s3(f"bucket: b, region: eu-central-1, {text}").configuration.storage.bucket
    assert found is not None
    return found


def fault(text: str) -> str:
    (line,) = fault_lines(f"version: 0.1\nstorage: {{s3: {{{text}}}}}\n")
    return line


def test_defaults_are_those_of_distribution():
    found = read("")
    assert (found.bucket, found.region, found.regionendpoint) == ("b", "eu-central-1", "")
    assert (found.accesskey, found.secretkey, found.sessiontoken, found.keyid) == ("",) * 4
    assert (found.secure, found.v4auth, found.payloadsigning) == (True, True, True)
    assert found.forcepathstyle is None
    flags = "encrypt skipverify usedualstack accelerate usefipsendpoint"
    assert not any(getattr(found, flag) for flag in flags.split())
    assert found.chunksize == 10 * 2**20
    assert found.multipartcopychunksize == found.multipartcopythresholdsize == 32 * 2**20
    assert found.multipartcopymaxconcurrency == 100
    assert (found.storageclass, found.objectacl) == ("STANDARD", "private")
    assert (found.rootdirectory, found.redirectendpoint, found.useragent) == ("", "", "")
    assert found.loglevel == "off"


def test_both_names_are_the_same_section():
    one, other = (
        load_s3("bucket: b, region: us-east-1"),
        load_s3("bucket: b, region: us-east-1", "s3aws"),
    )
    assert one.configuration.storage.bucket == other.configuration.storage.bucket
    assert other.configuration.storage.drivers == ("s3aws",)


@frozen
class Case:
    option: str
    name: str
    value: object


@pytest.mark.parametrize(
    "case",
    [
        Case("chunksize: '5242880'", "chunksize", 5242880),
        Case("chunksize: 0x500000", "chunksize", 5242880),
        Case("chunksize: 5GiB", "chunksize", 5 * 2**30),
        Case("multipartcopychunksize: 6MiB", "multipartcopychunksize", 6 * 2**20),
        Case("multipartcopythresholdsize: 0", "multipartcopythresholdsize", 0),
        Case("multipartcopymaxconcurrency: '1'", "multipartcopymaxconcurrency", 1),
        Case("encrypt: 'True'", "encrypt", True),
        Case("secure: f", "secure", False),
        Case("skipverify: 1", "skipverify", True),
        Case("payloadsigning: 'f'", "payloadsigning", False),
        Case("forcepathstyle: 'false'", "forcepathstyle", False),
        Case("storageclass: standard_ia", "storageclass", "STANDARD_IA"),
        Case("storageclass: none", "storageclass", "NONE"),
        Case("objectacl: bucket-owner-full-control", "objectacl", "bucket-owner-full-control"),
        Case("rootdirectory: /a/b/", "rootdirectory", "a/b"),
        Case("rootdirectory: a", "rootdirectory", "a"),
        Case("rootdirectory: /", "rootdirectory", ""),
        Case("regionendpoint: myobjects.local", "regionendpoint", "myobjects.local"),
        Case("regionendpoint: 'h:9000'", "regionendpoint", "h:9000"),
        Case("regionendpoint: 'https://h/s3'", "regionendpoint", "https://h/s3"),
        Case("redirectendpoint: 'https://h:80/'", "redirectendpoint", "https://h:80"),
        Case("loglevel: off", "loglevel", "off"),
        Case("loglevel: debug", "loglevel", "debug"),
        Case("useragent: my mirror", "useragent", "my mirror"),
    ],
    ids=lambda case: case.option,
)
def test_options_are_converted(case: Case):
    assert getattr(read(case.option), case.name) == case.value


FROM_0 = "expected a number of bytes from 0 to 5368709120, such as 10485760 or 10MiB"
ACLS = (
    "expected private, public-read, public-read-write, authenticated-read, aws-exec-read,"
    " bucket-owner-read or bucket-owner-full-control"
)
SIZES = "a number of bytes from 5242880 to 5368709120, such as 10485760 or 10MiB"


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("chunksize: 5242879", f"chunksize: got '5242879', expected {SIZES}"),
        ("chunksize: 6GiB", f"chunksize: got '6GiB', expected {SIZES}"),
        ("chunksize: many", f"chunksize: got 'many', expected {SIZES}"),
        ("multipartcopychunksize: 0", f"multipartcopychunksize: got '0', expected {SIZES}"),
        ("multipartcopymaxconcurrency: 0",
         "multipartcopymaxconcurrency: got '0', expected an integer, 1 or more"),
        ("multipartcopythresholdsize: -1", f"multipartcopythresholdsize: got '-1', {FROM_0}"),
        ("encrypt: 'yes'", "encrypt: got 'yes', expected true or false"),
        ("objectacl: public", f"objectacl: got 'public', {ACLS}"),
        ("rootdirectory: a/../b",
         "rootdirectory: got 'a/../b', expected a path without empty components, . and .."),
        ("regionendpoint: 'ftp://h'",
         "regionendpoint: got 'ftp://h', expected a host, HOST:PORT, or an http or https URL"),
        ("regionendpoint: 'http://h?a'",
         ("regionendpoint: got 'http://h?******', expected a host, HOST:PORT, or an http or https"
          " URL")),
        ("redirectendpoint: h",
         "redirectendpoint: got 'h', expected an http or https URL without a path"),
        ("redirectendpoint: 'http://h/a'",
         "redirectendpoint: got 'http://h/a', expected an http or https URL without a path"),
    ],
)  # fmt: skip
def test_faults_name_key_value_and_range(option: str, expected: str):
    assert fault(f"bucket: b, region: us-east-1, {option}") == f"storage.s3.{expected} (f line 2)"


def test_bucket_and_region_are_required():
    assert fault("region: us-east-1") == "storage.s3.bucket: this key is required (f line 2)"
    assert fault("bucket: b") == (
        "storage.s3.region: not set, expected a region of AWS such as eu-central-1, or"
        " regionendpoint for another store (f line 2)"
    )
    assert fault("bucket: b, region: Mars") == (
        "storage.s3.region: got 'Mars', expected a region of AWS such as eu-central-1, or"
        " regionendpoint for another store (f line 2)"
    )
    assert not load_s3("bucket: b, region: Mars, regionendpoint: h").warnings


def test_the_environment_can_configure_a_bucket_alone():
    found = load_text(
        "version: 0.1\nstorage: filesystem\n",
        {
            "REGISTRY_STORAGE": "s3",
            "REGISTRY_STORAGE_S3_BUCKET": "b",
            "REGISTRY_STORAGE_S3_REGION": "us-east-1",
            "REGISTRY_STORAGE_S3_CHUNKSIZE": "6291456",
            "REGISTRY_STORAGE_S3_SECURE": '"false"',
        },
    ).configuration.storage
    assert found.drivers == ("s3",)
    assert found.s3 == S3(bucket="b", region="us-east-1", chunksize=6291456, secure=False)


@pytest.mark.parametrize(
    ("option", "warning"),
    [
        ("v4auth: false", "v4auth: no effect; requests are signed with version 4"),
        ("accesskey: a", "accesskey: no effect without both accesskey and secretkey"),
        ("keyid: a", "keyid: no effect without encrypt: true"),
        ("loglevel: loud", "loglevel: 'loud' is unknown; nothing is logged"),
        ("regionendpoint: h, accelerate: true", "accelerate: no effect with regionendpoint"),
        ("buckett: a", "buckett: unknown key, ignored; did you mean bucket? (f line 2)"),
    ],
)
def test_options_without_effect_add_a_warning(option: str, warning: str):
    found = load_s3(f"bucket: b, region: us-east-1, {option}")
    assert found.warnings == (f"storage.s3.{warning}",)


def test_credentials_are_not_in_the_repr():
    text = "bucket: b, region: us-east-1, accesskey: hunter1, secretkey: hunter2"
    text += ", sessiontoken: hunter3"
    assert "hunter" not in repr(load_s3(text).configuration)


@pytest.mark.parametrize(
    ("lifetime", "seconds"), [("1s", 1), ("168h", 168 * 3600), ("15m", 900), ("20m", 1200)]
)
def test_the_lifetime_of_a_redirect_is_a_duration(lifetime: str, seconds: int):
    text = f"version: 0.1\nstorage: {{inmemory: , redirect: {{lifetime: {lifetime}}}}}\n"
    assert load_text(text, {}).configuration.storage.redirect.lifetime == seconds


@pytest.mark.parametrize("lifetime", ["0s", "169h", "20", "soon"])
def test_a_lifetime_beyond_the_limit_of_s3_is_a_fault(lifetime: str):
    (line,) = fault_lines(
        f"version: 0.1\nstorage: {{inmemory: , redirect: {{lifetime: {lifetime}}}}}\n"
    )
    assert "expected a duration from 1s to 168h" in line


def test_the_example_is_valid_for_both_kinds_of_stores():
    path = Path(__file__).parents[2] / "conf" / "s3.yml"
    found = load_text(path.read_text(), {})
    assert found.warnings == ()
    aws = path.read_text().replace("    regionendpoint:", "    # regionendpoint:")
    aws = aws.replace("    region: us-east-1", "").replace("    # region:", "    region:")
    aws = aws.replace("    # encrypt", "    encrypt").replace(
        "    # storageclass", "    storageclass"
    )
    options = load_text(aws, {}).configuration.storage.s3
    assert options is not None
    assert (options.region, options.encrypt) == ("eu-central-1", True)
    assert options.storageclass == "INTELLIGENT_TIERING"
