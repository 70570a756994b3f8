"""A pytest plugin: fails tests that leave sessions, sockets, threads or tasks open, and names the lines.

Off unless asked for: by ``--fail-on-leaks``, by ``fail_on_leaks = true`` in pytest's configuration, or for one test by
the fixture `leak_check`. The marker ``@pytest.mark.leaks(allow=...)`` exempts a test. pytest imports this file into
everybody's test run, so it imports nothing else until then.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from managed_store.testing._guard import Guard
    from managed_store.testing._leak_check import leak_check as LeakCheck  # noqa: N812

_GUARD: pytest.StashKey[Guard] = pytest.StashKey()
_BROADER: pytest.StashKey[dict[int, pytest.FixtureDef[Any]]] = pytest.StashKey()
_FAILED: pytest.StashKey[bool] = pytest.StashKey()

_HELP = "fail each test that leaves a session, client, channel, filesystem, event loop, socket, thread or task open"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the setting."""
    group = parser.getgroup("managed-store", "what tests leave open")
    group.addoption("--fail-on-leaks", action="store_true", help=_HELP)
    parser.addini("fail_on_leaks", _HELP, type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker; begin to watch where all tests are checked, before any of them is imported."""
    config.addinivalue_line(
        "markers",
        "leaks(allow=...): what this test may leave open: kinds, such as 'socket', or functions of a Leak; "
        "anything, without an argument.",
    )
    config.stash[_BROADER] = {}
    if _is_on(config):
        _guard(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop watching."""
    guard = config.stash.get(_GUARD, None)
    if guard is not None:
        del config.stash[_GUARD]
        guard.end()


@pytest.fixture
def leak_check(request: pytest.FixtureRequest) -> LeakCheck:
    """Fail this test if it leaves anything open, also where that is not asked for of all tests.

    Its fixtures are looked at with it, whatever the order in which they are set up. The value is the
    `managed_store.testing.leak_check` that is on: ``leak_check.so_far()`` returns what is open by now.
    """
    return _guard(request.config).check_of(request.node)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    """Begin to check a test, before its fixtures are set up."""
    wrong = None
    item.stash[_FAILED] = False  # it may be run again, by other plugins
    guard = item.config.stash.get(_GUARD, None)
    if guard is not None and guard.of_all_tests:
        wrong = guard.begin_test(item)
    elif "leak_check" in getattr(item, "fixturenames", ()):
        wrong = _guard(item.config).begin_test(item)
    result = yield
    if wrong is not None:  # not before the hooks of others have run: they rely on it
        pytest.fail(wrong, pytrace=False)
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, Any, Any]:
    """Look what the test has left open, after its fixtures have been torn down."""
    guard = item.config.stash.get(_GUARD, None)
    of_test = of_session = ""
    raised = True
    try:
        result = yield
        raised = False
    finally:
        if guard is not None:
            of_test = guard.end_test(item)
            if nextitem is None:
                of_session = guard.end_session()
        if of_test and (raised or item.stash.get(_FAILED, False)):  # the test's own error goes first
            item.add_report_section("teardown", "leaks", of_test)
            of_test = ""
        if of_session and raised:
            item.add_report_section("teardown", "leaks", of_session)
    if of_test or of_session:
        pytest.fail("\n\n".join(filter(None, [of_test, of_session])), pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember whether the test has failed."""
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    """What a fixture of a broader scope opens is not the leak of the test that was the first to use it."""
    if fixturedef.scope == "function":
        return (yield)
    request.config.stash[_BROADER][id(fixturedef)] = fixturedef
    guard = request.config.stash.get(_GUARD, None)
    if guard is None:
        return (yield)
    done = guard.setting_up_a_fixture()
    try:
        return (yield)
    finally:
        done()


def _is_on(config: pytest.Config) -> bool:
    return bool(config.getoption("fail_on_leaks") or config.getini("fail_on_leaks"))


def _guard(config: pytest.Config) -> Guard:
    if _GUARD not in config.stash:
        from managed_store.testing._guard import Guard

        config.stash[_GUARD] = Guard(config.stash[_BROADER], of_all_tests=_is_on(config))
    return config.stash[_GUARD]
