"""URLs without their secrets, for every message, repr and log line of this package."""

from __future__ import annotations

import re

__all__ = ["redacted"]

# A chain is split only where a protocol follows, so that "::" inside a password does not cut the password in two.
_LINK = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.\-]*://|[a-z]+(?:::|$))")


def redacted(url: str) -> str:
    """Return `url` with the user info, query string and fragment of each of its parts taken out.

    Parameters
    ----------
    url : str
        A URL, a chain of URLs (``"simplecache::https://…"``), or a plain path.

    Returns
    -------
    str
        The same URL with ``***`` where something was taken out. A plain path comes back as it is, if it cannot be a
        mistyped URL.

    Examples
    --------
    >>> redacted("https://user:password@host/a.zarr?signature=x")
    'https://***@host/a.zarr?***'
    """
    if "://" not in url and "::" not in url:
        return _redacted_part(url)
    before, mark, after = _before_first(url, "?#")
    if "@" in after:  # of a query, or of a password with "?" or "#" in it: then all that comes before may be secret
        return f"{url.partition('://')[0]}://***"
    return "::".join(_redacted_part(part) for part in _LINK.split(before)) + (f"{mark}***" if mark else "")


def _redacted_part(part: str) -> str:
    # To the last "@" of all: a password may hold "/", and hiding too much is the safe side.
    before, _, rest = part.rpartition("@")
    protocol, separator, _user_info = before.partition("://")
    if separator:
        return f"{protocol}://***@{rest}"
    # Without a protocol it is a path, in which "@" is a letter like any other; but a URL can be mistyped.
    return f"***@{rest}" if ":" in before else part


def _before_first(text: str, marks: str) -> tuple[str, str, str]:
    positions = [text.index(mark) for mark in marks if mark in text]
    if not positions:
        return text, "", ""
    first = min(positions)
    return text[:first], text[first], text[first + 1 :]
