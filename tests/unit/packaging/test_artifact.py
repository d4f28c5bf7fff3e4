"""An uploaded zip is unpacked without believing a word of it."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
from typing import TYPE_CHECKING

import pytest

from bettong.errors import BadInput, TooLarge
from bettong.packaging.artifact import MAX_DIRECTORY_BYTES, UnpackLimits, require_zip, unpack

if TYPE_CHECKING:
    from pathlib import Path


def archive(path: Path, entries: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path / "upload.zip", "w", method) as zipped:
        for name, content in entries.items():
            entry = zipfile.ZipInfo("placeholder")
            entry.filename = name  # as it is: the constructor would tidy it
            entry.compress_type = method
            zipped.writestr(entry, content)
    return path / "upload.zip"


def with_entry(path: Path, name: str, mode: int, content: bytes = b"") -> Path:
    with zipfile.ZipFile(path / "upload.zip", "w") as zipped:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        zipped.writestr(entry, content)
    return path / "upload.zip"


def test_files_arrive_whole_and_read_only(tmp_path: Path) -> None:
    names = unpack(archive(tmp_path, {"step.py": b"x = 1\n", "data/table.bin": b"\0" * 5000}), tmp_path / "out")

    assert names == ["data/table.bin", "step.py"]
    assert (tmp_path / "out/data/table.bin").read_bytes() == b"\0" * 5000
    modes = {p: stat.S_IMODE(p.stat().st_mode) for p in [tmp_path / "out", *(tmp_path / "out").rglob("*")]}
    assert {m for p, m in modes.items() if p.is_file()} == {0o444}
    assert {m for p, m in modes.items() if p.is_dir()} == {0o555}


def test_junk_is_left_out_but_the_python_version_stays(tmp_path: Path) -> None:
    junk = ["__MACOSX/._step.py", ".DS_Store", "data/.DS_Store", ".git/config", "__pycache__/step.cpython-38.pyc"]
    entries = {name: b"junk" for name in junk} | {"step.py": b"", ".python-version": b"3.10"}

    assert unpack(archive(tmp_path, entries), tmp_path / "out") == [".python-version", "step.py"]


@pytest.mark.parametrize(
    "name",
    [
        "../outside.py",
        "a/../../outside.py",
        "/etc/passwd",
        "..",
        "C:\\windows\\x.py",
        "c:/x.py",
        "..\\outside.py",
        "a//b.py",
        "./step.py",
        ".hidden/../../outside.py",
    ],
)
def test_a_name_that_leads_outside_is_refused_and_nothing_lands_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(BadInput, match="leads outside"):
        unpack(archive(tmp_path, {name: b"owned"}), tmp_path / "in" / "out")
    assert not list(tmp_path.rglob("outside.py"))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    with pytest.raises(BadInput, match=r"'data' is a link or a device"):
        unpack(with_entry(tmp_path, "data", kind | 0o777, b"/etc/passwd"), tmp_path / "out")


def test_a_file_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "upload.zip", "w") as zipped:
        zipped.writestr("step.py", "a = 1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            zipped.writestr("step.py", "a = 2")
    with pytest.raises(BadInput, match=r"holds 'step.py' twice"):
        unpack(tmp_path / "upload.zip", tmp_path / "out")


@pytest.mark.parametrize("names", [["a", "a/b.py"], ["a/b.py", "a"]])
def test_a_name_that_is_a_file_and_a_folder_is_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(BadInput, match="twice"):
        unpack(archive(tmp_path, dict.fromkeys(names, b"x")), tmp_path / "out")


@pytest.mark.parametrize("name", ["line\nbreak.py", "bell\x07.py", "x" * 300 + ".py", "a/" * 600 + "b.py"])
def test_names_that_no_one_could_read_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="too long or holds control characters"):
        unpack(archive(tmp_path, {name: b""}), tmp_path / "out")


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    data = bytearray(archive(tmp_path, {"step.py": b"x = 1"}).read_bytes())
    for signature, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        data[data.index(signature) + offset] |= 1
    (tmp_path / "upload.zip").write_bytes(data)
    with pytest.raises(BadInput, match=r"'step.py' is encrypted"):
        unpack(tmp_path / "upload.zip", tmp_path / "out")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compression_that_cannot_be_unpacked_in_bounded_steps_is_refused(tmp_path: Path, method: int) -> None:
    with pytest.raises(BadInput, match="compressed by method"):
        unpack(archive(tmp_path, {"step.py": b"x"}, method=method), tmp_path / "out")


def test_a_bomb_is_stopped_at_the_limit_of_bytes(tmp_path: Path) -> None:
    bomb = archive(tmp_path, {"zeros.bin": b"\0" * 3_000_000})
    with pytest.raises(TooLarge, match="more than is allowed"):
        unpack(bomb, tmp_path / "out", UnpackLimits(max_bytes=2_000_000))
    assert (tmp_path / "out/zeros.bin").stat().st_size <= 2_000_000


def test_a_bomb_is_stopped_by_its_ratio_however_high_the_limit(tmp_path: Path) -> None:
    bomb = archive(tmp_path, {"zeros.bin": b"\0" * 3_000_000})
    with pytest.raises(TooLarge):
        unpack(bomb, tmp_path / "out", UnpackLimits(ratio_from_bytes=1_000_000))


def test_sizes_in_headers_are_not_believed(tmp_path: Path) -> None:
    """An entry that claims to be small is cut at what it claims or refused; it never grows past the limit."""
    data = bytearray(archive(tmp_path, {"zeros.bin": b"\0" * 3_000_000}).read_bytes())
    data[(at := data.index(b"PK\x01\x02") + 24) : at + 4] = struct.pack("<I", 10)
    (tmp_path / "upload.zip").write_bytes(data)
    with pytest.raises(BadInput, match="damaged"):
        unpack(tmp_path / "upload.zip", tmp_path / "out", UnpackLimits(max_bytes=2_000_000))


def test_too_many_entries_are_refused_before_any_is_written(tmp_path: Path) -> None:
    many = archive(tmp_path, {f"f{n}": b"" for n in range(20)})
    with pytest.raises(TooLarge, match="has 20 entries, more than 10"):
        unpack(many, tmp_path / "out", UnpackLimits(max_entries=10))
    assert not (tmp_path / "out").exists()


def test_a_forged_table_of_contents_is_never_read_into_memory(tmp_path: Path) -> None:
    with (tmp_path / "upload.zip").open("wb") as file:
        file.truncate(MAX_DIRECTORY_BYTES + 100)
        file.seek(0, os.SEEK_END)
        file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, MAX_DIRECTORY_BYTES + 100, 0, 0))
    with pytest.raises(TooLarge, match="table of contents"):
        unpack(tmp_path / "upload.zip", tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip at all", b"PK\x05\x06" + b"\xff" * 18, b"\x80\x04]." * 50])
def test_what_is_not_a_zip_says_so_in_the_words_of_the_wire(content: bytes) -> None:
    with pytest.raises(BadInput) as refused:
        require_zip(io.BytesIO(content))
    assert str(refused.value) == "Not a valid ZIP file."


def test_a_checked_upload_is_left_at_its_start(tmp_path: Path) -> None:
    upload = io.BytesIO(archive(tmp_path, {"step.py": b"x"}).read_bytes())
    require_zip(upload)
    assert upload.tell() == 0


def test_a_cut_or_changed_entry_is_told_by_name(tmp_path: Path) -> None:
    data = bytearray(archive(tmp_path, {"step.py": os.urandom(4000)}, method=zipfile.ZIP_STORED).read_bytes())
    data[1000] ^= 0xFF
    (tmp_path / "upload.zip").write_bytes(data)
    with pytest.raises(BadInput, match=r"'step.py' is damaged"):
        unpack(tmp_path / "upload.zip", tmp_path / "out")
