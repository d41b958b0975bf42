"""Inputs for the fuzzer: requests from a grammar, a corpus, and mutations of both."""

from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
TOKENS = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"1", b"f", b"\xff", b"\x7f",
    b"GET ", b"HEAD ", b"PUT ", b"/", b"/s/", b"/s/refuse", b"*", b"#", b"?a=b", b"%00", b"http://h",
    b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"Host: x\r\n", b"Content-Length: 3\r\n",
    b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Connection: Upgrade\r\n",
    b"Upgrade: h2c\r\n", b"Trailer: a\r\n", b"\r\n\r\n", b"0\r\n\r\n", b"3\r\nabc\r\n",
    b"3;x=y\r\nabc\r\n",
    b"abc", b"A: b\r\n", b" folded\r\n", b"X" * 400, b"\r\n" * 3,
]  # fmt: skip
TARGETS = [b"/", b"/a?b=c", b"/s/x", b"/s/refuse", b"*", b"http://h/p", b"/" + b"a" * 290]
EXTRAS = [
    b"Expect: 100-continue", b"Connection: close", b"Cookie: a=b", b"A: " + b"b" * 500,
    b"C: " + b"d" * 400, b"Authorization: e",
]  # fmt: skip


def make_request(rng):
    """Return a request that is mostly valid."""
    method = rng.choice([b"GET", b"HEAD", b"PUT", b"POST", b"OPTIONS", b"DELETE", b"PATCH"])
    target = rng.choice(TARGETS)
    fields = [b"Host: x"]
    body = b""
    kind = rng.randrange(4)
    content = rng.randbytes(rng.choice([0, 1, 5, 100, 390, 600]))
    if kind == 1:
        fields.append(b"Content-Length: %d" % len(content))
        body = content
    elif kind == 2:
        fields.append(b"Transfer-Encoding: chunked")
        while content:
            size = rng.randint(1, len(content))
            extension = rng.choice([b"", b"", b";a", b';a="b"'])
            body += b"%x%b\r\n%b\r\n" % (size, extension, content[:size])
            content = content[size:]
        body += b"0\r\n" + rng.choice([b"", b"", b"X: y\r\n"]) + b"\r\n"
    fields += [field for field in EXTRAS if rng.random() < 0.1]
    if rng.random() < 0.1:
        fields += [b"Connection: Upgrade", b"Upgrade: h2c"]
    rng.shuffle(fields)
    version = rng.choice([b"HTTP/1.1"] * 9 + [b"HTTP/1.0"])
    return b"\r\n".join([b"%b %b %b" % (method, target, version), *fields]) + b"\r\n\r\n" + body


def mutate(rng, data):
    """A few small changes."""
    for _ in range(rng.choice([0, 1, 1, 2, 3, 6])):
        at = rng.randint(0, len(data))
        kind = rng.randrange(5)
        if kind == 0:
            data = data[:at] + rng.choice(TOKENS) + data[at:]
        elif kind == 1:
            data = data[:at] + data[at + rng.randint(1, 8) :]
        elif kind == 2:
            data = data[:at] + rng.randbytes(1) + data[at + 1 :]
        elif kind == 3:
            other = rng.randint(0, len(data))
            low, high = sorted((at, other))
            data = data[:high] + data[low:high][:200] + data[high:]
        else:
            data = data[:at] + data[at : at + 1].swapcase() + data[at + 1 :]
    return data


def make_input(rng, corpus):
    """Some bytes worth trying."""
    kind = rng.random()
    if kind < 0.45:
        data = b"".join(make_request(rng) for _ in range(rng.randint(1, 4)))
    elif kind < 0.9:
        data = b"".join(rng.choice(corpus) for _ in range(rng.randint(1, 2)))
    else:
        data = b"".join(rng.choice(TOKENS) for _ in range(rng.randint(1, 30)))
    return mutate(rng, data)[:20000]


def make_cuts(rng, size):
    """Where to cut: everywhere, or at random."""
    if size < 400 and rng.random() < 0.3:
        return [list(range(1, size))]
    return [sorted(rng.randint(0, size) for _ in range(rng.randint(1, 8)))]


def load_corpus():
    return [path.read_bytes() for path in sorted(CORPUS.glob("*.http"))]
