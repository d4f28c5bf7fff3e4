"""A real platform, started and used as a person would: `wallaroo.Client()` with nothing configured but its home."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import onnx_models
import pyarrow as pa
import pytest
from e2e.connection_kit import reaching_home
from platforms import EXAMPLES, new_home

sys.path.insert(0, str(EXAMPLES))

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import wallaroo
    from wallaroo.pipeline import Pipeline


@pytest.fixture(autouse=True)
def clients_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """People never close a client. Here their sockets would be left to the collector, which warns in another test."""
    import wallaroo

    made: list[wallaroo.Client] = []
    start = wallaroo.Client.__init__

    def noted(self: wallaroo.Client, *arguments: Any, **more: Any) -> None:
        made.append(self)
        start(self, *arguments, **more)

    monkeypatch.setattr(wallaroo.Client, "__init__", noted)
    yield
    for client in made:
        if hasattr(client, "_transport"):  # a test may expect that it does not come about
            client.close()


@pytest.fixture(scope="session")
def shared_home() -> Iterator[Path]:
    """One platform for the tests that do not break it."""
    with new_home() as home:
        yield home


@pytest.fixture
def own_home() -> Iterator[Path]:
    """A platform of the test's own, to break."""
    with new_home() as home:
        yield home


@pytest.fixture
def wl(shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> wallaroo.Client:
    import wallaroo

    monkeypatch.setenv("BETTONG_HOME", str(shared_home))
    return wallaroo.Client()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def reach(folder: Path) -> Iterator[Path]:
    """The home of a platform that reaches `folder`."""
    with reaching_home({"BETTONG_FILE_FOLDERS": str(folder)}) as home:
        yield home


@pytest.fixture
def adding(wl: wallaroo.Client, tmp_path: Path) -> Pipeline:
    """A pipeline that is not deployed: `y` is `x` plus 10."""
    from wallaroo.framework import Framework

    file = tmp_path / "plus.onnx"
    file.write_bytes(onnx_models.plus(10))
    name = f"plus-{uuid4().hex[:8]}"
    version = wl.upload_model(name, file, Framework.ONNX)
    version.configure(output_schema=pa.schema([pa.field("y", pa.int64())]))
    return wl.build_pipeline(name).add_model_step(wl.get_model(name))


@pytest.fixture(scope="session")
def source() -> Iterator[str]:
    """The base URL of the sample data on a web server of this machine."""
    from serve_data import serve

    with serve() as url:
        yield url


@pytest.fixture(scope="session")
def zips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The forecast models as zips, by name: standard, alternate01, alternate02."""
    from bundle import bundle

    return {p.stem.removeprefix("forecast_"): str(p) for p in bundle(tmp_path_factory.mktemp("zips"))}
