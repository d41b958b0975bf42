"""Header fields that are made ready once."""

from twisted_registry.api import response


def test_fields_have_no_line_breaks_inside():
    fields = response.encode_headers((("X-A", "a\r\nX-B: b"), ("X-C", "c\n\nd")))
    assert fields == b"X-A: a X-B: b\r\nX-C: c  d\r\n"


def test_the_same_fields_are_made_once():
    headers = (("X-Once", "value"),)
    assert response.encode_headers(headers) is response.encode_headers(headers)


def test_long_fields_are_made_but_not_remembered():
    before = response._encode_headers_cached.cache_info().currsize
    long = "x" * 513
    assert response.encode_headers((("X", long),)) == f"X: {long}\r\n".encode()
    many = tuple(("X", str(number)) for number in range(13))
    assert response.encode_headers(many).count(b"\r\n") == 13
    assert response._encode_headers_cached.cache_info().currsize == before
