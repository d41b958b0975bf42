"""A registry over a bucket that waits and retries for a short time only.

As a program it serves until SIGTERM, and prints its address::

    python -m tests.integration.impatient_registry ENDPOINT ACCESS_KEY SECRET_KEY ROOT
"""

from __future__ import annotations

import sys

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.logger import globalLogBeginner

from tests.support.s3_servers import BUCKET
from twisted_registry.api.context import APISettings
from twisted_registry.logs.lines import make_observer
from twisted_registry.storage.s3.address import endpoint_address
from twisted_registry.storage.s3.client import S3Client
from twisted_registry.storage.s3.credentials import Credentials, StaticCredentials
from twisted_registry.storage.s3.driver import WORKER_THREADS, S3Driver
from twisted_registry.storage.s3.sender import Backoff, Sender
from twisted_registry.storage.s3.transport import Timeouts, make_transport
from twisted_registry.storage.threads import Threads
from twisted_registry.testing.server import serve

#: How often a request is sent.
ATTEMPTS = 3
CHUNK_BYTES = 5 * 1024 * 1024
#: Redirected pulls would not pass through the registry.
SETTINGS = APISettings(redirect=False)


def make_impatient_driver(endpoint, access_key, secret_key, root, seconds):
    """Return a driver that waits ``seconds`` for anything, and tries three times."""
    timeouts = Timeouts(connect_s=seconds, response_s=seconds, stored_s=seconds, idle_s=seconds)
    threads = Threads(reactor, WORKER_THREADS, "s3")
    sender = Sender(
        reactor,
        make_transport(reactor, timeouts=timeouts),
        endpoint_address(BUCKET, endpoint),
        StaticCredentials(Credentials(access_key, secret_key)),
        "tests",
        Backoff(attempts=ATTEMPTS, base_s=0.001, slow_base_s=0.001),
        run_blocking=threads.run_blocking,
    )
    return S3Driver(S3Client(sender), reactor, root, chunk_size=CHUNK_BYTES, threads=threads)


async def main(reactor, *arguments):
    """Serve until the reactor stops."""
    globalLogBeginner.beginLoggingTo([make_observer(sys.stderr)], redirectStandardIO=False)
    stopping, ended = Deferred(), Deferred()

    def stop():
        stopping.callback(None)
        return ended

    reactor.addSystemEventTrigger("before", "shutdown", stop)
    # Long enough for a busy store.
    driver = make_impatient_driver(*arguments, seconds=2)
    async with serve(reactor, driver=driver, settings=SETTINGS) as served:
        print(served.host, flush=True)
        await stopping
    ended.callback(None)


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, *sys.argv[1:])))
