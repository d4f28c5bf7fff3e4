"""What every connection store promises."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest
from builders import connection
from sqlalchemy import insert

from bettong.errors import Conflict, NotFound
from bettong.storage import tables

if TYPE_CHECKING:
    from bettong.domain.connections import Connection
    from bettong.storage.stores import Stores


@pytest.fixture
def workspaces(stores: Stores) -> tuple[int, int]:
    ann = stores.users.add("ann@example.com", "ann", is_admin=False)
    return stores.workspaces.add("alpha", ann.id).id, stores.workspaces.add("beta", ann.id).id


def kept(stores: Stores, name: str, *linked: int, created_by: str = "u-ann") -> Connection:
    new = connection(name, created_by=created_by)
    stores.connections.add(new, b"sealed " + name.encode())
    for workspace_id in linked:
        stores.connections.link(new.id, workspace_id)
    return new


def names(found: list[Connection]) -> list[str]:
    return [each.name for each in found]


def test_a_connection_comes_back_as_it_was_kept(stores: Stores) -> None:
    new = connection("my <b>conn</b>/'ü'", type="BIGQUERY")

    stores.connections.add(new, b"\x00sealed\xff")

    assert stores.connections.by_name(new.name) == new
    assert stores.connections.by_id(new.id) == new
    assert stores.connections.sealed(new.id).sealed == b"\x00sealed\xff"
    assert stores.connections.by_name("other") is None
    assert stores.connections.by_id("other") is None


def test_a_name_is_taken_once_and_the_first_one_stays(stores: Stores) -> None:
    first = kept(stores, "warehouse")

    with pytest.raises(Conflict, match="A connection 'warehouse' exists already"):
        stores.connections.add(connection("warehouse", type="OTHER"), b"sealed 2")

    assert stores.connections.by_name("warehouse") == first
    assert stores.connections.sealed(first.id).sealed == b"sealed warehouse"


def test_names_that_differ_by_case_are_two_connections(stores: Stores) -> None:
    assert kept(stores, "warehouse").id != kept(stores, "Warehouse").id
    assert names(stores.connections.all(seen_by=None, workspace_ids=())) == ["warehouse", "Warehouse"]


def test_of_many_who_create_a_name_at_once_one_wins(stores: Stores) -> None:
    def create(_: int) -> str:
        try:
            return kept(stores, "warehouse").id
        except Conflict as refused:
            return refused.code

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(create, range(16)))

    winner = stores.connections.by_name("warehouse")
    assert winner is not None
    assert sorted(outcomes) == sorted([winner.id, *["conflict"] * 15])


def test_workspace_names_stand_in_order_of_linking_and_only_those_that_may_be_told(
    stores: Stores, workspaces: tuple[int, int]
) -> None:
    alpha, beta = workspaces
    new = kept(stores, "warehouse", beta, alpha)

    assert stores.connections.by_id(new.id) == replace(new, workspace_names=("beta", "alpha"))
    assert stores.connections.by_id(new.id, [alpha]) == replace(new, workspace_names=("alpha",))
    assert stores.connections.by_name("warehouse", []) == new
    assert stores.connections.workspaces_of(new.id) == {alpha, beta}


def test_linking_again_is_the_first_link_and_keeps_its_place(stores: Stores, workspaces: tuple[int, int]) -> None:
    alpha, _ = workspaces
    first, second = kept(stores, "first"), kept(stores, "second")
    link = stores.connections.link(first.id, alpha)
    stores.connections.link(second.id, alpha)

    assert stores.connections.link(first.id, alpha) == link != first.id
    assert names(stores.connections.linked_to(alpha, None)) == ["first", "second"]


def test_linking_at_once_makes_one_link(stores: Stores, workspaces: tuple[int, int]) -> None:
    new = kept(stores, "warehouse")

    with ThreadPoolExecutor(8) as threads:
        links = set(threads.map(lambda _: stores.connections.link(new.id, workspaces[0]), range(16)))

    assert len(links) == 1
    assert names(stores.connections.linked_to(workspaces[0], None)) == ["warehouse"]


def test_a_workspace_lists_its_links_newest_last_whatever_the_age_of_the_connection(
    stores: Stores, workspaces: tuple[int, int]
) -> None:
    alpha, beta = workspaces
    old, new = kept(stores, "old", beta), kept(stores, "new")
    stores.connections.link(new.id, alpha)
    stores.connections.link(old.id, alpha)

    found = stores.connections.linked_to(alpha, [alpha])

    assert found == [replace(new, workspace_names=("alpha",)), replace(old, workspace_names=("alpha",))]
    assert stores.connections.linked_to(alpha, None)[-1].workspace_names == ("beta", "alpha")
    assert names(stores.connections.linked_to(beta, None)) == ["old"]


def test_the_list_shows_what_one_made_or_is_linked_to_and_an_administrator_all(
    stores: Stores, workspaces: tuple[int, int]
) -> None:
    alpha, beta = workspaces
    kept(stores, "mine", created_by="u-bob")
    kept(stores, "shared", alpha, beta)
    kept(stores, "foreign", beta)

    bobs = stores.connections.all(seen_by="u-bob", workspace_ids=[alpha])
    everything = stores.connections.all(seen_by=None, workspace_ids=[])

    assert [(each.name, each.workspace_names) for each in bobs] == [("mine", ()), ("shared", ("alpha",))]
    assert [(each.name, each.workspace_names) for each in everything] == [
        ("mine", ()),
        ("shared", ("alpha", "beta")),
        ("foreign", ("beta",)),
    ]
    assert names(stores.connections.all(seen_by="u-bob", workspace_ids=[])) == ["mine"]


def pages(stores: Stores, size: int, **whose: Any) -> list[list[str]]:
    """The names on each page of a list, read to its end."""
    read: list[list[str]] = []
    after: str | None = None
    while True:
        page = stores.connections.all(**whose, limit=size, after=after)
        read.append(names(page))
        if len(page) < size:
            return read
        after = page[-1].id


def test_the_list_in_pages_is_the_list(stores: Stores, workspaces: tuple[int, int]) -> None:
    alpha, beta = workspaces
    for number in range(5):
        kept(stores, f"mine-{number}", created_by="u-bob")
        kept(stores, f"foreign-{number}", beta)
    kept(stores, "shared", alpha, beta)

    assert pages(stores, 4, seen_by="u-bob", workspace_ids=[alpha]) == [
        ["mine-0", "mine-1", "mine-2", "mine-3"],
        ["mine-4", "shared"],
    ]
    everything = [name for page in pages(stores, 5, seen_by=None, workspace_ids=[]) for name in page]
    assert everything == names(stores.connections.all(seen_by=None, workspace_ids=[]))
    assert len(everything) == 11


def test_a_page_tells_the_workspaces_of_its_connections(stores: Stores, workspaces: tuple[int, int]) -> None:
    alpha, beta = workspaces
    first = kept(stores, "first", alpha)
    kept(stores, "second", beta, alpha)
    kept(stores, "third", beta)

    page = stores.connections.all(seen_by=None, workspace_ids=(), limit=1, after=first.id)

    assert [(each.name, each.workspace_names) for each in page] == [("second", ("beta", "alpha"))]


def test_a_page_goes_on_at_its_place_while_others_come_and_go(stores: Stores) -> None:
    first, second, third = (kept(stores, name) for name in ("first", "second", "third"))
    stores.connections.delete(first.id)
    kept(stores, "fourth")

    assert names(stores.connections.all(seen_by=None, workspace_ids=(), after=second.id)) == ["third", "fourth"]
    assert stores.connections.all(seen_by=None, workspace_ids=(), limit=2, after=third.id)[0].name == "fourth"


def test_a_workspaces_pages_go_in_order_of_linking(stores: Stores, workspaces: tuple[int, int]) -> None:
    alpha, beta = workspaces
    oldest, middle, newest = (kept(stores, name, beta) for name in ("oldest", "middle", "newest"))
    for new in (newest, oldest, middle):
        stores.connections.link(new.id, alpha)

    page = stores.connections.linked_to(alpha, [alpha], limit=2)
    rest = stores.connections.linked_to(alpha, [alpha], limit=2, after=page[-1].id)

    assert [(each.name, each.workspace_names) for each in page] == [("newest", ("alpha",)), ("oldest", ("alpha",))]
    assert [(each.name, each.workspace_names) for each in rest] == [("middle", ("alpha",))]
    assert stores.connections.linked_to(alpha, None, limit=2, after=middle.id) == []


def test_a_list_does_not_go_on_after_what_it_does_not_have(stores: Stores, workspaces: tuple[int, int]) -> None:
    alpha, beta = workspaces
    hidden, gone = kept(stores, "hidden", beta), kept(stores, "gone", alpha)
    stores.connections.delete(gone.id)

    for after in (hidden.id, gone.id, "none"):
        with pytest.raises(NotFound, match="no connection with the id to go on after"):
            stores.connections.all(seen_by="u-bob", workspace_ids=[alpha], after=after)
        with pytest.raises(NotFound, match="no connection with the id to go on after"):
            stores.connections.linked_to(alpha, None, limit=5, after=after)


def test_unlinking_takes_the_link_alone_and_twice_is_no_error(stores: Stores, workspaces: tuple[int, int]) -> None:
    alpha, beta = workspaces
    new = kept(stores, "warehouse", alpha, beta)

    for _ in range(2):
        stores.connections.unlink(new.id, alpha)

    assert stores.connections.workspaces_of(new.id) == {beta}
    assert stores.connections.linked_to(alpha, None) == []


def test_deleting_takes_the_links_along_frees_the_name_and_twice_is_no_error(
    stores: Stores, workspaces: tuple[int, int]
) -> None:
    alpha, _ = workspaces
    new = kept(stores, "warehouse", alpha)

    for _ in range(2):
        stores.connections.delete(new.id)

    assert stores.connections.by_name("warehouse") is None
    assert stores.connections.linked_to(alpha, None) == []
    again = kept(stores, "warehouse")
    assert again.id != new.id
    assert stores.connections.workspaces_of(again.id) == frozenset()


def test_sealed_details_are_told_with_their_names_in_order(stores: Stores) -> None:
    assert not stores.connections.any_sealed()
    first, second = kept(stores, "b"), kept(stores, "a")

    assert stores.connections.any_sealed()
    assert [(each.connection_id, each.name, each.sealed) for each in stores.connections.all_sealed()] == [
        (first.id, "b", b"sealed b"),
        (second.id, "a", b"sealed a"),
    ]


def test_unknown_ids_are_not_found(stores: Stores, workspaces: tuple[int, int]) -> None:
    new = kept(stores, "warehouse")

    for call in (
        lambda: stores.connections.link("none", workspaces[0]),
        lambda: stores.connections.sealed("none"),
        lambda: stores.connections.workspaces_of("none"),
    ):
        with pytest.raises(NotFound, match="No connection has the id 'none'"):
            call()
    with pytest.raises(NotFound, match="No workspace has the id 404"):
        stores.connections.link(new.id, 404)
    with pytest.raises(NotFound, match="No workspace has the id 404"):
        stores.connections.linked_to(404, None)
    stores.connections.unlink("none", 404)


def test_five_thousand_linked_connections_are_listed_by_two_queries(
    stores: Stores, workspaces: tuple[int, int]
) -> None:
    """Measured at some 40 ms. The bound is wide: this machine may be busy; one query per row would still break it."""
    alpha, _ = workspaces
    many = [connection(f"c{number}") for number in range(5_000)]
    with stores.database.write() as tx:  # past the store, which would take seconds for so many
        rows = [asdict(each) for each in many]
        tx.execute(
            insert(tables.connections), [{k: v for k, v in row.items() if k != "workspace_names"} for row in rows]
        )
        links = [{"id": c.id, "connection_id": c.id, "workspace_id": alpha, "created_at": c.created_at} for c in many]
        tx.execute(insert(tables.connection_links), links)

    started = time.perf_counter()
    found = stores.connections.all(seen_by="u-bob", workspace_ids=[alpha])
    took_s = time.perf_counter() - started

    assert len(found) == 5_000
    assert {each.workspace_names for each in found} == {("alpha",)}
    assert took_s < 1.0


# --- versions -------------------------------------------------------------------------------------------------------


def changed(stores: Stores, of: Connection, version: int, by: str = "u-bob") -> None:
    stores.connections.add_version(of.id, f"sealed {version}".encode(), version=version, created_by=by)


def test_a_new_version_counts_and_the_ones_before_it_stay(stores: Stores) -> None:
    new = kept(stores, "warehouse")

    changed(stores, new, 2)
    changed(stores, new, 3, by="u-eve")

    found = stores.connections.by_id(new.id)
    assert found is not None
    assert found.version == 3
    assert stores.connections.sealed(new.id).sealed == b"sealed 3"
    assert stores.connections.sealed(new.id, 2).sealed == b"sealed 2"
    assert [(v.version, v.created_by, v.sealed) for v in stores.connections.versions(new.id)] == [
        (3, "u-eve", b"sealed 3"),
        (2, "u-bob", b"sealed 2"),
        (1, "u-ann", b"sealed warehouse"),
    ]
    assert [each.version for each in stores.connections.all_sealed()] == [3]
    with pytest.raises(NotFound, match="has no version 4"):
        stores.connections.sealed(new.id, 4)


def test_of_many_who_change_it_at_once_one_wins(stores: Stores) -> None:
    new = kept(stores, "warehouse")

    def change(_: int) -> str:
        try:
            changed(stores, new, 2)
        except Conflict as refused:
            return refused.code
        return "won"

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(change, range(8)))

    assert sorted(outcomes) == [*["conflict"] * 7, "won"]
    assert len(stores.connections.versions(new.id)) == 2
    with pytest.raises(NotFound):
        stores.connections.add_version("none", b"", version=2, created_by="u-ann")


def test_the_last_ten_versions_stay_until_a_purge(stores: Stores) -> None:
    new, other = kept(stores, "warehouse"), kept(stores, "other")
    changed(stores, other, 2)
    for version in range(2, 14):
        changed(stores, new, version)

    assert [v.version for v in stores.connections.versions(new.id)] == list(range(13, 3, -1))
    assert stores.connections.purge(new.id) == 9
    assert [v.version for v in stores.connections.versions(new.id)] == [13]
    assert stores.connections.purge(new.id) == 0
    assert len(stores.connections.versions(other.id)) == 2


def test_deleting_takes_every_version_along(stores: Stores) -> None:
    new = kept(stores, "warehouse")
    changed(stores, new, 2)

    stores.connections.delete(new.id)

    assert stores.connections.versions(new.id) == []
    assert stores.connections.sealed_page(after=0, limit=9) == []


def test_every_version_is_met_once_by_a_walk_in_pages(stores: Stores) -> None:
    first, second = kept(stores, "first"), kept(stores, "second")
    changed(stores, first, 2)

    met, after = [], 0
    while page := stores.connections.sealed_page(after=after, limit=2):
        met += [(each.connection_id, each.version) for each in page]
        after = page[-1].place

    assert met == [(first.id, 1), (second.id, 1), (first.id, 2)]


def test_what_changed_meanwhile_is_not_resealed(stores: Stores) -> None:
    new = kept(stores, "warehouse")
    before = stores.connections.sealed(new.id)

    assert stores.connections.reseal(before, b"resealed")
    assert not stores.connections.reseal(before, b"again")
    assert stores.connections.sealed(new.id).sealed == b"resealed"


def test_marks_of_a_connection_are_kept(stores: Stores) -> None:
    new = kept(stores, "warehouse")

    stores.connections.set_use_only(new.id, True)
    stores.connections.touch(new.id)

    found = stores.connections.by_id(new.id)
    assert found is not None
    assert found.use_only
    assert found.last_used_at is not None
    assert found.last_used_at >= new.created_at
    stores.connections.set_use_only(new.id, False)
    assert stores.connections.all(seen_by=None, workspace_ids=()) == [replace(found, use_only=False)]
    with pytest.raises(NotFound):
        stores.connections.touch("none")
    with pytest.raises(NotFound):
        stores.connections.set_use_only("none", True)
