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
        The same URL with ``***`` where something was taken out. A plain path comes back as it is.

    Examples
    --------
    >>> redacted("https://user:password@host/a.zarr?signature=x")
    'https://***@host/a.zarr?***'
    """
    return "::".join(_redacted_part(part) for part in _LINK.split(url))


def _redacted_part(part: str) -> str:
    protocol, separator, rest = part.partition("://")
    if not separator:
        return part
    _user_info, at, rest = rest.rpartition("@")
    # To the last "@" of all: a password may hold "/", "?" or "#", and hiding too much is the safe side.
    rest, mark, _ = _before_first(rest, "?#")
    return f"{protocol}://{'***@' if at else ''}{rest}{mark}{'***' if mark else ''}"


def _before_first(text: str, marks: str) -> tuple[str, str, str]:
    positions = [text.index(mark) for mark in marks if mark in text]
    if not positions:
        return text, "", ""
    first = min(positions)
    return text[:first], text[first], text[first + 1 :]
