"""Connections over HTTP: used without being seen, changed with their versions, and told to nobody who may not know."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa
import pytest
from driver_doubles import Database
from platform_kit import now

from bettong.api.arrow_streams import PROBLEM
from bettong.domain.jobs import Job, JobKind, JobState
from bettong.errors import Unavailable
from bettong.secrets.keyring import KeyRing

if TYPE_CHECKING:
    import httpx
    from platform_kit import Api, Platform

ROOT = "/v1/api/connections"
STREAM = {"content-type": "application/vnd.apache.arrow.stream"}
SECRET = "correct horse"
ROWS = pa.table({"day": [1, 2, 3], "count": pa.array([10, 20, None], pa.int32())})


@pytest.fixture
def database(platform: Platform) -> Database:
    platform.drivers.databases["sales"] = Database(SECRET, {"daily": ROWS})
    return platform.drivers.databases["sales"]


@pytest.fixture
def made(api: Api, platform: Platform, database: Database) -> str:
    """The id of bob's connection, linked to a workspace that eve is a member of."""
    workspace = platform.workspace("bob")
    details = {"database": "sales", "password": SECRET, "tls": {"key": "k-1"}}
    made: str = api.ok("bob", f"{ROOT}/create", {"name": "c", "type": "Memory", "details": details})["id"]
    api.ok("bob", f"{ROOT}/add_to_workspace", {"workspace_id": workspace, "connection_id": made})
    api.ok("bob", "/v1/api/workspaces/add_user", {"workspace_id": workspace, "email": "eve@example.org"})
    return made


def table(answered: httpx.Response) -> pa.Table:
    assert answered.status_code == 200, answered.text
    return pa.ipc.open_stream(answered.content).read_all()


def stream(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=2)
    return bytes(sink.getvalue())


def write(api: Api, who: str, content: bytes, **params: Any) -> httpx.Response:
    return api.send(who, "POST", f"{ROOT}/write", params=params, content=content, headers=STREAM)


def stranger(api: Api, platform: Platform) -> str:
    """The token of somebody who is a member of nothing."""
    ann = platform.principal("ann")
    platform.services.identity.invite(ann, "mallory@example.org")
    return platform.services.identity.create_token(ann, "mallory@example.org", "test")[0]


def job(platform: Platform, connection_id: str, state: JobState = JobState.PENDING) -> Job:
    (workspace,) = platform.principal("bob").workspace_ids
    kept = Job(
        str(uuid4()), JobKind.INFER_BATCH, workspace, "u", {}, state, now(), connection_ids=(connection_id, "c-other")
    )
    platform.stores.jobs.add(kept)
    return kept


# --- use ------------------------------------------------------------------------------------------------------------


def test_a_member_uses_a_connection_without_seeing_its_details(api: Api, made: str) -> None:
    api.ok("bob", f"{ROOT}/set_use_only", {"id": made, "use_only": True})

    tested = api.ok("eve", f"{ROOT}/test", {"id": made})
    found = api.ok("eve", f"{ROOT}/browse", {"name": "c"})
    first = table(api.send("eve", "POST", f"{ROOT}/preview", json={"id": made, "table": "daily", "rows": 2}))
    whole = table(api.send("eve", "POST", f"{ROOT}/read", json={"id": made, "query": "daily", "batch_rows": 2}))

    assert tested["ok"]
    assert [(stage["stage"], stage["ok"], stage["took_ms"]) for stage in tested["stages"]] == [
        ("details", True, 0.25),
        ("login", True, 1.5),
    ]
    assert found == {"entries": [{"name": "daily", "kind": "table", "detail": "3 rows"}]}
    assert first.equals(ROWS.slice(0, 2))
    assert whole.equals(ROWS)
    for call, body in (("get", {"name": "c", "reveal": True}), ("get_by_id", {"id": made, "reveal": True})):
        refused = api.post("eve", f"{ROOT}/{call}", body)
        assert (refused.status_code, refused.json()["error"]) == (403, "forbidden")
        assert "the right to reveal it is missing" in refused.json()["msg"]
    assert "details" not in api.ok("eve", f"{ROOT}/get", {"name": "c"})  # an old client asks for nothing


def test_only_the_creator_and_administrators_open_a_use_only_connection_to_more_people(
    api: Api, platform: Platform, made: str
) -> None:
    api.ok("bob", f"{ROOT}/set_use_only", {"id": made, "use_only": True})
    eves = {"workspace_id": platform.workspace("eve", "eves"), "connection_id": made}

    assert api.post("eve", f"{ROOT}/add_to_workspace", eves).status_code == 403
    assert "the right to link it is missing" in api.post("eve", f"{ROOT}/add_to_workspace", eves).json()["msg"]
    api.ok("bob", f"{ROOT}/set_use_only", {"id": made, "use_only": False})
    assert api.post("eve", f"{ROOT}/add_to_workspace", eves).status_code == 200
    assert api.ok("eve", f"{ROOT}/get", {"name": "c", "reveal": True})["details"]["password"] == SECRET


def test_to_a_stranger_there_is_no_connection_whatever_is_asked(api: Api, platform: Platform, made: str) -> None:
    mallory = stranger(api, platform)
    asked: dict[str, dict[str, Any]] = {
        "test": {},
        "browse": {},
        "preview": {"table": "daily"},
        "read": {"query": "daily"},
        "update": {"details": {"a": 1}},
        "rotate": {"details": {"a": 1}},
        "masked": {},
        "versions": {},
        "rollback": {"version": 1},
        "purge": {},
        "used_by": {},
        "audit": {},
        "set_use_only": {"use_only": True},
    }

    answers = {c: api.post(mallory, f"{ROOT}/{c}", {"id": made, **body}) for c, body in asked.items()}
    answers["write"] = write(api, mallory, stream(ROWS), id=made, table="daily")
    nowhere = {c: api.post(mallory, f"{ROOT}/{c}", {"id": "none", **body}) for c, body in asked.items()}

    for call, answered in answers.items():
        assert answered.status_code == 404, call
    for call, answered in nowhere.items():
        assert answered.json()["msg"] == answers[call].json()["msg"]
    assert platform.drivers.seen == []


@pytest.mark.parametrize(
    ("call", "body"),
    [
        ("update", {"details": {"password": "x"}}),
        ("rotate", {"details": {"password": "x"}}),
        ("test", {"details": {"password": "x"}}),
        ("masked", {}),
        ("versions", {}),
        ("rollback", {"version": 1}),
        ("purge", {}),
        ("audit", {}),
        ("set_use_only", {"use_only": False}),
        ("delete", {}),
    ],
)
def test_a_member_changes_nothing_and_is_told_which_right_is_missing(
    api: Api, platform: Platform, made: str, call: str, body: dict[str, Any]
) -> None:
    which = {"name": "c"} if call == "delete" else {"id": made}

    refused = api.post("eve", f"{ROOT}/{call}", {**which, **body})

    assert refused.status_code == 403
    assert refused.json()["msg"] == (
        "You may use connection 'c', but the right to edit it is missing. "
        "Its creator and administrators have it: ask one of them."
    )
    assert platform.stores.connections.sealed(made).version == 1


def test_rows_are_appended_replaced_and_upserted(api: Api, made: str, database: Database) -> None:
    new = pa.table({"day": [3, 4], "count": pa.array([30, 40], pa.int32())})

    assert write(api, "eve", stream(new), id=made, table="out").json() == {"rows": 2}
    assert write(api, "eve", stream(new), id=made, table="out").json() == {"rows": 2}
    assert database.tables["out"].num_rows == 4
    write(api, "eve", stream(ROWS), name="c", table="out", mode="replace")
    assert database.tables["out"].equals(ROWS)
    write(api, "eve", stream(new), id=made, table="out", mode="upsert", keys=["day"])
    assert database.tables["out"].column("count").to_pylist() == [10, 20, 30, 40]


@pytest.mark.parametrize(
    ("content", "params", "status", "said"),
    [
        (b"rubbish", {"table": "t"}, 400, "is not a whole Arrow stream"),
        (stream(ROWS)[:-40], {"table": "t"}, 400, "is not a whole Arrow stream"),
        (b"", {"table": "t"}, 400, "is not a whole Arrow stream"),
        (stream(ROWS), {}, 400, "Field 'table' is missing"),
        (
            stream(ROWS),
            {"table": "t", "mode": "merge"},
            400,
            "Field 'mode' must be 'append', 'replace' or 'upsert'. Send one of these.",
        ),
        (stream(ROWS), {"table": "t", "mode": "upsert"}, 400, "Mode upsert and 'keys' go together"),
        (stream(ROWS), {"table": "t", "keys": "day"}, 400, "Mode upsert and 'keys' go together"),
    ],
)
def test_a_write_that_does_not_hold_is_refused_and_leaves_nothing(
    api: Api, made: str, database: Database, content: bytes, params: dict[str, Any], status: int, said: str
) -> None:
    answered = write(api, "bob", content, id=made, **params)

    assert answered.status_code == status
    assert said in answered.json()["msg"]
    assert list(database.tables) == ["daily"]


def test_rows_that_are_no_arrow_stream_are_an_unsupported_format(api: Api, made: str) -> None:
    refused = api.send("bob", "POST", f"{ROOT}/write", params={"id": made, "table": "t"}, json=[{"a": 1}])
    assert (refused.status_code, refused.json()["error"]) == (415, "unsupported_format")


def test_an_error_before_the_first_row_is_an_answer_of_its_own(
    api: Api, platform: Platform, made: str, database: Database
) -> None:
    unknown = api.post("bob", f"{ROOT}/read", {"id": made, "query": "nope"})
    database.password = "changed there"
    refused = api.post("bob", f"{ROOT}/read", {"id": made, "query": "daily"})

    assert (unknown.status_code, refused.status_code) == (400, 503)
    assert platform.drivers.open == 0


def test_an_error_in_the_middle_ends_the_stream_without_its_end_and_says_why(
    api: Api, platform: Platform, made: str, database: Database
) -> None:
    def break_off(number: int) -> None:
        if number == 1:
            raise Unavailable("The source went away.", "Try again.")

    database.before_batch = break_off

    body, ended = api.collect("bob", f"{ROOT}/read", {"id": made, "query": "daily", "batch_rows": 2})

    assert not ended
    reader = pa.ipc.open_stream(body)
    batch, _ = reader.read_next_batch_with_custom_metadata()
    last, told = reader.read_next_batch_with_custom_metadata()
    assert batch.num_rows == 2
    assert last.num_rows == 0
    problem = json.loads(told[PROBLEM])
    assert (problem["code"], problem["error"], problem["msg"]) == (
        503,
        "unavailable",
        "The source went away. Try again.",
    )
    assert platform.drivers.open == 0
    database.before_batch = lambda number: None
    assert api.collect("bob", f"{ROOT}/read", {"id": made, "query": "daily"})[1]


def test_each_use_is_in_the_audit_with_what_it_was_for(api: Api, made: str) -> None:
    api.ok("eve", f"{ROOT}/browse", {"id": made, "purpose": "looking around"})
    table(api.send("eve", "POST", f"{ROOT}/read", json={"id": made, "query": "daily", "purpose": "weekly report"}))
    write(api, "eve", stream(ROWS), id=made, table="out", purpose="forecast")

    events = api.ok("bob", f"{ROOT}/audit", {"id": made})["events"]

    assert [(e["email"], e["action"], e["detail"]) for e in events[:3]] == [
        ("eve@example.org", "connection.write", "forecast"),
        ("eve@example.org", "connection.read", "weekly report"),
        ("eve@example.org", "connection.browse", "looking around"),
    ]
    assert {e["origin"] for e in events} == {"192.0.2.7"}
    assert events[-1]["action"] == "connection.create"
    assert api.ok("bob", f"{ROOT}/used_by", {"id": made})["last_used_at"] is not None


def test_a_type_without_a_driver_is_stored_and_says_so_when_used(api: Api) -> None:
    made = api.ok("bob", f"{ROOT}/create", {"name": "m", "type": "mongodb", "details": {"uri": "x"}})["id"]
    for call, body in (("test", {}), ("browse", {}), ("preview", {"table": "t"}), ("read", {"query": "t"})):
        refused = api.post("bob", f"{ROOT}/{call}", {"id": made, **body})
        assert refused.status_code == 400
        assert "No driver knows the type 'mongodb'" in refused.json()["msg"]
    assert "no driver can test" in api.post("bob", f"{ROOT}/rotate", {"id": made, "details": {}}).json()["msg"]
    assert api.ok("bob", f"{ROOT}/drivers")["drivers"][0]["types"] == ["MEMORY"]


def test_a_reference_reaches_the_driver_and_a_reveal_as_it_was_given(api: Api, platform: Platform) -> None:
    reference = {"$secret": "env:WAREHOUSE_PASSWORD"}
    details = {"database": "none", "password": reference}
    made = api.ok("bob", f"{ROOT}/create", {"name": "r", "type": "MEMORY", "details": details})["id"]

    api.ok("bob", f"{ROOT}/test", {"id": made})

    assert platform.drivers.seen == [details]
    assert api.ok("bob", f"{ROOT}/get_by_id", {"id": made, "reveal": True})["details"] == details
    assert api.ok("bob", f"{ROOT}/masked", {"id": made})["details"] == {"database": "*****", "password": reference}


def test_details_may_be_tested_before_they_are_kept(api: Api, platform: Platform, made: str) -> None:
    works = api.ok("bob", f"{ROOT}/test", {"type": "MEMORY", "details": {"database": "sales", "password": SECRET}})
    masked = api.post("bob", f"{ROOT}/test", {"type": "MEMORY", "details": {"database": "sales", "password": "*****"}})
    change = api.ok("bob", f"{ROOT}/test", {"id": made, "details": {"password": "*****", "tls": {"key": "k-2"}}})
    wrong = api.ok("bob", f"{ROOT}/test", {"id": made, "details": {"password": "guess"}})

    assert works["ok"]
    assert masked.status_code == 400
    assert change["ok"]  # the mask stood for the password that is stored
    assert not wrong["ok"]
    assert platform.stores.connections.sealed(made).version == 1


# --- change ---------------------------------------------------------------------------------------------------------


def test_a_mask_sent_back_keeps_what_is_stored_and_is_never_kept_itself(api: Api, made: str) -> None:
    form = api.ok("bob", f"{ROOT}/masked", {"id": made})["details"]
    assert form == {"database": "*****", "password": "*****", "tls": {"key": "*****"}}

    unchanged = api.ok("bob", f"{ROOT}/update", {"id": made, "details": form, "replace": True})
    changed = api.ok("bob", f"{ROOT}/update", {"id": made, "details": {**form, "tls": {"key": "k-2"}}})
    refused = [
        api.post("bob", f"{ROOT}/update", {"id": made, "details": {"user": "*****"}}),
        api.post("bob", f"{ROOT}/create", {"name": "d", "type": "MEMORY", "details": {"a": ["*****"]}}),
    ]

    assert (unchanged["version"], changed["version"]) == (1, 2)
    assert api.ok("bob", f"{ROOT}/get", {"name": "c", "reveal": True})["details"] == {
        "database": "sales",
        "password": SECRET,
        "tls": {"key": "k-2"},
    }
    assert [r.status_code for r in refused] == [400, 400]
    assert "Field 'a[0]' is *****" in refused[1].json()["msg"]


def test_a_rotation_that_works_switches_and_one_that_does_not_leaves_everything_as_it_was(
    api: Api, made: str, database: Database
) -> None:
    failed = api.ok("bob", f"{ROOT}/rotate", {"id": made, "details": {"password": "guess"}})
    still = api.ok("bob", f"{ROOT}/test", {"id": made})
    database.password = "battery staple"
    switched = api.ok("bob", f"{ROOT}/rotate", {"id": made, "details": {"password": "battery staple"}})

    assert (failed["switched"], failed["connection"]["version"]) == (False, 1)
    assert [s["said"] for s in failed["report"]["stages"] if s["ok"] is False] == ["The database refuses the password."]
    assert still["ok"]
    assert (switched["switched"], switched["connection"]["version"], switched["report"]["ok"]) == (True, 2, True)
    assert api.ok("eve", f"{ROOT}/test", {"id": made})["ok"]


def test_versions_tell_names_of_fields_and_can_be_taken_back(api: Api, made: str) -> None:
    api.ok("bob", f"{ROOT}/update", {"id": made, "details": {"password": "x", "port": 1}, "remove": ["tls"]})
    back = api.ok("bob", f"{ROOT}/rollback", {"id": made, "version": 1})

    versions = api.ok("bob", f"{ROOT}/versions", {"id": made})["versions"]

    assert back["version"] == 3
    assert [(v["version"], v["current"], v["readable"]) for v in versions] == [
        (3, True, True),
        (2, False, True),
        (1, False, True),
    ]
    assert versions[1]["changes"] == {"added": ["port"], "removed": ["tls.key"], "changed": ["password"]}
    assert versions[2]["changes"] is None
    assert SECRET not in json.dumps(versions)
    assert api.ok("eve", f"{ROOT}/test", {"id": made})["ok"]
    assert api.ok("bob", f"{ROOT}/purge", {"id": made}) == {"purged": 2}
    assert api.post("bob", f"{ROOT}/rollback", {"id": made, "version": 1}).status_code == 404
    assert api.post("bob", f"{ROOT}/rollback", {"id": made, "version": 3}).status_code == 400


def test_details_of_an_earlier_form_work_as_they_are_and_take_the_present_one_when_they_change(
    api: Api, platform: Platform, database: Database
) -> None:
    stored = {"database": "sales", "secret_word": SECRET}
    made = api.ok("bob", f"{ROOT}/create", {"name": "old", "type": "MEMORY", "details": stored})["id"]

    assert api.ok("bob", f"{ROOT}/test", {"id": made})["ok"]
    (version,) = api.ok("bob", f"{ROOT}/versions", {"id": made})["versions"]
    assert version["read_as"] == ["'secret_word' is read as 'password'"]
    same = api.ok("bob", f"{ROOT}/update", {"id": made, "details": {"secret_word": "*****"}})
    assert (same["version"], api.ok("bob", f"{ROOT}/get", {"name": "old", "reveal": True})["details"]) == (1, stored)

    api.ok("bob", f"{ROOT}/update", {"id": made, "details": {"note": "n"}})

    details = api.ok("bob", f"{ROOT}/get", {"name": "old", "reveal": True})["details"]
    assert details == {"database": "sales", "password": SECRET, "note": "n"}
    newest, first = api.ok("bob", f"{ROOT}/versions", {"id": made})["versions"]
    assert (newest["read_as"], len(first["read_as"])) == ([], 1)
    assert newest["changes"] == {"added": ["note", "password"], "removed": ["secret_word"], "changed": []}
    assert SECRET not in json.dumps([newest, first])


def test_of_two_who_change_it_at_once_the_second_is_told(api: Api, platform: Platform, made: str) -> None:
    bodies: list[dict[str, Any]] = [{"id": made, "details": {f"field-{n}": n}} for n in range(6)]

    answers = api.together(*(("bob", f"{ROOT}/update", body) for body in bodies))

    won = [r.json()["version"] for r in answers if r.status_code == 200]
    assert {r.status_code for r in answers} <= {200, 409}
    assert sorted(won) == list(range(2, 2 + len(won)))
    details = api.ok("bob", f"{ROOT}/get", {"name": "c", "reveal": True})["details"]
    assert len([name for name in details if name.startswith("field-")]) == len(won)  # no change was lost


def test_a_version_under_a_lost_key_is_told_as_such_and_the_others_work(
    api: Api, platform: Platform, made: str
) -> None:
    lost = KeyRing([b"x" * 32]).seal(b"{}", bound_to=f"{made}/1")
    assert platform.stores.connections.reseal(platform.stores.connections.sealed(made), lost)

    refused = api.post("eve", f"{ROOT}/test", {"id": made})
    versions = api.ok("bob", f"{ROOT}/versions", {"id": made})["versions"]

    assert refused.status_code == 503
    assert "Connection 'c' cannot be opened" in refused.json()["msg"]
    assert [(v["readable"], v["changes"]) for v in versions] == [(False, None)]


# --- where used -----------------------------------------------------------------------------------------------------


def test_a_connection_tells_where_it_is_used_and_how_much_more_there_is(
    api: Api, platform: Platform, made: str
) -> None:
    running, _ = job(platform, made), job(platform, made, JobState.SUCCEEDED)
    anns = platform.workspace("ann", "anns")
    api.ok("ann", f"{ROOT}/add_to_workspace", {"workspace_id": anns, "connection_id": made})

    told = api.ok("bob", f"{ROOT}/used_by", {"id": made})
    everything = api.ok("ann", f"{ROOT}/used_by", {"id": made})

    assert (told["workspace_names"], told["hidden_workspaces"]) == (["forecasts"], 1)
    assert [(j["id"], j["state"]) for j in told["jobs"]] == [(running.id, "pending")]
    assert (everything["workspace_names"], everything["hidden_workspaces"]) == (["forecasts", "anns"], 0)
    assert told["last_used_at"] is None


def test_a_connection_of_an_unended_job_is_deleted_only_by_force(api: Api, platform: Platform, made: str) -> None:
    busy = job(platform, made)

    refused = api.post("bob", f"{ROOT}/delete", {"name": "c"})

    assert refused.status_code == 409
    assert f"used by 1 unended job: infer_batch {busy.id} (pending)" in refused.json()["msg"]
    assert api.post("bob", f"{ROOT}/delete", {"name": "c", "force": True}).status_code == 204
    assert api.post("bob", f"{ROOT}/get", {"name": "c"}).status_code == 404


def test_no_answer_but_a_reveal_holds_a_detail(api: Api, platform: Platform, made: str) -> None:
    body = {"id": made}
    answers = [
        api.send("bob", "POST", f"{ROOT}/{call}", json={**body, **more})
        for call, more in (
            ("test", {}),
            ("browse", {}),
            ("preview", {"table": "daily"}),
            ("read", {"query": "daily"}),
            ("update", {"details": {"port": 1}}),
            ("rotate", {"details": {"port": 2}}),
            ("masked", {}),
            ("versions", {}),
            ("rollback", {"version": 1}),
            ("used_by", {}),
            ("audit", {}),
            ("set_use_only", {"use_only": True}),
            ("purge", {}),
        )
    ]

    assert {r.status_code for r in answers} == {200}
    assert [r.url.path for r in answers if SECRET.encode() in r.content or b"k-1" in r.content] == []
