"""The doctor: what is known of the installed versions, whether the event loops are sound, and a self-test."""

from __future__ import annotations

import json

__all__ = ["doctor"]


def doctor(*, as_json: bool = False, with_self_test: bool = True) -> int:
    """Examine this installation and print what was found.

    Parameters
    ----------
    as_json : bool
        Print JSON instead of text.
    with_self_test : bool
        Try the backends too, which takes some seconds.

    Returns
    -------
    int
        The exit code: 0 if all is sound, 1 if anything is not.
    """
    from managed_store._doctor.event_loops import examine_event_loops
    from managed_store._doctor.report import Report
    from managed_store._doctor.self_test import self_test
    from managed_store._doctor.versions import examine_versions, installed_versions, supported_versions

    report = Report(
        packages=examine_versions(installed_versions(), supported_versions()),
        event_loops=examine_event_loops(),
        self_test=self_test() if with_self_test else [],
    )
    print(json.dumps(report.as_dict(), indent=2) if as_json else report)
    return 1 if report.problems() else 0
