"""A bucket of Google Cloud Storage as a tree of files, over its JSON API and our own HTTP: addresses stay checked."""

from __future__ import annotations

import io
import json
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from bettong.domain.drivers import Entry
from bettong.drivers import web
from bettong.drivers.files import checked
from bettong.drivers.google_login import Account, Tokens
from bettong.drivers.objects import last_part
from bettong.drivers.trees import HIDDEN
from bettong.errors import BadInput, BettongError, Conflict, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import BinaryIO

    from bettong.domain.drivers import Egress

SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
READ_BYTES = 4 * 2**20
SEND_BYTES = 2**20
MAX_LIST_BYTES = 64 * 2**20


@contextmanager
def opened(
    endpoint: str, bucket: str, prefix: str, account: Account | None, egress: Egress, timeout_s: float
) -> Iterator[GcsTree]:
    """The bucket's tree, its connections closed at the end. Without an account nobody is said to be asking."""
    with web.Client(egress, timeout_s) as client:
        yield GcsTree(client, endpoint.rstrip("/"), bucket, prefix, Tokens(client, account, SCOPE) if account else None)


class GcsTree:
    def __init__(self, client: web.Client, endpoint: str, bucket: str, prefix: str, tokens: Tokens | None) -> None:
        self._client, self._tokens, self._prefix = client, tokens, checked(prefix)
        self._objects = f"{endpoint}/storage/v1/b/{quote(bucket, safe='')}/o"
        self._uploads = f"{endpoint}/upload/storage/v1/b/{quote(bucket, safe='')}/o"

    def files(self, folder: str) -> Iterator[str]:
        for page in self._pages(folder, "items(name),nextPageToken"):
            for item in page.get("items", []):
                path = item["name"][len(self._prefix) :].lstrip("/") if self._prefix else item["name"]
                if not path.endswith("/") and not any(part.startswith(HIDDEN) for part in path.split("/")):
                    yield path

    def entries(self, folder: str) -> list[Entry]:
        found: list[Entry] = []
        for page in self._pages(folder, "items(name,size),prefixes,nextPageToken", delimiter="/"):
            found += [Entry(last_part(path), "folder") for path in page.get("prefixes", [])]
            found += [
                Entry(last_part(item["name"]), "file", f"{item['size']} bytes")
                for item in page.get("items", [])
                if not item["name"].endswith("/")
            ]
        return sorted(found, key=lambda entry: entry.name)

    def is_file(self, path: str) -> bool:
        try:
            self._size(path)
        except NotFound:
            return False
        return True

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        yield io.BufferedReader(_Object(self, path, self._size(path)), READ_BYTES)

    @contextmanager
    def create(self, path: str, *, replace: bool) -> Iterator[BinaryIO]:
        """Written to a temporary file first: what is sent is there at once, and whole."""
        if not replace and self.is_file(path):  # before the work; the service looks again when it is done
            raise _taken(path)
        with tempfile.TemporaryFile() as file:
            yield file
            size = file.tell()
            file.seek(0)
            query = {"uploadType": "media", "name": self._key(path), **({} if replace else {"ifGenerationMatch": "0"})}
            headers = {"content-type": "application/octet-stream", "content-length": str(size)}
            chunks = iter(lambda: file.read(SEND_BYTES), b"")
            with self._send("POST", f"{self._uploads}?{urlencode(query)}", headers, chunks) as answer:
                if answer.status == 412:
                    raise _taken(path)
                _check(answer, path)

    def remove(self, path: str) -> None:
        with self._send("DELETE", self._url(path)) as answer:
            if answer.status != 404:
                _check(answer, path)

    def part(self, path: str, start: int, size: int) -> bytes:
        """Bytes from the middle of an object, `size` of them at most."""
        headers = {"range": f"bytes={start}-{start + size - 1}", "accept-encoding": "identity"}
        with self._send("GET", f"{self._url(path)}?alt=media", headers, max_bytes=size) as answer:
            _check(answer, path)
            return b"".join(answer.chunks)

    def _pages(self, folder: str, fields: str, **more: str) -> Iterator[dict[str, Any]]:
        top = self._key(folder)
        query = {"prefix": f"{top}/" if top else "", "fields": fields, **more}
        while True:
            page = self._json(f"{self._objects}?{urlencode(query)}", folder)
            yield page
            if not (token := page.get("nextPageToken")):
                return
            query["pageToken"] = token

    def _size(self, path: str) -> int:
        return int(self._json(f"{self._url(path)}?fields=size", path)["size"])

    def _json(self, url: str, path: str) -> dict[str, Any]:
        with self._send("GET", url, max_bytes=MAX_LIST_BYTES) as answer:
            _check(answer, path)
            try:
                found = json.loads(b"".join(answer.chunks))
            except ValueError:
                found = None
        if not isinstance(found, dict):
            raise Unavailable("The bucket's service gives an answer that is none.", "Check endpoint.")
        return found

    @contextmanager
    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        content: Iterator[bytes] | None = None,
        *,
        max_bytes: int = web.MAX_SMALL_BYTES,
    ) -> Iterator[web.Answer]:
        login = {"authorization": f"Bearer {self._tokens.current()}"} if self._tokens else {}
        with self._client.send(
            method, web.parse(url), {**login, **(headers or {})}, content, max_bytes=max_bytes
        ) as answer:
            yield answer

    def _url(self, path: str) -> str:
        return f"{self._objects}/{quote(self._key(path), safe='')}"

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}".strip("/") if self._prefix else path


class _Object(io.RawIOBase):
    """An object as a file in which one can go back and forth."""

    def __init__(self, tree: GcsTree, path: str, size: int) -> None:
        self._tree, self._path, self._size, self._at = tree, path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, space: Any) -> int:
        wanted = min(len(space), self._size - self._at)
        if wanted <= 0:
            return 0
        data = self._tree.part(self._path, self._at, wanted)
        space[: len(data)] = data
        self._at += len(data)
        return len(data)


def _taken(path: str) -> Conflict:
    return Conflict(f"There is a file '{path}' already.", "Use mode replace, or another name.")


def _check(answer: web.Answer, path: str) -> None:
    if answer.status < 300:
        return
    raise _refused(answer.status, path)


def _refused(status: int, path: str) -> BettongError:
    if status == 404:
        return NotFound(f"The bucket, or '{path or '.'}' in it, is not there.", "Check their names.")
    if status in (401, 403):
        return BadInput("The bucket's service refuses this login, or this login may not do that.", "Check its rights.")
    if status == 429 or status >= 500:
        return Unavailable(f"The bucket's service answers with status {status}.", "Try again in a moment.")
    return BadInput(f"The bucket's service answers with status {status}.", "Check bucket and path.")
