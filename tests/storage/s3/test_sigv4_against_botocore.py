"""The signer compared with that of botocore, on generated requests."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_registry.storage.s3.credentials import Credentials
from twisted_registry.storage.s3.sigv4 import UNSIGNED_PAYLOAD, Signer, encoded_path, encoded_query

try:
    from botocore import auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials as TheirCredentials
except ImportError:
    if os.environ.get("CI") == "true":
        raise
    pytest.skip("botocore is not installed", allow_module_level=True)

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12)
WORD = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=8)
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)

credentials = st.builds(
    Credentials,
    st.text("ABCD234", min_size=4, max_size=20),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=40),
    PRINTABLE.map(str.strip),
)
keys = st.lists(TEXT, min_size=1, max_size=4).map("/".join)
parameters = st.dictionaries(TEXT.filter(bool), TEXT, max_size=4)
hosts = st.tuples(WORD, st.sampled_from(["", ":9000", ":8443"])).map("".join)
times = st.integers(0, 2**32)
methods = st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE"])
headers = st.dictionaries(
    WORD.map("x-amz-meta-{}".format) | st.sampled_from(["range", "content-md5", "if-match"]),
    PRINTABLE,
    max_size=4,
)


def at(now):
    moment = dt.datetime.fromtimestamp(now, dt.UTC).replace(tzinfo=None)
    return patch.object(auth, "get_current_datetime", lambda: moment)


def theirs(ours):
    return TheirCredentials(ours.access_key, ours.secret_key, ours.token or None)


@given(
    credentials=credentials, region=WORD, method=methods, host=hosts, key=keys,
    parameters=parameters, headers=headers, body=st.none() | st.binary(max_size=50), now=times,
)  # fmt: skip
def test_headers(credentials, region, method, host, key, parameters, headers, body, now):
    path, query = encoded_path(f"/{key}"), encoded_query(parameters.items())
    request = AWSRequest(
        method, f"https://{host}{path}", headers, body or b"", params=dict(parameters)
    )
    request.context["payload_signing_enabled"] = body is not None
    # Without the digest of the body botocore covers it in any case.
    request.context["client_config"] = _Config({"payload_signing_enabled": body is not None})
    with at(now):
        auth.S3SigV4Auth(theirs(credentials), "s3", region).add_auth(request)

    payload = UNSIGNED_PAYLOAD if body is None else hashlib.sha256(body).hexdigest()
    added = Signer(credentials, region).headers(
        method, path, query, {"host": host, **headers}, payload, now
    )
    assert added == {
        name.lower(): value for name, value in request.headers.items() if name not in headers
    }


@given(
    credentials=credentials, region=WORD, method=methods, host=hosts, key=keys,
    parameters=parameters, expires=st.integers(1, 604800), now=times,
)  # fmt: skip
def test_presigned(credentials, region, method, host, key, parameters, expires, now):
    path = encoded_path(f"/{key}")
    request = AWSRequest(method, f"https://{host}{path}", params=dict(parameters))
    with at(now):
        auth.S3SigV4QueryAuth(theirs(credentials), "s3", region, expires).add_auth(request)

    query = Signer(credentials, region).query(method, host, path, parameters.items(), expires, now)
    assert request.url.startswith(f"https://{host}{path}?")
    assert sorted(query.split("&")) == sorted(request.url.partition("?")[2].split("&"))


class _Config:
    def __init__(self, s3):
        self.s3 = s3
