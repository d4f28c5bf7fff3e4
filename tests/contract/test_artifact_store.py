"""What every artifact store promises: a folder of this machine, and anything fsspec reaches."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from uuid import uuid4

import fsspec
import pytest

from bettong.artifacts.store import Artifacts, open_artifacts
from bettong.errors import BadInput, NotFound, StorageFull, TooLarge, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = os.urandom(3 * 2**20 + 17)  # more than one chunk, and no whole number of them
SHA = hashlib.sha256(CONTENT).hexdigest()
NONE = "0" * 64


@pytest.fixture(params=["folder", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "artifacts") if request.param == "folder" else f"memory://artifacts-{uuid4().hex}"


@pytest.fixture
def artifacts(url: str) -> Artifacts:
    return open_artifacts(url)


def test_what_was_put_is_fetched_under_its_hash_also_after_a_restart(
    artifacts: Artifacts, url: str, tmp_path: Path
) -> None:
    assert artifacts.put(io.BytesIO(CONTENT), max_bytes=len(CONTENT)) == (SHA, len(CONTENT))

    reopened = open_artifacts(url)
    to = tmp_path / "model.zip"

    assert reopened.exists(SHA)
    assert reopened.fetch(SHA, to) == to
    assert to.read_bytes() == CONTENT
    assert stat.S_IMODE(to.stat().st_mode) == 0o600


def test_the_empty_file_is_a_file(artifacts: Artifacts, tmp_path: Path) -> None:
    sha, size = artifacts.put(io.BytesIO(b""), max_bytes=0)

    assert (sha, size) == (hashlib.sha256(b"").hexdigest(), 0)
    assert artifacts.fetch(sha, tmp_path / "empty").read_bytes() == b""


def test_a_stream_beyond_the_limit_is_refused_and_nothing_is_kept(artifacts: Artifacts, url: str) -> None:
    with pytest.raises(TooLarge, match=f"more than {len(CONTENT) - 1} bytes"):
        artifacts.put(io.BytesIO(CONTENT), max_bytes=len(CONTENT) - 1)

    assert not artifacts.exists(SHA)
    assert stored_files(url) == []


def test_the_same_bytes_are_kept_once_however_many_bring_them(artifacts: Artifacts, url: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        results = set(threads.map(lambda _: artifacts.put(io.BytesIO(CONTENT), max_bytes=2**30), range(8)))

    assert results == {(SHA, len(CONTENT))}
    assert [name.rpartition("/")[2] for name in stored_files(url)] == [SHA]


def test_a_stream_that_breaks_leaves_nothing(artifacts: Artifacts, url: str) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 2**20:
                raise RuntimeError("the client went away")
            return super().read(size)

    with pytest.raises(RuntimeError, match="went away"):
        artifacts.put(Broken(CONTENT), max_bytes=2**30)
    assert stored_files(url) == []


def test_what_is_not_there_is_not_found_and_no_path_is_ever_taken_for_a_hash(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    to = tmp_path / "out"
    for sha in (NONE, "", "..", "../" * 3 + "etc/passwd", NONE.upper() + "/x", SHA[:-1] + "\n"):
        assert not artifacts.exists(sha)
        with pytest.raises(NotFound, match="No artifact has the SHA-256"):
            artifacts.fetch(sha, to)
    assert not to.exists()


def test_a_damaged_artifact_is_named_not_given_and_mended_by_another_upload(
    artifacts: Artifacts, url: str, tmp_path: Path
) -> None:
    artifacts.put(io.BytesIO(CONTENT), max_bytes=2**30)
    (name,) = stored_files(url)
    damage(url, name)
    to = tmp_path / "out"

    with pytest.raises(Unavailable, match=f"Artifact {SHA} is damaged"):
        artifacts.fetch(SHA, to)
    assert list(tmp_path.glob("*out*")) == []

    artifacts.put(io.BytesIO(CONTENT), max_bytes=2**30)
    assert artifacts.fetch(SHA, to).read_bytes() == CONTENT


def test_a_full_disk_is_said_so_and_leaves_nothing(
    artifacts: Artifacts, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        with pytest.raises(StorageFull, match="disk for artifacts is full"):
            artifacts.put(io.BytesIO(CONTENT), max_bytes=2**30)

    assert not artifacts.exists(SHA)
    assert stored_files(url) == []


def test_a_local_store_is_private_to_its_owner(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    open_artifacts(str(root)).put(io.BytesIO(b"model"), max_bytes=10)

    assert [path for path in [root, *root.rglob("*")] if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


def test_opening_a_local_store_drops_what_killed_uploads_left_long_ago(tmp_path: Path) -> None:
    open_artifacts(f"file://{tmp_path}")
    old, young = tmp_path / "incoming" / "old", tmp_path / "incoming" / "young"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))

    open_artifacts(f"file://{tmp_path}")

    assert not old.exists()
    assert young.exists()


def test_a_scheme_nobody_installed_is_bad_input() -> None:
    with pytest.raises(BadInput, match="scheme 'nonsense' cannot be used"):
        open_artifacts("nonsense://bucket")


def stored_files(url: str) -> list[str]:
    files, root = fsspec.url_to_fs(url)
    return [str(name) for name in files.find(root)] if files.exists(root) else []


def damage(url: str, name: str) -> None:
    """Change a byte, not the length: only the hash can tell."""
    files, _ = fsspec.url_to_fs(url)
    files.pipe_file(name, bytes([CONTENT[0] ^ 1]) + CONTENT[1:])
