"""The check of the bucket at the start: one key is listed, one object stored and deleted."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import formatEvent

from tests.storage.s3.fake_agent import Agent, Response, make_client, refusal, xml
from twisted_registry.app.s3 import (
    BucketCheck,
    check_bucket,
    find_misconfiguration,
    require_bucket,
)
from twisted_registry.frame.errors import StartError
from twisted_registry.storage.s3.driver import S3Driver
from twisted_registry.storage.s3.errors import (
    AccessDenied,
    BadCredentials,
    ClockSkewed,
    NoSuchBucket,
    NotFound,
    S3Error,
    Unreachable,
    WrongRegion,
)
from twisted_registry.storage.s3.interfaces import ObjectOptions
from twisted_registry.storage.s3.sender import Backoff

ENCRYPTION = "x-amz-server-side-encryption"
KEY_ID = "x-amz-server-side-encryption-aws-kms-key-id"
CLASS = "x-amz-storage-class"
ACL = "x-amz-acl"
PLAIN = ObjectOptions(storage_class="STANDARD", acl="private")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (NoSuchBucket, "storage.s3.bucket: the bucket does not exist: "),
        (NotFound, "storage.s3.bucket: the bucket does not exist: "),
        (WrongRegion, "storage.s3.region: the bucket is in another region: "),
        (ClockSkewed, "storage.s3: the clock of this machine is wrong: "),
        (BadCredentials, "storage.s3.accesskey: the store refuses the credentials: "),
        (AccessDenied, "storage.s3.bucket: the credentials do not permit listing"),
    ],
)
def test_misconfigurations_name_the_option(error, told):
    assert str(find_misconfiguration(error("ListObjectsV2 b", "no"), "s3")).startswith(told)


@pytest.mark.parametrize("error", [Unreachable("List", "down"), S3Error("List", "?"), None])
def test_unreachable_store_is_no_misconfiguration(error):
    assert find_misconfiguration(error, "s3") is None


class Client:
    """A client that can only list."""

    def __init__(self, answer):
        self.answer = answer

    def head_bucket(self):
        return self.answer


def run_check(response, log_events):
    """Return the levels of the log events, and the errors that end the start."""
    errors = []
    driver = S3Driver(Client(response), reactor)
    check = BucketCheck("s3", driver, errors.append, writes=False)
    check.startService()
    check.stopService()
    return [event["log_level"].name for event in log_events], [str(error) for error in errors]


def test_good_bucket_is_not_logged(log_events):
    assert run_check(succeed(None), log_events) == ([], [])


def test_unreachable_store_does_not_end_the_start(log_events):
    assert run_check(fail(Unreachable("List", "down")), log_events) == (["error"], [])
    (event,) = log_events
    assert formatEvent(event).startswith(
        "storage.s3: the store fails; the registry answers 503 until it works: List"
    )


def test_misconfiguration_is_passed_to_the_callback_which_logs_it(log_events):
    levels, (error,) = run_check(fail(NoSuchBucket("List", "no")), log_events)
    assert levels == []
    assert "does not exist" in error


def test_stop_cancels_the_check(log_events):
    assert run_check(Deferred(), log_events) == ([], [])


class Bucket(Agent):
    """Lists nothing; stores and deletes objects unless ``refuse`` returns a response.

    :ivar refuse: called with the method and the headers of a PUT or DELETE.
    :ivar stored: keys of the objects.
    """

    def __init__(self, refuse=lambda *_: None):
        super().__init__(*[self.respond] * 20)
        self.refuse = refuse
        self.stored = set()

    def respond(self, request):
        if request.method == "GET":
            return xml("ListBucketResult")
        refused = self.refuse(request.method, request.headers)
        if refused is None and request.method == "PUT":
            self.stored.add(request.url)
        elif refused is None:
            self.stored.remove(request.url)
        return refused or Response(200, {"etag": '"a"'})

    @property
    def methods(self):
        return [request.method for request in self.requests]


def driver_over(bucket, options=PLAIN, root="images"):
    client = make_client(Clock(), bucket, options, backoff=Backoff(attempts=1))
    return S3Driver(client, reactor, root)


async def start_error(bucket, options, name="s3"):
    with pytest.raises(StartError) as caught:
        await check_bucket(name, driver_over(bucket, options), writes=True)
    assert bucket.stored == set()
    return str(caught.value)


@pytest_twisted.ensureDeferred
async def test_an_object_with_all_options_is_stored_and_deleted(log_lines):
    bucket = Bucket()
    options = ObjectOptions(encrypt=True, key_id="k", storage_class="STANDARD_IA", acl="private")
    await check_bucket("s3", driver_over(bucket, options), writes=True)
    assert bucket.methods == ["GET", "PUT", "DELETE"]
    _, put, delete = bucket.requests
    assert put.url == delete.url == "http://objects:9000/images/images/twisted-registry/start-check"
    assert put.headers.items() >= options.headers().items()
    assert bucket.stored == set()
    assert log_lines == []


@pytest_twisted.ensureDeferred
async def test_registry_that_only_reads_stores_nothing():
    bucket = Bucket()
    await check_bucket("s3", driver_over(bucket), writes=False)
    assert bucket.methods == ["GET"]


def refuses(header, *values, code="InvalidRequest", status=400):
    """Refuse objects whose header has one of the values, or any if there are none."""

    def refuse(method, headers):
        found = headers.get(header)
        if method == "PUT" and found is not None and (not values or found in values):
            return refusal(status, code, f"{header} is not good")
        return None

    return refuse


@pytest.mark.parametrize(
    ("refuse", "options", "told"),
    [
        (refuses(ENCRYPTION), ObjectOptions(encrypt=True, storage_class="STANDARD"),
         "storage.s3aws.encrypt: the store refuses server-side encryption: PutObject "),
        (refuses(ENCRYPTION, code="NotImplemented", status=501), ObjectOptions(encrypt=True),
         "storage.s3aws.encrypt: the store refuses server-side encryption: "),
        (refuses(KEY_ID, code="KMS.NotFoundException"), ObjectOptions(encrypt=True, key_id="k"),
         "storage.s3aws.keyid: the store refuses encryption with this KMS key: "),
        (refuses(ENCRYPTION), ObjectOptions(encrypt=True, key_id="k", acl="private"),
         "storage.s3aws.encrypt: the store refuses server-side encryption: "),
        (refuses(CLASS, "OUTPOSTS"), ObjectOptions(storage_class="OUTPOSTS", acl="private"),
         "storage.s3aws.storageclass: the store refuses the class OUTPOSTS: "),
        (refuses(ACL, code="AccessControlListNotSupported"), PLAIN,
         "storage.s3aws.objectacl: the store refuses the ACL private: "),
        (refuses(ACL, code="AccessDenied", status=403), PLAIN,
         "storage.s3aws.objectacl: the store refuses the ACL private: "),
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_refused_option_is_named(refuse, options, told):
    error = await start_error(Bucket(refuse), options, "s3aws")
    assert error.startswith(told)
    assert " is not good" in error
    assert "\n" not in error


@pytest_twisted.ensureDeferred
async def test_several_refused_options_are_named_together():
    no_class, no_acl = refuses(CLASS, "GLACIER_IR"), refuses(ACL, "public-read")
    bucket = Bucket(lambda *request: no_class(*request) or no_acl(*request))
    options = ObjectOptions(storage_class="GLACIER_IR", acl="public-read")
    assert (await start_error(bucket, options)).startswith(
        "storage.s3.storageclass, storage.s3.objectacl: the store refuses the class GLACIER_IR"
        " and the ACL public-read: "
    )


@pytest_twisted.ensureDeferred
async def test_option_is_named_though_the_bucket_demands_another():
    no_class = refuses(CLASS, "OUTPOSTS")

    def refuse(method, headers):
        if method == "PUT" and ENCRYPTION not in headers:
            return refusal(403, "AccessDenied")
        return no_class(method, headers)

    options = ObjectOptions(encrypt=True, storage_class="OUTPOSTS", acl="private")
    assert (await start_error(Bucket(refuse), options)).startswith("storage.s3.storageclass: ")


def denies(method, _headers):
    return refusal(403, "AccessDenied", "not for you") if method == "PUT" else None


@pytest_twisted.ensureDeferred
async def test_credentials_without_write_permission_are_a_warning(log_lines):
    bucket = Bucket(denies)
    await check_bucket("s3", driver_over(bucket), writes=True)
    (line,) = log_lines
    assert line.startswith("storage.s3: the credentials permit pulls only, so pushes fail; ")
    assert "not for you" in line
    assert bucket.stored == set()


@pytest_twisted.ensureDeferred
async def test_object_that_cannot_be_deleted_is_a_warning(log_lines):
    bucket = Bucket(lambda method, _: refusal(403, "AccessDenied") if method == "DELETE" else None)
    await check_bucket("s3", driver_over(bucket), writes=True)
    (line,) = log_lines
    assert "cannot be deleted: key=images/twisted-registry/start-check" in line


@pytest.mark.parametrize(
    ("status", "code", "puts"), [(503, "SlowDown", 1), (500, "InternalError", 1), (400, "Odd", 4)]
)
@pytest_twisted.ensureDeferred
async def test_other_failures_do_not_end_the_start(log_events, status, code, puts):
    def refuse(_method, _headers):
        return refusal(status, code)

    bucket, errors = Bucket(refuse), []
    check = BucketCheck("s3", driver_over(bucket), errors.append)
    check.startService()
    await check.checked
    assert errors == []
    assert [event["log_level"].name for event in log_events] == ["error"]
    assert bucket.methods == ["GET"] + ["PUT"] * puts


@pytest_twisted.ensureDeferred
async def test_commands_require_a_store_that_works():
    with pytest.raises(StartError, match=r"^storage\.s3: PutObject .*SlowDown"):
        await require_bucket(
            "s3", driver_over(Bucket(lambda *_: refusal(503, "SlowDown"))), writes=True
        )
    await require_bucket("s3", driver_over(Bucket(denies)))
