"""Byte requests, and what servers say of them."""

from __future__ import annotations

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest

__all__ = ["BYTE_REQUESTS", "GONE", "as_slice", "asks_for_nothing", "range_header", "status_of"]

BYTE_REQUESTS = (RangeByteRequest, OffsetByteRequest, SuffixByteRequest)

# The HTTP statuses of what is not there, or not any more.
GONE = (404, 410)


def asks_for_nothing(byte_range: ByteRequest) -> bool:
    if isinstance(byte_range, RangeByteRequest):
        return byte_range.end <= byte_range.start
    return isinstance(byte_range, SuffixByteRequest) and byte_range.suffix == 0


def range_header(byte_range: ByteRequest) -> str:
    if isinstance(byte_range, RangeByteRequest):
        return f"bytes={byte_range.start}-{byte_range.end - 1}"
    if isinstance(byte_range, SuffixByteRequest):
        return f"bytes=-{byte_range.suffix}"
    return f"bytes={byte_range.offset}-"


def as_slice(byte_range: ByteRequest) -> slice:
    """The part of a whole object that was asked for, for a server that ignores ``Range``."""
    if isinstance(byte_range, RangeByteRequest):
        return slice(byte_range.start, byte_range.end)
    if isinstance(byte_range, SuffixByteRequest):
        return slice(-byte_range.suffix, None)
    return slice(byte_range.offset, None)


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error carries: aiohttp calls it `status`, gcsfs `code`, Azure `status_code`."""
    statuses = (getattr(error, name, None) for name in ("status", "code", "status_code"))
    status = next(filter(None, statuses), None)
    return int(status) if isinstance(status, int) or (isinstance(status, str) and status.isdigit()) else None
