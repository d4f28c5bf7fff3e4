"""The key ring: what opens, what does not, and that no key is ever made or lost in silence."""

from __future__ import annotations

import base64
import copy
import os
import pickle
import stat
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from bettong.errors import BadInput, Unavailable
from bettong.secrets.keyring import CANARY, KEY_FILE, KeyRing, KeyUnavailable, check_canary, open_ring

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO, THREE = (bytes([n]) * 32 for n in (1, 2, 3))
PLAIN = b'{"password": "hunter2"}'


class Facts(dict[str, bytes]):
    """A fact store in memory."""

    def put(self, name: str, value: bytes) -> None:
        self[name] = value


def text(key: bytes) -> str:
    return base64.b64encode(key).decode()


@pytest.mark.parametrize("plain", [b"", b"{}", PLAIN, os.urandom(4 * 2**20)])
def test_what_was_sealed_opens_for_the_same_record(plain: bytes) -> None:
    ring = KeyRing([ONE])

    sealed = ring.seal(plain, bound_to="c-1")

    assert ring.open(sealed, bound_to="c-1") == plain
    assert PLAIN not in sealed
    assert ring.seal(plain, bound_to="c-1") != sealed  # a nonce of its own each time


def test_a_sealed_value_copied_to_another_record_does_not_open() -> None:
    ring = KeyRing([ONE])
    sealed = ring.seal(PLAIN, bound_to="c-1")

    with pytest.raises(KeyUnavailable, match="altered or copied from another record"):
        ring.open(sealed, bound_to="c-2")


def test_no_byte_of_a_sealed_value_can_be_changed() -> None:
    ring = KeyRing([ONE])
    sealed = ring.seal(PLAIN, bound_to="c-1")

    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(KeyUnavailable):
            ring.open(bytes(changed), bound_to="c-1")
    for length in range(len(sealed)):
        with pytest.raises(KeyUnavailable):
            ring.open(sealed[:length], bound_to="c-1")


def test_the_first_key_seals_and_any_opens() -> None:
    old, rotated = KeyRing([ONE]), KeyRing([TWO, ONE])
    before, after = old.seal(PLAIN, bound_to="c"), rotated.seal(PLAIN, bound_to="c")

    assert rotated.open(before, bound_to="c") == rotated.open(after, bound_to="c") == PLAIN
    assert KeyRing([TWO]).open(after, bound_to="c") == PLAIN
    assert (rotated.sealed_by_first(before), rotated.sealed_by_first(after)) == (False, True)


def test_a_missing_key_is_named_by_its_id() -> None:
    wanted = KeyRing([ONE])
    sealed = wanted.seal(PLAIN, bound_to="c")

    with pytest.raises(KeyUnavailable, match=f"key {wanted.key_ids[0]}.*has: {KeyRing([TWO]).key_ids[0]}") as refused:
        KeyRing([TWO]).open(sealed, bound_to="c")

    assert isinstance(refused.value, Unavailable)
    assert "BETTONG_KEYS" in refused.value.next_step


def test_no_key_is_in_a_repr_an_error_or_a_pickle() -> None:
    ring = KeyRing([ONE, TWO])
    shown = [repr(ring), str(ring), f"{ring!r}", str(ring.key_ids)]
    for attempt in (lambda: ring.open(b"\x01" + bytes(60), bound_to="c"), lambda: KeyRing([ONE[:31]])):
        with pytest.raises((KeyUnavailable, BadInput)) as refused:
            attempt()
        shown.append("".join(traceback.format_exception(refused.value)))
    for copier in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="stays in its process"):
            copier(ring)

    for form in (ONE.hex(), text(ONE)[:40], repr(ONE)[2:-1]):
        assert not [each for each in shown if form in each]


def test_the_first_start_makes_a_private_key_and_later_ones_use_it(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    made = open_ring(folder, (), sealed_rows_exist=False)
    sealed = made.seal(PLAIN, bound_to="c")

    again = open_ring(folder, (), sealed_rows_exist=True)

    assert again.open(sealed, bound_to="c") == PLAIN
    assert made.problems == again.problems == ()
    assert [path.name for path in folder.iterdir()] == [KEY_FILE]
    assert stat.S_IMODE((folder / KEY_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_starters_at_the_same_time_get_the_same_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        rings = list(threads.map(lambda _: open_ring(tmp_path / "keys", (), sealed_rows_exist=False), range(16)))

    assert len({ring.key_ids for ring in rings}) == 1
    assert len(rings[0].key_ids) == 1
    assert [path.name for path in (tmp_path / "keys").iterdir()] == [KEY_FILE]


def test_a_missing_key_is_told_and_never_made_anew_while_sealed_rows_exist(tmp_path: Path) -> None:
    ring = open_ring(tmp_path / "keys", (), sealed_rows_exist=True)

    assert ring.key_ids == ()
    assert "is missing" in ring.problems[0]
    assert not (tmp_path / "keys").exists()
    with pytest.raises(KeyUnavailable, match=r"no key to seal.*Bring it back"):
        ring.seal(PLAIN, bound_to="c")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_file_that_others_may_read_is_refused_with_words(tmp_path: Path, mode: int) -> None:
    open_ring(tmp_path, (), sealed_rows_exist=False)
    (tmp_path / KEY_FILE).chmod(mode)

    ring = open_ring(tmp_path, (), sealed_rows_exist=True)

    assert ring.key_ids == ()
    assert f"has mode {mode:04o}" in ring.problems[0]
    assert "chmod 600" in ring.problems[0]


def test_a_folder_that_others_may_change_is_refused_with_words(tmp_path: Path) -> None:
    open_ring(tmp_path, (), sealed_rows_exist=False)
    tmp_path.chmod(0o770)

    assert "chmod 700" in open_ring(tmp_path, (), sealed_rows_exist=True).problems[0]


@pytest.mark.parametrize("content", [b"", b"\n", b"not base64 !\n", b"c2hvcnQ=\n", b"\xff\xfe"])
def test_a_broken_key_file_is_told_and_kept_as_it_is(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / KEY_FILE
    file.write_bytes(content)
    file.chmod(0o600)

    ring = open_ring(tmp_path, (), sealed_rows_exist=False)

    assert ring.key_ids == ()
    assert str(file) in ring.problems[0]
    assert file.read_bytes() == content


def test_a_key_file_may_hold_several_keys_the_sealing_one_first(tmp_path: Path) -> None:
    file = tmp_path / KEY_FILE
    file.write_text(f"{text(TWO)}\n{text(ONE)}\n")
    file.chmod(0o600)

    assert open_ring(tmp_path, (), sealed_rows_exist=True).key_ids == KeyRing([TWO, ONE]).key_ids


def test_given_keys_are_used_in_place_of_files_and_none_is_made(tmp_path: Path) -> None:
    url_safe = base64.urlsafe_b64encode(bytes([255]) * 32).decode()

    ring = open_ring(tmp_path / "keys", (f" {text(TWO)}\n", text(ONE), url_safe), sealed_rows_exist=False)

    assert ring.key_ids == KeyRing([TWO, ONE, bytes([255]) * 32]).key_ids
    assert not (tmp_path / "keys").exists()


def test_a_misspelt_first_key_is_told_by_place_and_the_second_only_opens(tmp_path: Path) -> None:
    misspelt = text(TWO)[:-4]
    sealed = KeyRing([ONE]).seal(PLAIN, bound_to="c")

    ring = open_ring(tmp_path, (misspelt, text(ONE)), sealed_rows_exist=True)

    assert ring.problems == ("Key 1 of BETTONG_KEYS is not the base64 of 32 bytes. Correct it.",)
    assert ring.open(sealed, bound_to="c") == PLAIN
    with pytest.raises(KeyUnavailable, match="Key 1 of BETTONG_KEYS"):
        ring.seal(PLAIN, bound_to="c")


def test_a_platform_that_must_be_given_keys_does_not_start_without(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="BETTONG_KEYS"):
        open_ring(tmp_path / "keys", (), sealed_rows_exist=False, keys_required=True)
    assert not (tmp_path / "keys").exists()


def test_the_canary_sings_while_the_keys_are_right_and_tells_when_they_are_not() -> None:
    facts = Facts()
    assert check_canary(KeyRing([ONE]), facts) is None
    first = facts[CANARY]

    assert check_canary(KeyRing([ONE]), facts) is None
    problem = check_canary(KeyRing([TWO]), facts)

    assert facts[CANARY] == first
    assert problem is not None
    assert KeyRing([ONE]).key_ids[0] in problem
    assert check_canary(KeyRing([]), facts) is not None
    assert check_canary(KeyRing([]), Facts()) is not None


def test_the_canary_follows_the_first_key_so_that_the_old_one_can_go() -> None:
    facts = Facts()
    check_canary(KeyRing([ONE]), facts)

    assert check_canary(KeyRing([TWO, ONE]), facts) is None
    assert check_canary(KeyRing([TWO]), facts) is None
    assert check_canary(KeyRing([ONE]), facts) is not None


def test_a_canary_of_a_lost_key_is_replaced_only_while_nothing_is_sealed() -> None:
    facts = Facts()
    check_canary(KeyRing([ONE]), facts)

    assert check_canary(KeyRing([TWO]), facts, sealed_rows_exist=True) is not None
    assert check_canary(KeyRing([TWO]), facts, sealed_rows_exist=False) is None
    assert check_canary(KeyRing([TWO]), facts, sealed_rows_exist=True) is None
