"""Leaving a store whose server hangs, drips, resets, truncates, refuses, stalls or vanishes: in time, and for good."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.leaving import How, Proxies, leave, read, write
from tests.servers._faulty_connection import Fault
from tests.stopping import start_loops

TIMEOUT = 0.5
TIMEOUT_S3 = 1.5  # botocore keeps its loop busy for some tenths of a second now and then

# Those that can befall an answer, under which a request stays in flight or ends in an error.
OF_ANSWERS: list[Fault] = ["hang", "vanish", "drip", "reset", "truncate", "refuse"]

both_ways = pytest.mark.parametrize("how", ["sync", "async"])
both_ends = pytest.mark.parametrize("fails", [False, True], ids=["clean", "exception"])


@pytest.fixture(scope="module")
def started() -> Iterator[Proxies]:
    start_loops()
    with ExitStack() as stack:
        yield Proxies(stack)


@pytest.fixture
def proxies(started: Proxies) -> Iterator[Proxies]:
    """Proxies that show no fault yet."""
    yield started
    started.pass_everything()


class BodyError(Exception):
    """What the body of a block raises."""


@pytest.mark.parametrize("fault", OF_ANSWERS)
@pytest.mark.parametrize("backend", ["http", "https"])
@both_ends
@both_ways
def test_reads_in_flight(how: How, fails: bool, backend: str, fault: Fault, proxies: Proxies) -> None:
    """Two reads, one on the pooled connection and one on a new one, when the store is left."""
    error = BodyError() if fails else None
    left = leave(how, proxies.before(backend), fault, [read, read], close_timeout=TIMEOUT, error=error)
    left.check(TIMEOUT, error)
    assert len(left.answers) == 2
    assert not any(isinstance(answer, bytes) for answer in left.answers)


@pytest.mark.parametrize(
    ("fault", "fails"),
    [
        *[pytest.param(fault, False, id=f"{fault}-clean") for fault in OF_ANSWERS if fault != "drip"],
        *[pytest.param(fault, True, id=f"{fault}-exception") for fault in ("hang", "reset")],
    ],
)
@pytest.mark.parametrize("backend", ["gs", "s3"])
@both_ways
def test_writes_in_flight(how: How, backend: str, fault: Fault, fails: bool, proxies: Proxies) -> None:
    """A write on the pooled connection and a read beside it; the write gets the time there is in either case."""
    timeout = TIMEOUT_S3 if backend == "s3" else TIMEOUT
    error = BodyError() if fails else None
    left = leave(how, proxies.before(backend), fault, [write, read], close_timeout=timeout, error=error)
    left.check(timeout, error)
    assert len(left.answers) == 2


@pytest.mark.parametrize(
    ("backend", "fault"),
    [
        *[("http", fault) for fault in ("hang", "vanish", "refuse", "delay_accept")],
        *[("https", fault) for fault in ("stall_tls_shutdown", "hang", "vanish", "refuse")],
        ("gs", "vanish"),
        ("s3", "vanish"),
    ],
)
@both_ways
def test_idle_connections(how: How, backend: str, fault: Fault, proxies: Proxies) -> None:
    """Nothing is in flight: there are only connections in the pool, which have to be closed."""
    timeout = TIMEOUT_S3 if backend == "s3" else TIMEOUT
    leave(how, proxies.before(backend), fault, [], close_timeout=timeout).check(timeout, None)


@both_ways
def test_idle_connections_after_an_exception(how: How, proxies: Proxies) -> None:
    """The same when the body has raised, where TLS's goodbye is not answered."""
    error = BodyError()
    left = leave(how, proxies.before("https"), "stall_tls_shutdown", [], close_timeout=TIMEOUT, error=error)
    left.check(TIMEOUT, error)


@pytest.mark.parametrize(
    ("backend", "fault"),
    [
        *[("http", fault) for fault in (*OF_ANSWERS, "delay_accept")],
        *[("https", fault) for fault in ("stall_tls_handshake", "reset", "truncate", "delay_accept")],
        *[(backend, fault) for backend in ("gs", "s3") for fault in ("hang", "delay_accept")],
    ],
)
@both_ways
def test_first_requests(how: How, backend: str, fault: Fault, proxies: Proxies) -> None:
    """The fault is there from the beginning, and the first requests are in flight when the store is left."""
    timeout = TIMEOUT_S3 if backend == "s3" else TIMEOUT
    left = leave(how, proxies.before(backend), fault, [read, read], close_timeout=timeout, opened_before=False)
    left.check(timeout, None)
    assert len(left.answers) == 2
    assert not any(isinstance(answer, bytes) for answer in left.answers)


@pytest.mark.parametrize(
    ("backend", "fault"),
    [
        *[("http", fault) for fault in ("hang", "vanish", "reset", "delay_accept")],
        *[("https", fault) for fault in ("stall_tls_handshake", "delay_accept")],
        ("gs", "delay_accept"),
        ("s3", "delay_accept"),
    ],
)
@both_ways
def test_first_requests_after_an_exception(how: How, backend: str, fault: Fault, proxies: Proxies) -> None:
    """The same when the body has raised: they are cut off at once, also while they are being connected."""
    timeout = TIMEOUT_S3 if backend == "s3" else TIMEOUT
    error = BodyError()
    behind = proxies.before(backend)
    left = leave(how, behind, fault, [read, read], close_timeout=timeout, opened_before=False, error=error)
    left.check(timeout, error)
    assert len(left.answers) == 2
    assert not any(isinstance(answer, bytes) for answer in left.answers)
