"""The bodies of Google's JSON API that are more than JSON: multipart uploads, batches, partial contents."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_BATCH_REQUEST = re.compile(r"^DELETE /storage/v1/b/([^/\s]+)/o/([^\s?]+)(?:\?\S*)? HTTP/", re.MULTILINE)


class BadMessageError(ValueError):
    """A body or header that the server cannot read: to be answered with status 400."""


def split_multipart_upload(content_type: str, body: bytes) -> tuple[dict[str, Any], bytes]:
    """The fields and the content of an upload in one request.

    Not by a MIME parser: gcsfs ends its lines with a bare line feed, and the content may be anything.
    """
    mark = b"--" + _boundary(content_type).encode()
    newline = b"\r\n" if body.startswith(mark + b"\r\n") else b"\n"
    try:
        fields_start = body.index(newline * 2) + 2 * len(newline)
        fields_stop = body.index(newline + mark, fields_start)
        content_head = fields_stop + len(newline + mark + newline)
        content_start = body.index(newline * 2, content_head) + 2 * len(newline)
        content_stop = body.rindex(newline + mark + b"--")
        fields: dict[str, Any] = json.loads(body[fields_start:fields_stop])
    except ValueError as error:
        raise BadMessageError("multipart body cannot be read") from error
    head = body[content_head:content_start].decode("latin-1")
    if declared := re.search(r"^content-type:\s*(\S.*?)\s*$", head, re.IGNORECASE | re.MULTILINE):
        fields.setdefault("contentType", declared[1])
    return fields, body[content_start:content_stop]


def batched_deletions(body: bytes) -> list[tuple[str, str]]:
    """The bucket and object names which a batch asks to delete, in order."""
    return [(unquote(bucket), unquote(name)) for bucket, name in _BATCH_REQUEST.findall(body.decode())]


def batch_answer(statuses: list[tuple[int, str]]) -> tuple[str, bytes]:
    """The Content-Type and the body that answer a batch, from the status and the JSON of each request."""
    boundary = "batch_of_answers"
    parts = [
        f"--{boundary}\r\nContent-Type: application/http\r\nContent-ID: <response-{number}>\r\n\r\n"
        f"HTTP/1.1 {status} {'No Content' if status == 204 else 'Error'}\r\n"
        f"Content-Type: application/json\r\n\r\n{answer}\r\n"
        for number, (status, answer) in enumerate(statuses, start=1)
    ]
    return f"multipart/mixed; boundary={boundary}", "".join([*parts, f"--{boundary}--\r\n"]).encode()


@dataclass(frozen=True)
class ContentRange:
    """Where a chunk of a resumable upload belongs; a total of None means that more chunks follow."""

    start: int | None
    total: int | None


def parse_content_range(header: str | None, length: int) -> ContentRange:
    """Read a Content-Range; none at all means that the `length` bytes sent are the whole content."""
    if header is None:
        return ContentRange(0, length)
    match = _CONTENT_RANGE.fullmatch(header)
    if match is None:
        raise BadMessageError("Content-Range cannot be read")
    start, _, total = match.groups()
    return ContentRange(None if start is None else int(start), None if total == "*" else int(total))


def _boundary(content_type: str) -> str:
    match = re.search(r'boundary="?([^";]+)"?', content_type)
    if match is None:
        raise BadMessageError("Content-Type names no boundary")
    return match[1]
