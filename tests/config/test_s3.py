"""The options of ``storage.s3``: their forms, ranges and defaults, and what they need."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import frozen

from twisted_registry.config.document import ConfigurationError
from twisted_registry.config.loading import LoadedConfiguration, load_text
from twisted_registry.config.s3 import S3


def loaded(text: str, name: str = "s3", **environ: str) -> LoadedConfiguration:
    document = f"version: 0.1\nstorage: {{{name}: {{{text}}}}}\n"
    return load_text(document, environ, "f")


def read(text: str) -> S3:
    found = loaded(f"bucket: b, region: eu-central-1, {text}").configuration.storage.bucket
    assert found is not None
    return found


def fault(text: str, **environ: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        loaded(text, **environ)
    (found,) = caught.value.faults
    return str(found)


def test_defaults_are_those_of_distribution():
    found = read("")
    assert (found.bucket, found.region, found.regionendpoint) == ("b", "eu-central-1", "")
    assert (found.accesskey, found.secretkey, found.sessiontoken, found.keyid) == ("",) * 4
    assert (found.secure, found.v4auth) == (True, True)
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
        loaded("bucket: b, region: us-east-1"),
        loaded("bucket: b, region: us-east-1", "s3aws"),
    )
    assert one.configuration.storage.bucket == other.configuration.storage.bucket
    assert other.configuration.storage.drivers == ("s3aws",)


@frozen
class Case:
    said: str
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
    ids=lambda case: case.said,
)
def test_values(case: Case):
    assert getattr(read(case.said), case.name) == case.value


FROM_0 = "expected a number of bytes from 0 to 5368709120, as 10485760 or 10MiB"
ACLS = (
    "expected private, public-read, public-read-write, authenticated-read, aws-exec-read,"
    " bucket-owner-read or bucket-owner-full-control"
)
SIZES = "a number of bytes from 5242880 to 5368709120, as 10485760 or 10MiB"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("chunksize: 5242879", f"chunksize: got '5242879', expected {SIZES}"),
        ("chunksize: 6GiB", f"chunksize: got '6GiB', expected {SIZES}"),
        ("chunksize: many", f"chunksize: got 'many', expected {SIZES}"),
        ("multipartcopychunksize: 0", f"multipartcopychunksize: got '0', expected {SIZES}"),
        ("multipartcopymaxconcurrency: 0",
         "multipartcopymaxconcurrency: got '0', expected a whole number from 1"),
        ("multipartcopythresholdsize: -1", f"multipartcopythresholdsize: got '-1', {FROM_0}"),
        ("encrypt: 'yes'", "encrypt: got 'yes', expected true or false"),
        ("objectacl: public", f"objectacl: got 'public', {ACLS}"),
        ("rootdirectory: a/../b",
         "rootdirectory: got 'a/../b', expected a path without empty components, . and .."),
        ("regionendpoint: 'ftp://h'",
         "regionendpoint: got 'ftp://h', expected a host, HOST:PORT, or an http or https URL"),
        ("regionendpoint: 'http://h?a'",
         "regionendpoint: got 'http://h?a', expected a host, HOST:PORT, or an http or https URL"),
        ("redirectendpoint: h",
         "redirectendpoint: got 'h', expected an http or https URL without a path"),
        ("redirectendpoint: 'http://h/a'",
         "redirectendpoint: got 'http://h/a', expected an http or https URL without a path"),
    ],
)  # fmt: skip
def test_faults_name_key_value_and_range(said: str, told: str):
    assert fault(f"bucket: b, region: us-east-1, {said}") == f"storage.s3.{told} (f line 2)"


def test_bucket_and_region_are_needed():
    assert fault("region: us-east-1") == "storage.s3.bucket: the key is required"
    assert fault("bucket: b") == (
        "storage.s3.region: got nothing, expected a region of AWS such as eu-central-1, or"
        " regionendpoint beside it"
    )
    assert fault("bucket: b, region: Mars") == (
        "storage.s3.region: got 'Mars', expected a region of AWS such as eu-central-1, or"
        " regionendpoint beside it"
    )
    assert not loaded("bucket: b, region: Mars, regionendpoint: h").warnings


def test_the_environment_may_say_all_of_it():
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
    ("said", "warned"),
    [
        ("v4auth: false", "v4auth: no effect; requests are signed with version 4"),
        ("accesskey: a", "accesskey: no effect; accesskey and secretkey go together"),
        ("keyid: a", "keyid: no effect without encrypt: true"),
        ("loglevel: loud", "loglevel: 'loud' is unknown, nothing is logged"),
        ("regionendpoint: h, accelerate: true", "accelerate: no effect beside regionendpoint"),
        ("buckett: a", "buckett: unknown key, ignored; did you mean bucket? (f line 2)"),
    ],
)
def test_what_has_no_effect_is_warned_of(said: str, warned: str):
    found = loaded(f"bucket: b, region: us-east-1, {said}")
    assert found.warnings == (f"storage.s3.{warned}",)


def test_secrets_are_never_shown():
    text = "bucket: b, region: us-east-1, accesskey: hunter1, secretkey: hunter2"
    text += ", sessiontoken: hunter3"
    assert "hunter" not in repr(loaded(text).configuration)


@pytest.mark.parametrize(
    ("said", "seconds"), [("1s", 1), ("168h", 168 * 3600), ("15m", 900), ("20m", 1200)]
)
def test_the_lifetime_of_a_redirect(said: str, seconds: int):
    text = f"version: 0.1\nstorage: {{inmemory: , redirect: {{lifetime: {said}}}}}\n"
    assert load_text(text, {}).configuration.storage.redirect.lifetime == seconds


@pytest.mark.parametrize("said", ["0s", "169h", "20", "soon"])
def test_a_lifetime_that_no_store_takes(said: str):
    with pytest.raises(ConfigurationError) as caught:
        load_text(f"version: 0.1\nstorage: {{inmemory: , redirect: {{lifetime: {said}}}}}\n", {})
    assert "expected a duration from 1s to 168h" in str(caught.value)


def test_the_example_is_sound():
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
