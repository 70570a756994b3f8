"""After a store was left under a fault: nothing is opened again, no write is half, and no listing was waited for."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any, cast

import pytest
from zarr.core.sync import sync

from managed_store import ManagedStore, StoreClosedError, StoreCloseError
from tests.leaving import SLACK, Behind, How, Proxies, is_fair, leave, read, sockets_to, write, writing
from tests.servers._faulty_connection import Fault
from tests.stopping import start_loops
from tests.timing import Stopwatch

TIMEOUT = 1.0

both_ways = pytest.mark.parametrize("how", ["sync", "async"])


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


# Longer than a backend pauses before it tries for the second time, in seconds: gcsfs between one and two.
BEFORE_THE_NEXT_TRY = {"gs": 2.3, "gs with gRPC": 2.3, "s3": 1.5}


@pytest.mark.parametrize(
    ("how", "fails"),
    [pytest.param("sync", False, id="sync-clean"), pytest.param("async", True, id="async-exception")],
)
@pytest.mark.parametrize("backend", BEFORE_THE_NEXT_TRY)
def test_retries_of_the_backend_open_nothing_again(how: How, fails: bool, backend: str, proxies: Proxies) -> None:
    """Every request is reset, so that the backend is waiting to try again, or trying, when the store is left."""
    behind = proxies.before(backend)
    error = BodyError() if fails else None
    opened = behind.proxy.opened()
    left = leave(
        how, behind, "reset", [read, write], close_timeout=TIMEOUT, opened_before=False, error=error, further=0.5
    )
    closed = time.monotonic()
    left.check(TIMEOUT, error)
    # They had tried, and would have gone on trying.
    assert behind.proxy.opened() > opened
    assert [type(answer) for answer in left.answers] == [StoreClosedError] * 2
    time.sleep(BEFORE_THE_NEXT_TRY[backend])
    assert [seen for seen in behind.proxy.seen() if seen.opened > closed] == []
    assert behind.proxy.connections() == 0


@pytest.mark.parametrize("backend", ["gs", "s3"])
@both_ways
def test_a_write_finishes_when_the_fault_is_over(how: How, backend: str, proxies: Proxies) -> None:
    """A server that hangs and comes to itself while the store is left: the write returns, and is whole."""
    behind = proxies.before(backend)
    content = random.Random(how).randbytes(100_000)
    key = f"finished-{how}"
    timer = threading.Timer(0.5, behind.proxy.show, ["pass"])

    async def write_and_hope(store: ManagedStore) -> bool:
        timer.start()
        return bool(await writing(key, content)(store) == content)

    error = BodyError()
    left = leave(how, behind, "hang", [write_and_hope], close_timeout=5, error=error)
    timer.join()
    assert left.raised is error
    assert left.answers == [True]
    assert left.sockets == 0
    assert behind.contents([key]) == {key: content}


async def write_all(store: ManagedStore, contents: dict[str, bytes]) -> list[Any]:
    """Write them all at the same time; what each write returned or raised."""
    return await asyncio.gather(
        *(writing(key, content)(store) for key, content in contents.items()), return_exceptions=True
    )


def write_and_leave(
    how: How, store: ManagedStore, contents: dict[str, bytes], moment: Callable[[], None], fails: bool
) -> list[Any]:
    """Begin to write, and leave the store after a `moment`, which blocks."""
    error = BodyError() if fails else None
    caught: BaseException | None = None
    answers: list[Any] = []

    async def leave_asynchronously() -> None:
        try:
            async with store:
                await read(store)  # making a client of s3fs takes longer than the moment
                task = asyncio.create_task(write_all(store, contents))
                await asyncio.to_thread(moment)
                if error is not None:
                    raise error
        finally:
            answers.extend(await asyncio.wait_for(task, 1))

    def leave_synchronously() -> None:
        thread = threading.Thread(target=lambda: answers.extend(sync(write_all(store, contents))))
        try:
            with store:
                sync(read(store))
                thread.start()
                moment()
                if error is not None:
                    raise error
        finally:
            thread.join(1)

    try:
        if how == "async":
            asyncio.run(leave_asynchronously())
        else:
            leave_synchronously()
    except StoreCloseError:  # the loop was busy with the writes for all the time there was to close
        pass
    except BodyError as raised:
        caught = raised
    assert caught is error
    return answers


def all_closed(behind: Behind) -> bool:
    """Whether no socket is left, soon."""
    deadline = time.monotonic() + 2
    while sockets_to(behind.proxy.port) and time.monotonic() < deadline:
        time.sleep(0.01)
    return sockets_to(behind.proxy.port) == 0


ROUNDS = 10
SIZES = [1, 1000, 50_000, 300_000, 2_000_000, 6_000_000]  # gcsfs sends the last one in several requests


@pytest.mark.parametrize("backend", ["gs", "s3"])
@both_ways
def test_writes_that_return_are_whole(how: How, backend: str, proxies: Proxies) -> None:
    """Writes that are cut off at any moment, by leaving or by a fault and then by leaving: whole, or an error."""
    behind = proxies.before(backend)
    chance = random.Random(f"{how} {backend}")
    written: dict[str, bytes] = {}  # what has returned; no more is kept of a round, each is of eight megabytes
    unfair: list[BaseException] = []
    refused = False
    for number in range(4 * ROUNDS):
        if number >= ROUNDS and written:
            break
        patience = 1 + number // ROUNDS  # a busy machine may need longer for the first that returns
        fault = cast("Fault", chance.choice(["pass", "pass", "refuse", "reset", "truncate", "vanish"]))
        moments = chance.uniform(0, 0.06) * patience**2, chance.uniform(0, 0.03)

        def moment(fault: Fault = fault, moments: tuple[float, float] = moments) -> None:
            time.sleep(moments[0])
            behind.proxy.show(fault)
            time.sleep(moments[1])

        contents = {f"{how}-{number}-{size}": chance.randbytes(size) for size in SIZES}
        store = behind.store(close_timeout=chance.choice([0, 0.02, 0.1]))
        answers = write_and_leave(how, store, contents, moment, fails=chance.random() < 0.5)
        behind.proxy.show("pass")
        assert all_closed(behind)
        for (key, content), answer in zip(contents.items(), answers, strict=True):
            if isinstance(answer, bytes):
                written[key] = content
            else:
                refused |= isinstance(answer, StoreClosedError)
                unfair += [] if is_fair(answer) else [answer]
    held = behind.contents(list(written))
    assert [key for key in written if held[key] != written[key]] == []
    assert unfair == []
    # Else nothing was tested.
    assert written
    assert refused


LISTINGS: dict[str, Callable[[ManagedStore], AsyncIterator[str]]] = {
    "list": lambda store: store.list(),
    "list_prefix": lambda store: store.list_prefix("folder/"),
}


@pytest.fixture
def listed(backend: str, proxies: Proxies) -> Behind:
    """A place with several keys in a folder."""
    behind = proxies.before(backend)
    with behind.store(close_timeout=5, direct=True) as store:
        sync(write_all(store, {f"folder/{number}": b"x" for number in range(3)}))
    return behind


@pytest.mark.parametrize("held", [True, False], ids=["held", "dropped"])
@pytest.mark.parametrize("name", LISTINGS)
@pytest.mark.parametrize("backend", ["http", "gs", "s3"])
@both_ways
def test_a_half_consumed_listing_is_not_in_flight(
    how: How, backend: str, name: str, held: bool, listed: Behind
) -> None:
    """It was advanced once: leaving does not wait for it, and the rest is keys or StoreClosedError."""
    iterators: list[AsyncIterator[str]] = []
    store = listed.store(close_timeout=10)

    async def advance() -> None:
        iterator = LISTINGS[name](store)
        assert await anext(iterator)
        if held:
            iterators.append(iterator)

    async def finish() -> None:
        try:
            for iterator in iterators:
                assert [key async for key in iterator]
        except StoreClosedError:
            pass

    async def leave_asynchronously() -> float:
        async with store:
            await advance()
            # The server will not help: a request that were still in flight would take all the time.
            listed.proxy.show("hang")
            watch = Stopwatch()
        took = watch.took()
        assert sockets_to(listed.proxy.port) == 0
        await finish()
        return took

    if how == "async":
        took = asyncio.run(leave_asynchronously())
    else:
        with store:
            sync(advance())
            listed.proxy.show("hang")
            watch = Stopwatch()
        took = watch.took()
        assert sockets_to(listed.proxy.port) == 0
        sync(finish())
    assert took < SLACK


@pytest.mark.parametrize("backend", ["http", "gs", "s3"])
@both_ways
def test_a_listing_in_flight_is_cut_off(how: How, backend: str, listed: Behind) -> None:
    """Its request is in flight when the store is left, and hangs."""

    async def keys(store: ManagedStore) -> list[str]:
        return [key async for key in store.list()]

    left = leave(how, listed, "hang", [keys], close_timeout=TIMEOUT)
    left.check(TIMEOUT, None)
    assert [type(answer) for answer in left.answers] == [StoreClosedError]


async def test_a_loop_that_was_busy_is_closed_when_leaving_returns(proxies: Proxies) -> None:
    """Whatever blocks the loop for longer than `close_timeout` (s3fs does, when it makes a client), then it answers."""
    behind = proxies.before("http")
    store = behind.store(close_timeout=0.2)
    await read(store)
    asyncio.get_running_loop().call_soon(time.sleep, 0.4)
    await store.aclose()
    assert sockets_to(behind.proxy.port) == 0
