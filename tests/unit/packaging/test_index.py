"""pip's settings are handed on to uv."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bettong.packaging.index import from_pip

if TYPE_CHECKING:
    from pathlib import Path


def configured(folder: Path, text: str, **variables: str) -> list[str]:
    (folder / "pip.conf").write_text(text)
    variables |= {"PIP_CONFIG_FILE": str(folder / "pip.conf"), "XDG_CONFIG_DIRS": str(folder / "none")}
    return from_pip(variables, home=folder / "home", prefix=folder / "prefix").arguments


def test_indexes_and_find_links_of_the_file_are_handed_on(tmp_path: Path) -> None:
    text = "[global]\nindex-url = https://a.example/simple\nextra_index_url =\n  https://b.example/s\n  file:///srv/s\n"
    assert configured(tmp_path, f"{text}[install]\nfind-links = /srv/wheels\nno-index = true\n") == [
        *("--no-index", "--default-index", "https://a.example/simple"),
        *("--index", "https://b.example/s", "--index", "file:///srv/s", "--find-links", "/srv/wheels"),
    ]


def test_variables_win_over_files(tmp_path: Path) -> None:
    words = configured(tmp_path, "[global]\nfind-links = /from/file\n", PIP_FIND_LINKS="/from/variable")
    assert words == ["--find-links", "/from/variable"]


def test_a_file_that_cannot_be_read_counts_as_absent(tmp_path: Path) -> None:
    assert configured(tmp_path, "find-links without a section") == []


def test_credentials_stay_out_of_its_repr(tmp_path: Path) -> None:
    options = from_pip({"PIP_INDEX_URL": "https://ann:secret@a.example/simple"}, home=tmp_path, prefix=tmp_path)
    assert "secret" not in repr(options)
