from __future__ import annotations

import pytest

from twisted_registry.storage.s3 import errors
from twisted_registry.storage.s3.credentials import Credentials
from twisted_registry.storage.s3.errors import S3Error, error_class


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("NoSuchKey", 404, errors.NotFound),
        ("NoSuchUpload", 404, errors.NoSuchUpload),
        ("NoSuchBucket", 404, errors.NoSuchBucket),
        ("AccessDenied", 403, errors.AccessDenied),
        ("SignatureDoesNotMatch", 403, errors.BadCredentials),
        ("RequestTimeTooSkewed", 403, errors.ClockSkewed),
        ("PermanentRedirect", 301, errors.WrongRegion),
        ("AuthorizationHeaderMalformed", 400, errors.WrongRegion),
        ("SlowDown", 503, errors.SlowDown),
        ("PreconditionFailed", 412, errors.PreconditionFailed),
        ("InvalidRange", 416, errors.RangeUnsatisfiable),
        ("EntityTooSmall", 400, errors.InvalidPart),
        ("NotImplemented", 501, errors.Unsupported),
        ("", 404, errors.NotFound),
        ("SomethingNew", 404, errors.NotFound),
        ("", 403, errors.AccessDenied),
        ("", 501, errors.Unsupported),
        ("InternalError", 500, S3Error),
        ("", 500, S3Error),
    ],
)
def test_error_class_depends_on_code_then_status(code, status, expected):
    assert error_class(code, status) is expected


def test_text_of_an_error():
    error = S3Error("GetObject b/k", "no such key", code="NoSuchKey", status=404, request_id="7A")
    assert str(error) == "GetObject b/k: no such key (NoSuchKey, 404, request 7A)"
    assert str(S3Error("GetObject b/k", "no answer")) == "GetObject b/k: no answer"


def test_repr_of_credentials_has_no_secrets():
    shown = repr(Credentials("AKID", "hush", "hush"))
    assert "AKID" in shown
    assert "hush" not in shown
