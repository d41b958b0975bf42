"""A fair queue of password checks, with a memory of failed logins.

A check of a password keeps a processor busy for 50 milliseconds or more, so few run at a time and
the others wait. Nobody can keep other users waiting by sending wrong passwords:

* Credentials that were right before are checked first. Then comes the check whose address has made
  the fewest attempts without success lately, then that whose name has the fewest, then the newest:
  a flood of first attempts from many addresses does not delay the one that follows it.
* Of the others, few wait for each address and each name. The one that would be started last makes
  room for another, or the other is refused: 429 with Retry-After.
* After :data:`FREE_FAILURES` failures of a name from an address, further attempts of the pair are
  refused for a time that doubles with each failure, up to :data:`MAX_DELAY_S`. Credentials that
  were right before are excepted, and a wrong password that is sent again is not one more failure: a
  client that still has an old password does not lock out its user.

Addresses of IPv6 count by their network of 64 bits, which usually has one owner. Names and
addresses are kept as keyed hashes, and for each table there is an upper bound of entries.
"""

from __future__ import annotations

from collections import OrderedDict
from math import ceil
from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import Factory, define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_registry.auth.access import LoginFailed
from twisted_registry.auth.login_cache import credentials_key
from twisted_registry.auth.rate_limits import network_of
from twisted_registry.oci.errors import ErrorCode, RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

T = TypeVar("T")

#: Checks that wait, in all, for one address, and for one name. Those of credentials that were right
#: before are not counted: after a change of the accounts everybody has to be checked again.
MAX_WAITING = 128
MAX_WAITING_PER_ADDRESS = 32
MAX_WAITING_PER_NAME = 8
#: Failures of a name from an address that are not followed by a delay.
FREE_FAILURES = 5
#: The delay after the next failure, in seconds; each further failure doubles it up to the second.
FIRST_DELAY_S = 1.0
MAX_DELAY_S = 60.0
#: Attempts and failures are forgotten this long after the last one, in seconds.
FORGET_S = 900.0
#: Entries of each table: addresses, names, pairs of them, and credentials that were right.
MAX_REMEMBERED = 4096
#: The value of Retry-After where a check found no place in the queue, in seconds.
_RETRY_FULL_S = 1


@define(eq=False, repr=False)
class _Counts:
    """Counts by key. The entry that has not changed for longest is dropped when there are many."""

    _clock: IReactorTime
    _entries: OrderedDict[bytes, tuple[int, float]] = field(init=False, factory=OrderedDict)

    def get(self, key: bytes) -> tuple[int, float]:
        """Return a count, and when it has changed, in seconds of the clock."""
        count, changed = self._entries.get(key, (0, 0.0))
        # Negative if the clock was set back: nobody may be delayed until it has caught up.
        is_recent = 0 <= self._clock.seconds() - changed < FORGET_S
        return (count, changed) if is_recent else (0, 0.0)

    def add(self, key: bytes, number: int) -> None:
        """Add a number to a count; an entry of zero is dropped."""
        count = self.get(key)[0] + number
        self._entries.pop(key, None)
        if count > 0:
            self._entries[key] = count, self._clock.seconds()
        if len(self._entries) > MAX_REMEMBERED:
            self._entries.popitem(last=False)

    def remove(self, key: bytes) -> None:
        """Set a count to zero."""
        self._entries.pop(key, None)


@define(eq=False, repr=False)
class _Check(Generic[T]):
    """A check that waits or runs.

    :ivar credentials: the keyed hash of the credentials.
    :ivar is_known: whether these credentials were right before.
    :ivar number: grows from check to check.
    """

    key: object
    credentials: bytes
    name: bytes
    address: bytes
    is_known: bool
    number: int
    start: Callable[[], Deferred[T]]
    waiters: list[Deferred[T]] = field(init=False, factory=list)
    is_waiting: bool = field(init=False, default=True)

    @property
    def pair(self) -> bytes:
        """The key of the name together with the address."""
        return self.name + self.address


@define(eq=False, repr=False)
class CheckQueue(Generic[T]):
    """Runs password checks in a fair order. Equal credentials share one check.

    :ivar clock: for delays, and for forgetting.
    :ivar max_running: checks that run at a time.
    """

    _clock: IReactorTime
    _max_running: int
    _checks: dict[object, _Check[T]] = field(init=False, factory=dict)
    _waiting: list[_Check[T]] = field(init=False, factory=list)
    _running: int = field(init=False, default=0)
    _numbers: int = field(init=False, default=0)
    _right: OrderedDict[bytes, None] = field(init=False, factory=OrderedDict)
    # Attempts without success, by address and by name; failures, by both; wrong credentials.
    _attempts: _Counts = field(
        init=False, default=Factory(lambda self: _Counts(self._clock), takes_self=True)
    )
    _attempts_by_name: _Counts = field(
        init=False, default=Factory(lambda self: _Counts(self._clock), takes_self=True)
    )
    _failures: _Counts = field(
        init=False, default=Factory(lambda self: _Counts(self._clock), takes_self=True)
    )
    _wrong: _Counts = field(
        init=False, default=Factory(lambda self: _Counts(self._clock), takes_self=True)
    )

    def submit(
        self,
        authorization: str,
        version: object,
        name: str,
        address: str,
        start: Callable[[], Deferred[T]],
    ) -> Deferred[T]:
        """Fire with the result of a check, once it was its turn.

        A check that waits ends with its last waiter. One that runs is completed in any case: its
        thread could not be stopped, and its failure counts.

        :param authorization: the credentials; only a keyed hash of them is kept.
        :param version: checks of another version of the accounts are not shared.
        :param name: the name of the user who wants to log in.
        :param address: the address of the client.
        :param start: starts the check; it fails with LoginFailed if the credentials are wrong.
        :raises RegistryError: TOOMANYREQUESTS, with Retry-After.
        """
        credentials = credentials_key(authorization)
        key, network = (credentials, version), credentials_key(network_of(address))
        check = self._checks.get(key)
        try:
            if check is None:
                self._numbers += 1
                check = _Check(
                    key,
                    credentials,
                    credentials_key(name),
                    network,
                    credentials in self._right,
                    self._numbers,
                    start,
                )
                self._enter(check)
            elif self._attempts.get(network)[0] < self._attempts.get(check.address)[0]:
                check.address = network
        except RegistryError as error:
            refused: Deferred[T] = Deferred()
            refused.errback(Failure(error))
            return refused
        waiter: Deferred[T] = Deferred(lambda waiter: self._waiter_cancelled(check, waiter))
        check.waiters.append(waiter)
        self._start_next()
        return waiter

    def _enter(self, check: _Check[T]) -> None:
        """Put a check into the queue.

        :raises RegistryError: if the pair has to wait longer, or there is no place for the check.
        """
        # Refused attempts count too: who comes back at once comes after those who did not.
        self._attempts.add(check.address, 1)
        self._attempts_by_name.add(check.name, 1)
        delay_s = self._delay_s(check)
        if delay_s > 0:
            raise _delayed(delay_s)
        if not check.is_known:
            self._make_room(
                check, lambda other: other.address == check.address, MAX_WAITING_PER_ADDRESS
            )
            self._make_room(check, lambda other: other.name == check.name, MAX_WAITING_PER_NAME)
            self._make_room(check, lambda _: True, MAX_WAITING)
        self._checks[check.key] = check
        self._waiting.append(check)

    def _make_room(
        self, check: _Check[T], is_rival: Callable[[_Check[T]], bool], limit: int
    ) -> None:
        """Refuse the last of the rivals if there are too many and the check comes before it.

        :raises RegistryError: if the check comes after all of them.
        """
        rivals = [each for each in self._waiting if not each.is_known and is_rival(each)]
        if len(rivals) < limit:
            return
        last = max(rivals, key=self._rank)
        if self._rank(check) > self._rank(last):
            raise _queue_full()
        self._refuse(last, _queue_full())

    def _rank(self, check: _Check[T]) -> tuple[bool, int, int, int]:
        """Return the place of a check: the smallest is started next."""
        return (
            not check.is_known,
            self._attempts.get(check.address)[0],
            self._attempts_by_name.get(check.name)[0],
            -check.number,
        )

    def _delay_s(self, check: _Check[T]) -> float:
        """Return for how many seconds a check must not be started."""
        failures, last = self._failures.get(check.pair)
        if check.is_known or failures <= FREE_FAILURES:
            return 0.0
        # Beyond 32 doublings it is the longest delay in any case.
        delay_s = FIRST_DELAY_S * 2.0 ** min(failures - FREE_FAILURES - 1, 32)
        return last + min(delay_s, MAX_DELAY_S) - self._clock.seconds()

    def _start_next(self) -> None:
        while self._waiting and self._running < self._max_running:
            check = min(self._waiting, key=self._rank)
            delay_s = self._delay_s(check)
            if delay_s > 0:  # others of the pair have failed meanwhile
                self._refuse(check, _delayed(delay_s))
                continue
            self._waiting.remove(check)
            check.is_waiting = False
            self._running += 1
            check.start().addBoth(self._check_ended, check)

    def _check_ended(self, result: T | Failure, check: _Check[T]) -> None:
        self._running -= 1
        del self._checks[check.key]
        if not isinstance(result, Failure):
            self._note_success(check)
        elif result.check(LoginFailed):
            self._note_failure(check)
        _fire(check, result)
        self._start_next()

    def _note_success(self, check: _Check[T]) -> None:
        self._attempts.add(check.address, -1)
        self._attempts_by_name.add(check.name, -1)
        self._failures.remove(check.pair)
        self._right[check.credentials] = None
        self._right.move_to_end(check.credentials)
        if len(self._right) > MAX_REMEMBERED:
            self._right.popitem(last=False)

    def _note_failure(self, check: _Check[T]) -> None:
        self._right.pop(check.credentials, None)
        if not self._wrong.get(check.credentials)[0]:
            self._failures.add(check.pair, 1)
        self._wrong.add(check.credentials, 1)

    def _refuse(self, check: _Check[T], error: RegistryError) -> None:
        self._drop(check)
        _fire(check, Failure(error))

    def _waiter_cancelled(self, check: _Check[T], waiter: Deferred[T]) -> None:
        check.waiters.remove(waiter)
        if not check.waiters and check.is_waiting:
            self._drop(check)

    def _drop(self, check: _Check[T]) -> None:
        check.is_waiting = False
        self._waiting.remove(check)
        del self._checks[check.key]


def _fire(check: _Check[T], result: T | Failure) -> None:
    # One by one: a callback may cancel another waiter.
    while check.waiters:
        check.waiters.pop(0).callback(result)


def _delayed(delay_s: float) -> RegistryError:
    return RegistryError(
        ErrorCode.TOOMANYREQUESTS,
        message="too many failed logins of this user from this address",
        headers=(("Retry-After", str(ceil(delay_s))),),
        limit="logins",
    )


def _queue_full() -> RegistryError:
    return RegistryError(
        ErrorCode.TOOMANYREQUESTS,
        message="too many logins wait for their turn",
        headers=(("Retry-After", str(_RETRY_FULL_S)),),
        limit="logins",
    )
