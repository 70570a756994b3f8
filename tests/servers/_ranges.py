"""The Range header of RFC 9110, section 14, as far as an object store serves it: one range of bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ONE_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class UnsatisfiableRangeError(Exception):
    """The range holds not one byte of the object: to be answered with status 416."""


@dataclass(frozen=True)
class ByteRange:
    """The bytes from `start` up to but without `stop`."""

    start: int
    stop: int

    def content_range(self, size: int) -> str:
        """The value of the Content-Range header, for an object of `size` bytes."""
        return f"bytes {self.start}-{self.stop - 1}/{size}"


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """What of an object of `size` bytes is asked for; None means all of it.

    A header that is malformed or names several ranges is ignored, as the RFC allows. An empty object
    satisfies no range at all, not even a suffix.
    """
    match = _ONE_RANGE.fullmatch(header.strip()) if header else None
    if match is None:
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None
    if start >= stop:
        raise UnsatisfiableRangeError
    return ByteRange(start, stop)
