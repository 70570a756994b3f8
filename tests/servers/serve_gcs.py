"""What `gcs_server` runs: the part of Google's JSON API that gcsfs asks for, in memory."""

from __future__ import annotations

import base64
import itertools
import json
from contextlib import ExitStack
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from tests.servers import gcs_messages as messages
from tests.servers._aiohttp_server import serve_aiohttp
from tests.servers._child import Announcement, Config, run_child
from tests.servers._ranges import UnsatisfiableRangeError, parse_range
from tests.servers.gcs_objects import Bucket, StoredObject
from tests.servers.gcs_uploads import ResumableUpload

LARGEST_PAGE = 1000


class APIError(Exception):
    """An answer that is an error, as the API words it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = json.dumps({"error": {"code": status, "message": message, "errors": [{"message": message}]}})


class StorageHandler:
    """Answers the requests of the JSON API, about `buckets` that others may serve as well."""

    def __init__(self, buckets: dict[str, Bucket]) -> None:
        self._buckets = buckets
        self._uploads: dict[str, ResumableUpload] = {}
        self._upload_numbers = itertools.count(1)

    async def answer(self, request: web.BaseRequest) -> web.Response:
        # Names are quoted, slashes too: split first, unquote then.
        parts = [unquote(part) for part in request.raw_path.partition("?")[0].strip("/").split("/")]
        # Not request.read(): that refuses more than 1 MiB.
        body = await request.content.read()
        try:
            return self._route(request, parts, body)
        except APIError as error:
            return web.Response(status=error.status, text=error.body, content_type="application/json")
        except messages.BadMessageError as error:
            return web.Response(status=400, text=str(error))

    def _route(self, request: web.BaseRequest, parts: list[str], body: bytes) -> web.Response:
        match parts:
            case ["storage", "v1", "b", *rest]:
                return self._storage(request, rest, body)
            case ["download", "storage", "v1", "b", bucket, "o", name] if request.method == "GET":
                return _content(self._object(bucket, name, request), request)
            case ["upload", "storage", "v1", "b", bucket, "o"]:
                return self._upload(request, self._bucket(bucket), body)
            case ["batch", "storage", "v1"] if request.method == "POST":
                return self._batch(body)
        raise APIError(404, "Not Found")

    def _storage(self, request: web.BaseRequest, rest: list[str], body: bytes) -> web.Response:
        match request.method, rest:
            case "GET", []:
                resources = [bucket.resource() for bucket in self._buckets.values()]
                return _json({"kind": "storage#buckets", "items": resources})
            case "POST", []:
                return self._create_bucket(**json.loads(body))
            case "GET", [bucket]:
                return _json(self._bucket(bucket).resource())
            case "DELETE", [bucket]:
                return self._delete_bucket(bucket)
            case "GET", [bucket, "o"]:
                return self._list(request, self._bucket(bucket))
            case "GET", [bucket, "o", name]:
                stored = self._object(bucket, name, request)
                return _content(stored, request) if request.query.get("alt") == "media" else _json(stored.resource())
            case "PATCH", [bucket, "o", name]:
                stored = self._object(bucket, name, request)
                return _json(self._bucket(bucket).change_fields(stored, json.loads(body)).resource())
            case "DELETE", [bucket, "o", name]:
                self._object(bucket, name, request)
                self._bucket(bucket).delete(name)
                return web.Response(status=204)
            case "POST", [bucket, "o", name, "rewriteTo", "b", to_bucket, "o", to_name]:
                stored = self._object(bucket, name, request, generation="sourceGeneration")
                copy = self._bucket(to_bucket).put(to_name, stored.data, stored.fields)
                size = str(len(copy.data))
                sizes = {"totalBytesRewritten": size, "objectSize": size}
                return _json({"kind": "storage#rewriteResponse", "done": True, **sizes, "resource": copy.resource()})
            case "POST", [bucket, "o", name, "moveTo", "o", to_name]:
                stored = self._object(bucket, name, request, generation="sourceGeneration")
                moved = self._bucket(bucket).put(to_name, stored.data, stored.fields)
                self._bucket(bucket).delete(name)
                return _json(moved.resource())
            case "POST", [bucket, "o", name, "compose"]:
                sources = [self._object(bucket, source["name"], None) for source in json.loads(body)["sourceObjects"]]
                content = b"".join(source.data for source in sources)
                return _json(self._bucket(bucket).put(name, content, {}).resource())
        raise APIError(404, "Not Found")

    def _bucket(self, name: str) -> Bucket:
        if name not in self._buckets:
            raise APIError(404, "The specified bucket does not exist.")
        return self._buckets[name]

    def _object(
        self, bucket: str, name: str, request: web.BaseRequest | None, *, generation: str = "generation"
    ) -> StoredObject:
        stored = self._bucket(bucket).get(name)
        wanted = request.query.get(generation) if request else None
        if stored is None or (wanted and wanted != str(stored.generation)):
            raise APIError(404, f"No such object: {bucket}/{name}")
        return stored

    def _create_bucket(self, name: str, **settings: Any) -> web.Response:
        if name in self._buckets:
            raise APIError(409, "Your previous request to create the named bucket succeeded and you already own it.")
        self._buckets[name] = Bucket(name, settings)
        return _json(self._buckets[name].resource())

    def _delete_bucket(self, name: str) -> web.Response:
        if len(self._bucket(name)):
            raise APIError(409, "The bucket you tried to delete is not empty.")
        del self._buckets[name]
        return web.Response(status=204)

    def _list(self, request: web.BaseRequest, bucket: Bucket) -> web.Response:
        query = request.query
        token = query.get("pageToken", "")
        page = bucket.page(
            prefix=query.get("prefix", ""),
            delimiter=query.get("delimiter", ""),
            start=base64.urlsafe_b64decode(token).decode() if token else query.get("startOffset", ""),
            end=query.get("endOffset", ""),
            limit=max(1, min(int(query.get("maxResults", LARGEST_PAGE)), LARGEST_PAGE)),
        )
        listing: dict[str, Any] = {"kind": "storage#objects"}
        if page.objects:
            listing["items"] = [stored.resource() for stored in page.objects]
        if page.prefixes:
            listing["prefixes"] = page.prefixes
        if page.next_start is not None:
            listing["nextPageToken"] = base64.urlsafe_b64encode(page.next_start.encode()).decode()
        return _json(listing)

    def _upload(self, request: web.BaseRequest, bucket: Bucket, body: bytes) -> web.Response:
        query = request.query
        match request.method, query.get("uploadType"):
            case "POST", "multipart":
                fields, content = messages.split_multipart_upload(request.headers.get("Content-Type", ""), body)
                return self._write(bucket, fields.get("name") or query["name"], content, fields, query)
            case "POST", "media":
                fields = {"contentType": request.headers.get("Content-Type", "application/octet-stream")}
                return self._write(bucket, query["name"], body, fields, query)
            case "POST", "resumable" if "upload_id" not in query:
                fields = json.loads(body) if body else {}
                fields.setdefault("contentType", request.headers.get("X-Upload-Content-Type"))
                upload_id = f"upload-{next(self._upload_numbers)}"
                self._uploads[upload_id] = ResumableUpload(fields.get("name") or query["name"], fields, dict(query))
                address = request.url.update_query(upload_id=upload_id)
                return web.Response(headers={"Location": str(address), "X-GUploader-UploadID": upload_id})
        upload_id = query.get("upload_id", "")
        if upload_id not in self._uploads:
            raise APIError(404, "No such upload")
        upload = self._uploads[upload_id]
        if request.method == "DELETE":
            del self._uploads[upload_id]
            return web.Response(status=499)
        upload.receive(body, messages.parse_content_range(request.headers.get("Content-Range"), len(body)))
        if not upload.complete:
            # 308 without a Location is not a redirect: it asks for the rest.
            return web.Response(status=308, headers=upload.progress_headers())
        answer = self._write(bucket, upload.name, bytes(upload.received), upload.fields, upload.query)
        del self._uploads[upload_id]
        return answer

    def _write(self, bucket: Bucket, name: str, content: bytes, fields: dict[str, Any], query: Any) -> web.Response:
        if "ifGenerationMatch" in query:
            stored = bucket.get(name)
            if str(stored.generation if stored else 0) != query["ifGenerationMatch"]:
                raise APIError(412, "At least one of the pre-conditions you specified did not hold.")
        return _json(bucket.put(name, content, fields).resource())

    def _batch(self, body: bytes) -> web.Response:
        statuses: list[tuple[int, str]] = []
        for bucket, name in messages.batched_deletions(body):
            try:
                self._object(bucket, name, None)
                self._bucket(bucket).delete(name)
                statuses.append((204, ""))
            except APIError as error:
                statuses.append((error.status, error.body))
        content_type, answer = messages.batch_answer(statuses)
        return web.Response(body=answer, headers={"Content-Type": content_type})


def _json(resource: dict[str, Any]) -> web.Response:
    return web.Response(body=json.dumps(resource).encode(), content_type="application/json")


def _content(stored: StoredObject, request: web.BaseRequest) -> web.Response:
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Type": stored.fields.get("contentType") or "application/octet-stream",
        "ETag": f'"{stored.generation}"',
        "X-Goog-Generation": str(stored.generation),
        "X-Goog-Hash": f"md5={stored.md5}",
    }
    size = len(stored.data)
    try:
        wanted = parse_range(request.headers.get("Range"), size)
    except UnsatisfiableRangeError:
        # gcsfs looks for "not satisfiable" in this text.
        return web.Response(
            status=416, text="Request range not satisfiable", headers={"Content-Range": f"bytes */{size}"}
        )
    if wanted is None:
        return web.Response(body=stored.data, headers=headers)
    headers["Content-Range"] = wanted.content_range(size)
    return web.Response(status=206, body=stored.data[wanted.start : wanted.stop], headers=headers)


def serve(config: Config, cleanup: ExitStack) -> Announcement:
    return serve_aiohttp(StorageHandler({}).answer, config, cleanup)


if __name__ == "__main__":
    run_child(serve)
