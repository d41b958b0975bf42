"""A change by one process is visible to the next request at any other process.

Each process caches what it has read, and validates it with a look at the store. Here tags move and
are deleted every few milliseconds, while the caches of the other processes hold the old state.
"""

from __future__ import annotations

import json
import threading
from functools import partial

import pytest

from tests.support.manifests import OCI_IMAGE, descriptor, digest_of, image
from tests.workers.process_group import ask, serving

DELETES = "storage:\n  filesystem:\n    rootdirectory: {root}\n  delete:\n    enabled: true\n"
CONFIG = b"{}"


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    folder = tmp_path_factory.mktemp("family")
    environ = {"REGISTRY_STORAGE_DELETE_ENABLED": "true"}
    more = "  workers: 3\nlog:\n  accesslog:\n    disabled: true\n"
    with serving(folder, more=more, count=3, **environ) as made:
        yield made
        status, _, lines = made.stop()
    assert status == 0
    assert not [line for line in lines if "Traceback" in line or "level=error" in line]


@pytest.fixture
def processes(family):
    """A connection to each of three processes."""
    made = family.one_for_each()
    yield made
    for connection in made:
        connection.close()


def push_blob(connection, name, content):
    response, _ = ask(
        connection, "POST", f"/v2/{name}/blobs/uploads/?digest={digest_of(content)}", content
    )
    assert response.status == 201
    return digest_of(content)


def manifest(number, subject=None):
    """One of many manifests that are equally long."""
    more = {} if subject is None else {"subject": descriptor(subject, OCI_IMAGE)}
    return image(CONFIG, annotations={"number": f"{number:06}"}, **more)


def put(connection, name, reference, content):
    headers = {"Content-Type": OCI_IMAGE}
    response, body = ask(connection, "PUT", f"/v2/{name}/manifests/{reference}", content, headers)
    assert response.status == 201, body


def get(connection, name, reference):
    """The status and the bytes."""
    response, body = ask(connection, "GET", f"/v2/{name}/manifests/{reference}")
    return response.status, body


def delete(connection, path):
    response, body = ask(connection, "DELETE", path)
    assert response.status == 202, body


def test_a_moved_tag_is_seen_by_all_processes(processes):
    push_blob(processes[0], "moves", CONFIG)
    contents = [manifest(number) for number in range(4)]
    for content in contents:
        put(processes[0], "moves", digest_of(content), content)
    for number in range(150):
        content = contents[number % 4]
        mover, *others = processes[number % 3 :] + processes[: number % 3]
        put(mover, "moves", "latest", content)
        for _ in range(2):  # the second may be served from a cache
            for other in others:
                assert get(other, "moves", "latest") == (200, content)


def test_readers_of_a_moving_tag_never_see_an_older_state(family, processes):
    """The readers keep the caches of their processes warm."""
    push_blob(processes[0], "busy", CONFIG)
    put(processes[0], "busy", "latest", manifest(0))
    faults, counts, done = [], [], threading.Event()

    def read(connection):
        seen = count = 0
        while not done.is_set():
            least = moved[0]
            status, body = get(connection, "busy", "latest")
            number = int(json.loads(body)["annotations"]["number"]) if status == 200 else -1
            if number < max(seen, least):
                faults.append((status, number, seen, least))
            seen = max(seen, number)
            count += 1
        counts.append(count)

    moved = [0]
    readers = [threading.Thread(target=read, args=[connection]) for connection in processes[1:]]
    for reader in readers:
        reader.start()
    for number in range(1, 100):
        put(processes[0], "busy", "latest", manifest(number))
        moved[0] = number  # requests from now on must see it
    done.set()
    for reader in readers:
        reader.join()
    assert faults == []
    assert min(counts) > 20


def test_deleted_content_is_gone_in_all_processes(processes):
    one, two, three = processes
    layer = push_blob(one, "gone", b"layer")
    push_blob(one, "gone", CONFIG)
    content = manifest(1)
    digest = digest_of(content)
    for _ in range(20):
        put(one, "gone", "tag", content)
        push_blob(one, "gone", b"layer")
        for connection in (two, three, two, three):
            assert get(connection, "gone", "tag")[0] == 200
            assert get(connection, "gone", digest)[0] == 200
            assert ask(connection, "GET", f"/v2/gone/blobs/{layer}")[0].status == 200
        delete(two, "/v2/gone/manifests/tag")
        assert get(three, "gone", "tag")[0] == 404
        assert get(three, "gone", digest)[0] == 200
        delete(three, f"/v2/gone/manifests/{digest}")
        delete(three, f"/v2/gone/blobs/{layer}")
        for connection in (one, two):
            assert get(connection, "gone", digest)[0] == 404
            assert ask(connection, "GET", f"/v2/gone/blobs/{layer}")[0].status == 404


def test_a_deleted_repository_is_gone_in_all_processes(processes):
    """It is pushed again, and deleted by another process, several times."""
    one, two, three = processes
    content = manifest(1)
    for number in range(9):
        layer = push_blob(one, "whole/one", CONFIG)
        put(two, "whole/one", "tag", content)
        put(two, "whole/one", "more", manifest(2, subject=content))
        for connection in (one, three, one, three):
            assert get(connection, "whole/one", "tag")[0] == 200
            assert ask(connection, "GET", f"/v2/whole/one/blobs/{layer}")[0].status == 200
            assert lists(connection, "whole/one", 1) == (["more", "tag"], True, 1)
        deleter, *others = processes[number % 3 :] + processes[: number % 3]
        delete(deleter, "/v2/_repository/whole/one")
        for connection in others:
            assert get(connection, "whole/one", "tag")[0] == 404
            assert get(connection, "whole/one", digest_of(content))[0] == 404
            assert ask(connection, "GET", f"/v2/whole/one/blobs/{layer}")[0].status == 404
            assert ask(connection, "GET", "/v2/whole/one/tags/list")[0].status == 404
            assert lists(connection, "whole/one", 1) == ([], False, 0)
            response, _ = ask(connection, "DELETE", "/v2/_repository/whole/one")
            assert response.status == 404


def lists(connection, name, subject=0):
    """Return the tags, whether the catalog lists the name, and the number of referrers."""
    response, body = ask(connection, "GET", f"/v2/{name}/tags/list")
    tags = json.loads(body)["tags"] if response.status == 200 else []
    _, body = ask(connection, "GET", "/v2/_catalog")
    _, found = ask(connection, "GET", f"/v2/{name}/referrers/{digest_of(manifest(subject))}")
    return tags, name in json.loads(body)["repositories"], len(json.loads(found)["manifests"])


def test_lists_of_all_processes_follow_every_change(processes):
    one, two, three = processes
    for each in processes:
        assert lists(each, "lists") == ([], False, 0)
    push_blob(one, "lists", CONFIG)
    for number in range(30):
        writer, *readers = processes[number % 3 :] + processes[: number % 3]
        put(writer, "lists", f"t{number:02}", manifest(number, subject=manifest(0)))
        tags = [f"t{each:02}" for each in range(number + 1)]
        for reader in (*readers, *readers):
            assert lists(reader, "lists") == (tags, True, number + 1)
    for number in range(30):
        delete(two, f"/v2/lists/manifests/{digest_of(manifest(number, subject=manifest(0)))}")
        tags = [f"t{each:02}" for each in range(number + 1, 30)]
        for reader in (one, three):
            assert lists(reader, "lists") == (tags, True, 29 - number)


def all_at_once(functions):
    """Run each function in a thread."""
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_concurrent_conditional_updates_lose_none(processes):
    """Each process adds one to the number that it has read, with If-Match."""
    push_blob(processes[0], "count", CONFIG)
    put(processes[0], "count", "latest", manifest(0))
    refused = []

    def add(connection):
        added = 0
        while added < 30:
            _, before = get(connection, "count", "latest")
            number = int(json.loads(before)["annotations"]["number"])
            headers = {"Content-Type": OCI_IMAGE, "If-Match": f'"{digest_of(before)}"'}
            path = "/v2/count/manifests/latest"
            response, _ = ask(connection, "PUT", path, manifest(number + 1), headers)
            assert response.status in {201, 412}
            if response.status == 201:
                added += 1
            else:
                refused.append(number)

    all_at_once([partial(add, connection) for connection in processes])
    assert get(processes[0], "count", "latest")[1] == manifest(90)
    assert refused


def test_concurrent_creations_of_a_tag_succeed_once(processes):
    push_blob(processes[0], "new", CONFIG)
    for number in range(20):
        made = []

        def make(connection, number=number, made=made):
            headers = {"Content-Type": OCI_IMAGE, "If-None-Match": "*"}
            path = f"/v2/new/manifests/t{number}"
            made.append(ask(connection, "PUT", path, manifest(number), headers)[0].status)

        all_at_once([partial(make, connection) for connection in processes])
        assert sorted(made) == [201, 412, 412]


def start(connection, name):
    response, _ = ask(connection, "POST", f"/v2/{name}/blobs/uploads/", b"")
    assert response.status == 202
    return response.getheader("Location")


def patch(connection, location, content, offset):
    headers = {"Content-Range": f"{offset}-{offset + len(content) - 1}"}
    response, body = ask(connection, "PATCH", location, content, headers)
    assert response.status == 202, body
    return response.getheader("Location")


def close(connection, location, digest):
    glue = "&" if "?" in location else "?"
    return ask(connection, "PUT", f"{location}{glue}digest={digest}", b"")[0].status


@pytest.mark.parametrize(
    "way",
    [
        "0111",  # the rest is hashed from a checkpoint
        "0001",  # at the closing PUT
        "0120",  # no process has hashed all: the data is read at the end
        "0121",  # a process that continues must not use its old hash state
        "1012010120",
    ],
)
def test_an_upload_continues_at_any_process(processes, way):
    pieces = [bytes([65 + number]) * 70_000 for number in range(len(way) - 2)]
    for wrong in (True, False):
        turns = [processes[int(number)] for number in way]
        location = start(turns.pop(0), "moving")
        offset = 0
        for piece in pieces:
            location = patch(turns.pop(0), location, piece, offset)
            offset += len(piece)
        content = b"".join(pieces)
        digest = digest_of(content + b"x" if wrong else content)
        assert close(turns[0], location, digest) == (400 if wrong else 201)
    for connection in processes:
        response, body = ask(connection, "GET", f"/v2/moving/blobs/{digest_of(content)}")
        assert (response.status, body) == (200, content)
    delete(processes[0], f"/v2/moving/blobs/{digest_of(content)}")


def test_an_upload_has_one_writer_in_all_processes(processes):
    one, two, _ = processes
    location = start(one, "busy-upload")
    one.putrequest("PATCH", location)
    one.putheader("Content-Length", "10")
    one.putheader("Expect", "100-continue")
    one.endheaders()
    assert one.sock.recv(1000).startswith(b"HTTP/1.1 100")
    one.send(b"first")
    response, _ = ask(two, "PATCH", location, b"others")
    assert response.status >= 400
    one.send(b"other")
    response = one.getresponse()
    assert response.status == 202
    response.read()
    assert close(two, response.getheader("Location"), digest_of(b"firstother")) == 201


def test_all_processes_sign_uploads_with_the_same_generated_secret(tmp_path):
    """Without a configured secret, on a new store, with concurrent first requests."""
    environ = {"REGISTRY_HTTP_SECRET": "''"}
    with serving(tmp_path, more="  workers: 3\n", count=3, **environ) as family:
        connections = family.one_for_each()
        locations, together = {}, threading.Barrier(3)

        def begin(number):
            together.wait()
            locations[number] = start(connections[number], "signed")

        threads = [threading.Thread(target=begin, args=[number]) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number, location in locations.items():
            patch(connections[(number + 1) % 3], location, b"content", 0)
        assert family.stop()[0] == 0
