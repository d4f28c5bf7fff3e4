"""Buckets as trees of files: what their drivers share, and those of S3 and Azure through obstore."""

from __future__ import annotations

import io
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from bettong.domain.drivers import Entry, Stage, StageResult
from bettong.drivers import egress as reach
from bettong.drivers.file import sampled_files
from bettong.drivers.files import FilesSource, checked
from bettong.drivers.formats import FormatDetails
from bettong.drivers.layers import climb
from bettong.drivers.trees import HIDDEN
from bettong.errors import BadInput, BettongError, Conflict, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from typing import BinaryIO

    from bettong.domain.drivers import Egress
    from bettong.drivers.trees import Tree

PART_BYTES = 8 * 2**20
READ_BYTES = 2**20
MAX_RETRIES = 2


@dataclass(frozen=True, slots=True)
class Place:
    """Where a bucket is, and how to open it: `tree` takes the egress policy and a time for each wait."""

    host: str
    port: int
    secure: bool
    tree: Callable[[Egress, float], AbstractContextManager[Tree]]
    login_host: str = ""  # where a token comes from, if that is another host
    login_port: int = 443


class BucketDetails(FormatDetails):
    """What buckets of every make share."""

    prefix: str = Field("", description="The folder within the bucket that this connection is about.")
    path: str = Field("", description="The file, folder or pattern that is read when nothing else is asked for.")
    endpoint: str = Field("", description="The address of a service of this kind that is not the maker's own.")

    def place(self) -> Place:
        """Raises BadInput when the details do not fit together."""
        raise NotImplementedError


class BucketDriver:
    """What drivers of buckets share."""

    types: ClassVar[tuple[str, ...]]
    title: ClassVar[str]
    extra: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ("obstore",)
    rebinding_safe: ClassVar[bool] = False  # obstore resolves names itself, after they were checked
    details: ClassVar[type[BucketDetails]]
    source: ClassVar[type[FilesSource]] = FilesSource

    @contextmanager
    def open(self, details: BucketDetails, egress: Egress, timeout_s: float) -> Iterator[FilesSource]:
        place = details.place()
        reach.resolve(place.host, place.port, egress)
        if place.login_host:
            reach.resolve(place.login_host, place.login_port, egress)
        with place.tree(egress, timeout_s) as tree:
            yield FilesSource(tree, details, details.path)

    def test(self, details: BucketDetails, egress: Egress, timeout_s: float) -> Iterator[StageResult]:
        from bettong.drivers import web

        known: dict[str, Any] = {}

        def look_up() -> str:
            known["place"] = details.place()
            known["target"] = reach.resolve(known["place"].host, known["place"].port, egress)
            return reach.counted(known["target"])

        def connect() -> str:
            reach.connect(known["target"], timeout_s).close()
            return f"port {known['target'].port} is open"

        def shake_hands() -> str:
            if not known["place"].secure:
                return "not used: the endpoint is http://"
            return web.shake_hands(known["target"], web.tls_context(), timeout_s)

        def log_in() -> str:
            with self.open(details, egress, timeout_s) as source:
                return source.check()

        yield from climb(
            [
                (Stage.DNS, look_up),
                (Stage.TCP, connect),
                (Stage.TLS, shake_hands),
                (Stage.LOGIN, log_in),
                (Stage.PERMISSION, None),
                (Stage.SAMPLE, lambda: sampled_files(self, details, egress, timeout_s)),
            ]
        )


class BucketTree:
    """The objects below a prefix, through obstore."""

    def __init__(self, store: Any, prefix: str) -> None:
        self._store, self._prefix = store, checked(prefix)

    def files(self, folder: str) -> Iterator[str]:
        top = self._key(folder)
        with _translated(folder):
            # In pages, so that a bucket of millions does not lie in memory; it lists in the order of names.
            for page in self._store.list(prefix=top or None):
                for entry in page:
                    path = entry["path"][len(self._prefix) :].lstrip("/") if self._prefix else entry["path"]
                    if not any(part.startswith(HIDDEN) for part in path.split("/")):
                        yield path

    def entries(self, folder: str) -> list[Entry]:
        top = self._key(folder)
        with _translated(folder):
            found = self._store.list_with_delimiter(prefix=top or None)
        folders = [Entry(last_part(path), "folder") for path in found["common_prefixes"]]
        objects = [Entry(last_part(e["path"]), "file", f"{e['size']} bytes") for e in found["objects"]]
        return sorted([*folders, *objects], key=lambda entry: entry.name)

    def is_file(self, path: str) -> bool:
        try:
            with _translated(path):
                self._store.head(self._key(path))
        except NotFound:
            return False
        return True

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        import obstore

        with _translated(path):
            reader = obstore.open_reader(self._store, self._key(path), buffer_size=READ_BYTES)
        yield io.BufferedReader(_Reader(reader, path), READ_BYTES)

    @contextmanager
    def create(self, path: str, *, replace: bool) -> Iterator[BinaryIO]:
        """Written to a temporary file first: an upload that was begun could not be taken back by a killed process."""
        import obstore

        if not replace and self.is_file(path):
            raise Conflict(f"There is a file '{path}' already.", "Use mode replace, or another name.")
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            with _translated(path):
                obstore.put(self._store, self._key(path), file, chunk_size=PART_BYTES, max_concurrency=2)

    def remove(self, path: str) -> None:
        with _translated(path):
            self._store.delete(self._key(path))

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}".strip("/") if self._prefix else path


class _Reader(io.RawIOBase):
    """obstore's reader as a file, its errors in our words."""

    def __init__(self, reader: Any, path: str) -> None:
        self._reader, self._path = reader, path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        with _translated(self._path):
            return int(self._reader.seek(offset, whence))

    def tell(self) -> int:
        return int(self._reader.tell())

    def readinto(self, space: Any) -> int:
        with _translated(self._path):
            data = memoryview(self._reader.read(len(space)))
        space[: len(data)] = data
        return len(data)


def endpoint_parts(endpoint: str) -> tuple[str, int, bool]:
    """Host, port and whether TLS is spoken. Raises BadInput for what is no address."""
    from bettong.drivers import web

    address = web.parse(endpoint)
    return address.host, address.port, address.secure


@contextmanager
def obstore_tree(make: Callable[..., Any], prefix: str, *, secure: bool, timeout_s: float) -> Iterator[BucketTree]:
    """The tree of a store that `make` makes when it is told how long to wait and how often to try."""
    wait = f"{max(1, round(timeout_s * 1000))}ms"
    options = {"connect_timeout": wait, "timeout": wait, "allow_http": not secure}
    retries = {"max_retries": MAX_RETRIES, "retry_timeout": timedelta(seconds=timeout_s)}
    with _translated(""):
        store = make(client_options=options, retry_config=retries)
    yield BucketTree(store, prefix)


def last_part(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


@contextmanager
def _translated(path: str) -> Iterator[None]:
    """obstore's errors name addresses and may hold signatures: only what they are is told."""
    import obstore.exceptions as theirs

    try:
        yield
        return
    except (theirs.BaseError, FileNotFoundError, PermissionError) as failed:
        ours = _in_our_words(failed, path, theirs)
    except (OSError, ValueError):
        ours = Unavailable("The bucket's service does not answer.", "Check endpoint and region, and try again.")
    raise ours


def _in_our_words(failed: Exception, path: str, theirs: Any) -> BettongError:
    if isinstance(failed, (theirs.NotFoundError, FileNotFoundError)):
        return NotFound(f"The bucket, or '{path or '.'}' in it, is not there.", "Check their names.")
    if isinstance(failed, (theirs.UnauthenticatedError, theirs.PermissionDeniedError, PermissionError)):
        return BadInput("The bucket's service refuses this login, or this login may not do that.", "Check the keys.")
    if isinstance(failed, theirs.AlreadyExistsError):
        return Conflict(f"There is a file '{path}' already.", "Use mode replace, or another name.")
    text = str(failed)
    if "403" in text or "401" in text or "InvalidAccessKeyId" in text:
        return BadInput("The bucket's service refuses this login, or this login may not do that.", "Check the keys.")
    if isinstance(failed, (theirs.UnknownConfigurationKeyError, theirs.InvalidPathError)) or "decode" in text.lower():
        return BadInput("The keys or the path are not in the form that the service has.", "Check the details.")
    return Unavailable("The bucket's service does not answer.", "Check endpoint and region, and try again.")
