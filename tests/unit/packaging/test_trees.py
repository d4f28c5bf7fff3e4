"""Locks between builders, and trees that only we can take apart."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from bettong.errors import Unavailable
from bettong.packaging.trees import exclusive, make_read_only, remove_tree

if TYPE_CHECKING:
    from pathlib import Path


def test_a_lock_has_one_holder_at_a_time(tmp_path: Path) -> None:
    order: list[str] = []
    waiting = threading.Event()

    def second() -> None:
        with exclusive(tmp_path / "lock", wait_s=30, on_wait=waiting.set):
            order.append("second")

    with exclusive(tmp_path / "lock", wait_s=0):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(30)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]


def test_waiting_ends_with_words(tmp_path: Path) -> None:
    with (
        exclusive(tmp_path / "lock", wait_s=0),
        pytest.raises(Unavailable, match="Another build holds 'lock'"),
        exclusive(tmp_path / "lock", wait_s=0),
    ):
        raise AssertionError("two holders")


def test_a_child_that_was_handed_the_lock_keeps_it_after_its_parent_let_go(tmp_path: Path) -> None:
    with exclusive(tmp_path / "lock", wait_s=0) as held:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(held,))
    with child, pytest.raises(Unavailable), exclusive(tmp_path / "lock", wait_s=0):
        raise AssertionError("two holders")
    with exclusive(tmp_path / "lock", wait_s=30):
        pass


def test_a_read_only_tree_has_no_write_bit_and_can_be_removed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b/file").write_text("x")
    (tmp_path / "outside").write_text("x")
    (tree / "a/link").symlink_to(tmp_path / "outside")

    make_read_only(tree)

    assert not [p for p in [tree, *tree.rglob("*")] if not p.is_symlink() and p.stat().st_mode & 0o222]
    assert os.stat(tmp_path / "outside").st_mode & 0o200
    remove_tree(tree)
    remove_tree(tree)
    assert not tree.exists()
    assert (tmp_path / "outside").exists()
