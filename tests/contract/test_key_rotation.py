"""A change of the platform's key on every database, by several servers at once and under changes of people."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from builders import connection

from bettong.domain.identity import Principal
from bettong.secrets.details import open_details, seal_details
from bettong.secrets.keyring import KeyRing, check_canary, key_id_of
from bettong.services.key_rotation import KeyRotation
from bettong.storage.stores import open_stores

if TYPE_CHECKING:
    from bettong.storage.stores import Stores

OLD, NEW = b"o" * 32, b"n" * 32
ADMINISTRATOR = Principal("u-ann", "ann@example.org", True, frozenset())
CONNECTIONS = 40


def rotation(stores: Stores, ring: KeyRing) -> KeyRotation:
    return KeyRotation(
        ring,
        stores.connections,
        stores.deployments,
        stores.audit,
        lambda: datetime.now(UTC),
        add_key=None,
        follow=lambda: check_canary(ring, stores.facts),
        key_id_of=key_id_of,
    )


def walk(service: KeyRotation) -> tuple[int, int, list[str]]:
    resealed, already, unopened, after = 0, 0, list[str](), None
    while True:
        step = service.reseal(ADMINISTRATOR, after, 7)
        resealed, already, unopened = resealed + step.resealed, already + step.already, unopened + step.unopened
        if (after := step.after) is None:
            return resealed, already, unopened


def kept(stores: Stores, ring: KeyRing) -> list[str]:
    made = [connection(f"c{number}") for number in range(CONNECTIONS)]
    for new in made:
        stores.connections.add(new, seal_details(ring, json.dumps({"of": new.id, "n": 0}).encode(), new.id, 1))
    return [new.id for new in made]


def test_two_servers_that_rotate_at_once_seal_each_value_anew_once(database_url: str) -> None:
    with open_stores(database_url) as one, open_stores(database_url) as two:
        ids = kept(one, KeyRing([OLD]))

        with ThreadPoolExecutor(2) as threads:
            told = list(threads.map(lambda s: walk(rotation(s, KeyRing([NEW, OLD]))), (one, two)))

        assert sum(resealed for resealed, _, _ in told) == CONNECTIONS
        assert [unopened for _, _, unopened in told] == [[], []]
        assert walk(rotation(one, KeyRing([NEW, OLD]))) == (0, CONNECTIONS, [])
        for connection_id in ids:
            assert (
                json.loads(open_details(KeyRing([NEW]), one.connections.sealed(connection_id)))["of"] == connection_id
            )
        assert rotation(two, KeyRing([NEW, OLD])).keys(ADMINISTRATOR).counts == {
            KeyRing([NEW]).key_ids[0]: CONNECTIONS,
            KeyRing([OLD]).key_ids[0]: 0,
        }


def test_no_change_that_people_make_meanwhile_is_lost(database_url: str) -> None:
    ring = KeyRing([NEW, OLD])
    stop = threading.Event()
    with open_stores(database_url) as one, open_stores(database_url) as two:
        ids = kept(one, KeyRing([OLD]))
        acknowledged = dict.fromkeys(ids, 0)

        def change() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                connection_id = ids[number % len(ids)]
                before = two.connections.sealed(connection_id)
                plain = json.dumps({"of": connection_id, "n": number}).encode()
                sealed = seal_details(ring, plain, connection_id, before.version + 1)
                two.connections.add_version(connection_id, sealed, version=before.version + 1, created_by="u")
                acknowledged[connection_id] = number

        with ThreadPoolExecutor(1) as threads:
            changing = threads.submit(change)
            try:
                while walk(rotation(one, ring))[0]:
                    pass
            finally:
                stop.set()
            changing.result()

        for connection_id in ids:
            details = json.loads(open_details(KeyRing([NEW]), one.connections.sealed(connection_id)))
            assert details == {"of": connection_id, "n": acknowledged[connection_id]}


def test_a_version_that_is_gone_meanwhile_is_no_error(database_url: str) -> None:
    with open_stores(database_url) as stores:
        (first, *_) = kept(stores, KeyRing([OLD]))
        service = rotation(stores, KeyRing([NEW, OLD]))
        page = stores.connections.sealed_page(after=0, limit=1)
        stores.connections.delete(first)

        assert not stores.connections.reseal(page[0], b"late")
        assert walk(service) == (CONNECTIONS - 1, 0, [])
