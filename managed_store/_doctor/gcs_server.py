"""As much of Google's JSON API for storage as gcsfs needs to read an array: the objects of a bucket, from a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

from managed_store._demo_server import serve

__all__ = ["serve_bucket"]


@contextmanager
def serve_bucket(folder: Path) -> Iterator[str]:
    """Serve the files in `folder` as the objects of the bucket ``bucket``, and give the endpoint's URL."""

    async def answer(request: web.Request) -> web.StreamResponse:
        # ``download/storage/v1/b/bucket/o/NAME?alt=media``, and without ``download`` what is known of the object.
        _, found, name = request.match_info["path"].partition("storage/v1/b/bucket/o/")
        path = folder / name
        if not found or not path.is_file():
            return web.json_response({"error": {"code": 404, "message": "Not Found"}}, status=404)
        if request.query.get("alt") == "media":
            return web.FileResponse(path)
        return web.json_response({"name": name, "bucket": "bucket", "size": str(path.stat().st_size)})

    with serve(answer) as url:
        yield url
