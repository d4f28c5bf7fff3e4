"""What every model store promises."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING

import pytest
from builders import new_model_version

from bettong.domain.batching import DynamicBatching
from bettong.domain.models import ModelConfig, ModelStatus, ModelVersion
from bettong.errors import NotFound
from bettong.storage.stores import Stores, open_stores

if TYPE_CHECKING:
    from collections.abc import Iterator

NOWHERE = 404_404


@pytest.fixture
def workspace_id(stores: Stores) -> int:
    ann = stores.users.add("ann@example.com", "ann", is_admin=False)
    return stores.workspaces.add("tutorial", ann.id).id


def upload(stores: Stores, workspace_id: int, name: str = "forecast") -> ModelVersion:
    new = new_model_version(name, workspace_id=workspace_id)
    return stores.models.add_version(new, ModelStatus.UPLOADING, "u-ann")


def test_the_first_version_makes_the_model_and_its_config(stores: Stores, workspace_id: int) -> None:
    version = upload(stores, workspace_id)

    model = stores.models.model_by_name(workspace_id, "forecast")
    assert model is not None
    assert stores.models.model(model.id) == model
    assert (version.model_id, version.name, version.workspace_id) == (model.id, "forecast", workspace_id)
    assert (version.status, version.requirements) == (ModelStatus.UPLOADING, ("statsmodels==0.14.1",))
    assert version.file_size == 2**33
    assert version.uid == f"forecast-{version.id}"
    assert stores.models.version(version.id) == version
    assert stores.models.version_by_uuid(version.version) == version
    config = stores.models.configs([version.id])[version.id]
    assert (config.runtime, config.input_schema, config.output_schema) == ("flight", b"in", b"out")


def test_the_same_name_again_is_one_more_version_newest_first(stores: Stores, workspace_id: int) -> None:
    first, second = upload(stores, workspace_id), upload(stores, workspace_id)
    other = upload(stores, workspace_id, "other")

    assert first.version != second.version
    assert first.model_id == second.model_id != other.model_id
    assert stores.models.versions([first.model_id]) == [second, first]
    assert stores.models.versions([other.model_id, first.model_id]) == [other, second, first]
    assert stores.models.versions([]) == []
    assert [model.name for model in stores.models.models([workspace_id])] == ["forecast", "other"]


def test_models_are_told_by_workspace_or_all(stores: Stores, workspace_id: int) -> None:
    elsewhere = stores.workspaces.add("elsewhere", stores.users.all()[0].id).id
    upload(stores, elsewhere)
    upload(stores, workspace_id)

    assert [model.workspace_id for model in stores.models.models([workspace_id])] == [workspace_id]
    assert [model.workspace_id for model in stores.models.models(None)] == [elsewhere, workspace_id]
    assert stores.models.models([]) == []
    assert stores.models.model_by_name(workspace_id, "Forecast") is None


def test_first_uploads_at_the_same_time_share_one_model(stores: Stores, workspace_id: int) -> None:
    with ThreadPoolExecutor(8) as threads:
        versions = list(threads.map(lambda _: upload(stores, workspace_id), range(24)))

    assert len(stores.models.models(None)) == 1
    assert len({version.version for version in versions}) == 24
    assert {version.model_id for version in versions} == {stores.models.models(None)[0].id}


def test_a_status_carries_its_error_and_keeps_what_is_not_named(database_url: str) -> None:
    ticks: Iterator[int] = count()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with open_stores(database_url, clock=lambda: start + timedelta(seconds=next(ticks))) as stores:
        ann = stores.users.add("ann@example.com", "ann", is_admin=False)
        version = upload(stores, stores.workspaces.add("tutorial", ann.id).id)

        failed = stores.models.set_status(
            version.id, ModelStatus.ERROR, error_summary="no module\0named x", environment="abc", image_path="python"
        )
        ready = stores.models.set_status(version.id, ModelStatus.READY)

    assert (failed.status, failed.error_summary) == (ModelStatus.ERROR, "no module\N{REPLACEMENT CHARACTER}named x")
    assert (ready.status, ready.error_summary) == (ModelStatus.READY, None)
    assert (ready.environment, ready.image_path) == ("abc", "python")
    assert version.updated_at < failed.updated_at < ready.updated_at
    assert ready.created_at == version.created_at


def test_unfinished_versions_are_the_queue_oldest_first(stores: Stores, workspace_id: int) -> None:
    versions = [upload(stores, workspace_id) for _ in ModelStatus]
    for version, status in zip(versions, ModelStatus, strict=True):
        stores.models.set_status(version.id, status)

    assert [version.id for version in stores.models.unfinished()] == [version.id for version in versions[:-2]]


def test_an_upload_log_is_read_from_its_end_in_order(stores: Stores, workspace_id: int) -> None:
    version, other = upload(stores, workspace_id), upload(stores, workspace_id)
    stores.models.append_upload_log(version.id, ["one", "two"])
    stores.models.append_upload_log(other.id, ["of another"])
    stores.models.append_upload_log(version.id, ["three \0 \udcff"])
    stores.models.append_upload_log(version.id, [])

    assert stores.models.upload_log(version.id, None) == ["one", "two", "three \N{REPLACEMENT CHARACTER} ?"]
    assert stores.models.upload_log(version.id, 2) == ["two", "three \N{REPLACEMENT CHARACTER} ?"]
    assert stores.models.upload_log(upload(stores, workspace_id).id, None) == []


def test_the_newest_config_of_a_version_counts(stores: Stores, workspace_id: int) -> None:
    version, other = upload(stores, workspace_id), upload(stores, workspace_id)
    wanted = ModelConfig(0, version.id, "onnx", ("a", "b"), 0.25, b"\x00\xff", None, "single", DynamicBatching(5, 8))

    kept = stores.models.add_config(wanted)

    assert kept == replace(wanted, id=kept.id)
    configs = stores.models.configs([version.id, other.id, NOWHERE])
    assert configs[version.id] == kept
    assert configs[other.id].tensor_fields is None
    assert configs[other.id].dynamic_batching is None
    assert set(configs) == {version.id, other.id}


def test_unknown_versions_are_not_found(stores: Stores) -> None:
    for call in (
        lambda: stores.models.version(NOWHERE),
        lambda: stores.models.set_status(NOWHERE, ModelStatus.READY),
        lambda: stores.models.append_upload_log(NOWHERE, ["line"]),
        lambda: stores.models.upload_log(NOWHERE, None),
        lambda: stores.models.add_config(ModelConfig(0, NOWHERE, "flight")),
    ):
        with pytest.raises(NotFound, match=f"No model version has the id {NOWHERE}"):
            call()
    with pytest.raises(NotFound, match=f"No model has the id {NOWHERE}"):
        stores.models.model(NOWHERE)
    with pytest.raises(NotFound, match=f"No workspace has the id {NOWHERE}"):
        upload(stores, NOWHERE)
    assert stores.models.version_by_uuid("none") is None
    assert stores.models.models(None) == []


def test_more_ids_than_a_statement_takes_are_no_trouble(stores: Stores, workspace_id: int) -> None:
    version = upload(stores, workspace_id)

    assert stores.models.versions(range(70_000)) == [version]
    assert set(stores.models.configs(range(70_000))) == {version.id}
