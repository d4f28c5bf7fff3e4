"""What an artifact asks for is read with care: ours for foreign names, nothing local, nothing from version control."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bettong.errors import BadInput
from bettong.packaging.requirements import Requirements, read_requirements

if TYPE_CHECKING:
    from pathlib import Path


def reading(folder: Path, text: str | bytes, *more: str) -> Requirements:
    (folder / "requirements.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_requirements(folder, more)


def test_a_missing_and_an_empty_file_ask_for_nothing(tmp_path: Path) -> None:
    assert read_requirements(tmp_path) == Requirements()
    assert reading(tmp_path, "\n  \n# nothing\n") == Requirements()


def test_comments_continued_lines_markers_extras_and_hashes_are_read(tmp_path: Path) -> None:
    text = """
    statsmodels==0.14.1   # the model
    numpy >= 1.26, \\
        < 2 ; python_version >= "3.9"
    pandas[performance]==2.2.0 \\
        --hash=sha256:aa \\
        --hash=sha256:bb
    """
    assert reading(tmp_path, text).lines == (
        "statsmodels==0.14.1",
        'numpy<2,>=1.26; python_version >= "3.9"',
        "pandas[performance]==2.2.0 --hash=sha256:aa --hash=sha256:bb",
    )


def test_the_uploads_own_list_is_added_and_repeats_are_dropped(tmp_path: Path) -> None:
    assert reading(tmp_path, "scipy\n", "scipy", "patsy>=0.5").lines == ("scipy", "patsy>=0.5")


@pytest.mark.parametrize("text", ["x==1".encode("utf-16"), b"\xef\xbb\xbfx==1\r\n"])
def test_files_written_by_windows_editors_are_read(tmp_path: Path, text: bytes) -> None:
    assert reading(tmp_path, text).lines == ("x==1",)


def test_options_become_uvs(tmp_path: Path) -> None:
    text = "--extra-index-url https://pkg.example/simple\n--find-links=https://pkg.example/w\n--pre\n--no-binary a,b\n"
    assert reading(tmp_path, text).options == (
        *("--index", "https://pkg.example/simple", "--find-links", "https://pkg.example/w"),
        *("--prerelease", "allow", "--no-binary", "a", "--no-binary", "b"),
    )


@pytest.mark.parametrize(
    ("line", "own"),
    [
        ("mac", "bettong-mac"),
        ("Mac==1.0", "bettong-mac"),
        ("bettong_mac==9.9", "bettong-mac"),
        ("wallaroo==2024.4", "bettong-sdk"),
        ("wallaroo[extra]>=2023.1 ; python_version > '3'", "bettong-sdk"),
        ("wallaroo @ https://pkg.example/wallaroo-1-py3-none-any.whl", "bettong-sdk"),
        ("https://pkg.example/wallaroo-2024.4-py3-none-any.whl", "bettong-sdk"),
        ("bettong-sdk", "bettong-sdk"),
    ],
)
def test_our_own_and_the_foreign_names_never_reach_an_index(tmp_path: Path, line: str, own: str) -> None:
    read = reading(tmp_path, f"{line}\npatsy\n")

    assert (read.lines, read.own, len(read.replaced)) == (("patsy",), frozenset({own}), 1)


def test_a_file_inside_the_artifact_may_be_included(tmp_path: Path) -> None:
    (tmp_path / "reqs").mkdir()
    (tmp_path / "reqs/base.txt").write_text("scipy\n-c pins.txt\n")
    (tmp_path / "reqs/pins.txt").write_text("numpy<2\nwallaroo==1\n")

    read = reading(tmp_path, "-r reqs/base.txt\npatsy\n")

    assert (read.lines, read.constraints, read.own) == (("scipy", "patsy"), ("numpy<2",), frozenset())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-e .", "editable"),
        ("--editable=git+https://x/y", "editable"),
        ("-r ../secrets.txt", "not in the artifact"),
        ("-r /etc/passwd", "not in the artifact"),
        ("-c missing.txt", "not in the artifact"),
        ("-r requirements.txt", "includes itself"),
        ("./wheels/x-1-py3-none-any.whl", "machine it was written on"),
        ("x-1-py3-none-any.whl", "machine it was written on"),
        ("/home/ann/x", "machine it was written on"),
        ("x @ file:///home/ann/x.whl", "machine it was written on"),
        ("file:///home/ann/x-1-py3-none-any.whl", "machine it was written on"),
        ("git+https://x.example/y.git", "version control"),
        ("x @ git+ssh://git@x.example/y.git@main", "version control"),
        ("hg+http://x.example/y", "version control"),
        ("x @ http://x.example/x-1-py3-none-any.whl", "'http' URL"),
        ("x @ ftp://x.example/x-1-py3-none-any.whl", "'ftp' URL"),
        ("https://x.example/download", "does not say what it is"),
        ("--find-links /srv/wheels", "no http or https address"),
        ("-f file:///srv/wheels", "no http or https address"),
        ("--index-url", "no http or https address"),
        ("--trusted-host x.example", "not taken"),
        ("--global-option='x'", "not taken"),
        ("--index-url 'https://x", "unclosed quotation"),
        ("--no-binary --upgrade", "names no package"),
        ("x==${SECRET}", "environment variable"),
        ("--index-url https://${TOKEN}@x.example/simple", "environment variable"),
        ("this is not one", "is not a requirement"),
        ("x==", "is not a requirement"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(BadInput, match=r"^requirements.txt (line 2|includes itself)") as refused:
        reading(tmp_path, f"# one\n{line}\n")
    assert said in str(refused.value)


def test_a_link_out_of_the_artifact_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "artifact").mkdir()
    (tmp_path / "outside.txt").write_text("x\n")
    (tmp_path / "artifact/inside.txt").symlink_to(tmp_path / "outside.txt")
    with pytest.raises(BadInput, match="not in the artifact"):
        reading(tmp_path / "artifact", "-r inside.txt\n")


def test_text_that_is_not_utf8_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not text in UTF-8"):
        reading(tmp_path, b"caf\xe9==1")
