"""What every pipeline and deployment store promises."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from bettong.errors import BadInput, Conflict, NotFound
from bettong.storage.stores import Stores, open_stores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bettong.domain.pipelines import Pipeline

NOWHERE = 404_404
EMPTY: dict[str, Any] = {"id": "rental", "steps": []}


@pytest.fixture
def workspace_id(stores: Stores) -> int:
    ann = stores.users.add("ann@example.com", "ann", is_admin=False)
    return stores.workspaces.add("tutorial", ann.id).id


@pytest.fixture
def pipeline(stores: Stores, workspace_id: int) -> Pipeline:
    return stores.pipelines.add(workspace_id, "rental", "u-ann")


def test_a_pipeline_is_found_by_id_and_by_name_in_its_workspace(
    stores: Stores, workspace_id: int, pipeline: Pipeline
) -> None:
    assert stores.pipelines.get(pipeline.id) == pipeline
    assert stores.pipelines.by_name(workspace_id, "rental") == pipeline
    assert stores.pipelines.by_name(workspace_id, "Rental") is None
    assert stores.pipelines.by_name(NOWHERE, "rental") is None


def test_a_name_is_taken_once_in_a_workspace_and_free_in_another(
    stores: Stores, workspace_id: int, pipeline: Pipeline
) -> None:
    elsewhere = stores.workspaces.add("elsewhere", stores.users.all()[0].id).id

    with pytest.raises(Conflict, match="A pipeline 'rental' exists already in this workspace"):
        stores.pipelines.add(workspace_id, "rental", "u-bob")
    other = stores.pipelines.add(elsewhere, "rental", "u-bob")

    assert stores.pipelines.all(None) == [pipeline, other]
    assert stores.pipelines.all([elsewhere]) == [other]
    assert stores.pipelines.all([]) == []


def test_of_many_who_create_a_name_at_once_one_wins(stores: Stores, workspace_id: int) -> None:
    def create(_: int) -> str:
        try:
            return str(stores.pipelines.add(workspace_id, "rental", "u-ann").id)
        except Conflict as refused:
            return refused.code

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(create, range(16)))

    (winner,) = stores.pipelines.all(None)
    assert sorted(outcomes) == sorted([str(winner.id), *["conflict"] * 15])


def test_a_definition_is_kept_as_it_was_sent(stores: Stores, pipeline: Pipeline) -> None:
    document = {"z": [1, 2**63, 1e300, None, {"ü\u0000": True}], "a": {}, "steps": []}

    version = stores.pipelines.add_version(pipeline.id, document, "u-ann")

    found = stores.pipelines.version(version.id)
    assert found == version
    assert found.definition == document
    assert list(found.definition) == ["z", "a", "steps"]


def test_a_document_with_nan_is_refused_on_every_database(stores: Stores, pipeline: Pipeline) -> None:
    with pytest.raises(BadInput, match="NaN or infinite"):
        stores.pipelines.add_version(pipeline.id, {"weight": float("nan")}, "u-ann")
    assert stores.pipelines.versions([pipeline.id]) == []


def test_versions_are_told_newest_first_and_found_by_uuid(stores: Stores, pipeline: Pipeline) -> None:
    first, second = (stores.pipelines.add_version(pipeline.id, EMPTY, "u-ann") for _ in range(2))

    assert stores.pipelines.versions([pipeline.id, NOWHERE]) == [second, first]
    assert stores.pipelines.version_by_uuid(first.version) == first
    assert stores.pipelines.version_by_uuid("none") is None


def test_a_new_version_or_a_touch_moves_the_pipelines_time(database_url: str) -> None:
    ticks: Iterator[int] = count()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with open_stores(database_url, clock=lambda: start + timedelta(seconds=next(ticks))) as stores:
        ann = stores.users.add("ann@example.com", "ann", is_admin=False)
        made = stores.pipelines.add(stores.workspaces.add("tutorial", ann.id).id, "rental", "u-ann")
        stores.pipelines.add_version(made.id, EMPTY, "u-ann")
        versioned = stores.pipelines.get(made.id)
        stores.pipelines.touch(made.id)
        touched = stores.pipelines.get(made.id)

    assert made.created_at == made.updated_at < versioned.updated_at < touched.updated_at
    assert touched.created_at == made.created_at


def test_a_deployment_is_made_once_and_its_generation_counts_the_targets(stores: Stores, pipeline: Pipeline) -> None:
    version = stores.pipelines.add_version(pipeline.id, EMPTY, "u-ann")
    assert stores.deployments.of_pipeline(pipeline.id) is None

    first = stores.deployments.target(pipeline.id, "rental", pipeline.workspace_id, version.id, {"engine": {"cpu": 1}})
    newer = stores.pipelines.add_version(pipeline.id, EMPTY, "u-ann")
    second = stores.deployments.target(pipeline.id, "rental", pipeline.workspace_id, newer.id, {})

    assert (first.generation, first.deployed, first.port, first.engine_config) == (1, True, 0, {"engine": {"cpu": 1}})
    assert (second.id, second.generation, second.pipeline_version_id) == (first.id, 2, newer.id)
    assert second.engine_config == {}
    assert second.created_at == first.created_at
    assert stores.deployments.get(first.id) == stores.deployments.of_pipeline(pipeline.id) == second


def test_targets_set_at_once_each_get_a_generation_of_their_own(stores: Stores, pipeline: Pipeline) -> None:
    version = stores.pipelines.add_version(pipeline.id, EMPTY, "u-ann")

    with ThreadPoolExecutor(8) as threads:
        targets = list(
            threads.map(
                lambda _: stores.deployments.target(pipeline.id, "rental", pipeline.workspace_id, version.id, {}),
                range(24),
            )
        )

    assert sorted(target.generation for target in targets) == list(range(1, 25))
    assert len({target.id for target in targets}) == 1
    assert stores.deployments.get(targets[0].id).generation == 24


def test_an_undeployed_one_keeps_its_row_and_port_but_is_not_wanted(stores: Stores, pipeline: Pipeline) -> None:
    version = stores.pipelines.add_version(pipeline.id, EMPTY, "u-ann")
    made = stores.deployments.target(pipeline.id, "rental", pipeline.workspace_id, version.id, {})
    stores.deployments.set_port(made.id, 40_001)
    assert stores.deployments.wanted() == [replace(made, port=40_001)]

    gone = stores.deployments.set_undeployed(made.id)

    assert (gone.deployed, gone.port, gone.generation) == (False, 40_001, 1)
    assert stores.deployments.wanted() == []
    assert stores.deployments.all(None) == stores.deployments.all([pipeline.workspace_id]) == [gone]
    assert stores.deployments.all([NOWHERE]) == []
    again = stores.deployments.target(pipeline.id, "rental", pipeline.workspace_id, version.id, {})
    assert (again.id, again.deployed, again.port, again.generation) == (made.id, True, 40_001, 2)


def test_a_config_that_changed_meanwhile_is_not_replaced(stores: Stores, pipeline: Pipeline) -> None:
    version = stores.pipelines.add_version(pipeline.id, EMPTY, "u-ann")
    before = stores.deployments.target(pipeline.id, "rental", pipeline.workspace_id, version.id, {"env": ["a"]})

    assert stores.deployments.reseal(before, {"env": ["b"]})
    assert not stores.deployments.reseal(before, {"env": ["c"]})

    assert stores.deployments.get(before.id) == replace(before, engine_config={"env": ["b"]})


def test_unknown_ids_are_not_found(stores: Stores, pipeline: Pipeline) -> None:
    version = stores.pipelines.add_version(pipeline.id, EMPTY, "u-ann")
    where = pipeline.workspace_id

    for thing, call in (
        ("pipeline", lambda: stores.pipelines.get(NOWHERE)),
        ("pipeline", lambda: stores.pipelines.add_version(NOWHERE, EMPTY, "u-ann")),
        ("pipeline", lambda: stores.pipelines.touch(NOWHERE)),
        ("pipeline version", lambda: stores.pipelines.version(NOWHERE)),
        ("deployment", lambda: stores.deployments.get(NOWHERE)),
        ("deployment", lambda: stores.deployments.set_port(NOWHERE, 1)),
        ("deployment", lambda: stores.deployments.set_undeployed(NOWHERE)),
        ("pipeline", lambda: stores.deployments.target(NOWHERE, "rental", where, version.id, {})),
        ("pipeline version", lambda: stores.deployments.target(pipeline.id, "rental", where, NOWHERE, {})),
        ("workspace", lambda: stores.deployments.target(pipeline.id, "rental", NOWHERE, version.id, {})),
    ):
        with pytest.raises(NotFound, match=f"No {thing} has the id {NOWHERE}"):
            call()
    assert stores.deployments.all(None) == []
