"""Sensors answered by the platform: a stream inference from topics of a real Mosquitto to another one."""

from __future__ import annotations

import json
import os
import signal
import zipfile
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa
import pytest
from contract.streams.kit import at_least, opened, take
from e2e.connection_kit import reaching_home
from e2e.test_stream_inference import STEP, child_of, counts, eventually
from services.mosquitto import GUEST, GUEST_PASSWORD, PASSWORD, Mosquitto, running_mosquitto

import wallaroo
from wallaroo.framework import Framework
from wallaroo.object import WallarooAPIError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bettong.domain.drivers import Message
    from wallaroo.connection import Connection
    from wallaroo.job import Job
    from wallaroo.pipeline import Pipeline

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def mosquitto() -> Iterator[Mosquitto]:
    with running_mosquitto() as server:
        yield server


@pytest.fixture(scope="module")
def reach() -> Iterator[Path]:
    with reaching_home({"BETTONG_SECRET_ENV": "MQTT_PASSWORD", "MQTT_PASSWORD": PASSWORD}) as home:
        yield home


@pytest.fixture
def wl(reach: Path, monkeypatch: pytest.MonkeyPatch) -> wallaroo.Client:
    monkeypatch.setenv("BETTONG_HOME", str(reach))
    return wallaroo.Client()


@pytest.fixture
def broker(wl: wallaroo.Client, mosquitto: Mosquitto) -> Connection:
    """One whose password the platform looks up itself."""
    details = {**mosquitto.details, "password": {"$secret": "env:MQTT_PASSWORD"}, "listen_s": 0.5}
    return wl.create_connection(f"sensors-{uuid4().hex[:8]}", "MQTT", details)


@pytest.fixture
def pipeline(wl: wallaroo.Client, tmp_path: Path) -> Pipeline:
    """A version that doubles `x`, and fails on 13; deployed nowhere."""
    with zipfile.ZipFile(tmp_path / "doubles.zip", "w") as archive:
        archive.writestr("doubles.py", STEP)
    model = wl.upload_model(
        "doubles",
        tmp_path / "doubles.zip",
        Framework.PYTHON,
        input_schema=pa.schema([pa.field("x", pa.float64())]),
        output_schema=pa.schema([pa.field("y", pa.float64())]),
    )
    built = wl.build_pipeline(f"doubles-{uuid4().hex[:8]}").add_model_step(model)
    built.create_version()
    return built


def joined(server: Mosquitto, *topics: str) -> None:
    """Somebody subscribes to these, and is away from then on."""
    for topic in topics:
        with opened("MQTT", server.details) as source:
            source.consume(topic, "readers", max_messages=1, wait_s=0)


def heard(server: Mosquitto, topic: str, enough: Callable[[list[Message]], bool]) -> list[Message]:
    """What they find when they are back."""
    with opened("MQTT", server.details) as source:
        return take(source, topic, "readers", enough)


def send(broker: Connection, topic: str, values: range) -> None:
    broker.write(topic, pa.table({"x": [float(n) for n in values], "id": list(values)}))


def test_topics_of_sensors_are_answered_over_a_kill_and_nothing_is_lost(
    wl: wallaroo.Client, pipeline: Pipeline, broker: Connection, mosquitto: Mosquitto, reach: Path
) -> None:
    root = f"hall-{uuid4().hex[:8]}"
    predictions, failed = f"{root}-predictions", f"{root}-failed"
    joined(mosquitto, predictions, failed)
    assert broker.test()
    job = pipeline.infer_stream(
        broker, f"{root}/+", broker, predictions, dead_letter=failed, keep=["id"], max_messages=100
    )
    eventually(lambda: began(broker, f"{root}/probe", job), "its group has begun")
    send(broker, f"{root}/a", range(300))
    broker.write(f"{root}/b", pa.table({"y": ["no column of the model's"]}))
    eventually(lambda: counts(job, "predictions_out", 200), "many of the first messages are answered")

    os.kill(child_of(reach).pid, signal.SIGKILL)
    send(broker, f"{root}/a", range(300, 700))
    send(broker, f"{root}/c", range(700, 1_000))
    wanted = set(range(1_000)) - {13}
    made = heard(mosquitto, predictions, lambda got: wanted <= {document(each)["id"] for each in got})
    dead = heard(mosquitto, failed, at_least(2))
    job.cancel().wait()

    answers = [each for each in made if document(each)["id"] >= 0]
    assert job.attempts() == 2
    assert {document(each)["id"] for each in answers} == wanted
    assert all(document(each)["out"] == {"y": document(each)["id"] * 2.0} for each in answers)
    result = job.result()
    assert result is not None
    assert len(answers) - 999 <= result["repeated"]
    assert {each.headers["bettong-source"].partition("@")[0] for each in answers} == {f"{root}/a", f"{root}/c"}
    assert {document(each).get("y", "") for each in dead} == {"", "no column of the model's"}
    assert any("lacks the column 'x'" in each.headers["bettong-error"] for each in dead)
    assert PASSWORD not in repr(job) + "\n".join(job.logs()) + json.dumps(job.request())


def began(broker: Connection, topic: str, job: Job) -> bool:
    """A group has what comes after its first consumer: ask with messages of a number below 0."""
    send(broker, topic, range(-1, 0))
    return counts(job, "predictions_out", 1)


def test_a_notebook_looks_at_topics_and_is_told_what_mqtt_cannot_give(
    wl: wallaroo.Client, broker: Connection, mosquitto: Mosquitto
) -> None:
    topic = f"state-{uuid4().hex[:8]}"
    keeper = wl.create_connection(f"keeper-{uuid4().hex[:8]}", "MQTT", {**mosquitto.details, "retain": True})
    keeper.write(topic, pa.table({"open": [True]}))

    rows = broker.preview(topic, rows=3)
    names = {entry.name for entry in broker.browse()}
    with pytest.raises(WallarooAPIError, match="keeps no messages that could be read back"):
        broker.read(topic)

    assert [json.loads(value) for value in rows["value"]] == [{"open": True}]
    assert topic in names
    report = wl.create_connection(
        f"guest-{uuid4().hex[:8]}", "MQTT", {**mosquitto.details, "user": GUEST, "password": GUEST_PASSWORD + "?"}
    ).test()
    assert not report
    assert "refused the login" in repr(report)


def document(message: Message) -> Any:
    return json.loads(message.value)
