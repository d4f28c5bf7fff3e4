"""Connections go into a file and come back from it, on the command line, and no secret is ever in the file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from e2e.connection_kit import connections

import wallaroo

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)

SECRET = "correct horse battery"
DETAILS = {"host": "db.example", "port": 5433, "user": "reader", "password": SECRET, "database": "sales", "own": SECRET}
REFERENCE = {"url": {"$secret": "env:RATES_URL"}, "format": "csv"}


def run(home: Path, *words: str, stdin: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
    done = connections(home, *words, stdin=stdin, code=code)
    assert SECRET not in done.stdout + done.stderr
    return done


def test_connections_come_back_from_their_export_and_importing_twice_changes_nothing(
    own_home: Path, tmp_path: Path
) -> None:
    wl = wallaroo.Client()
    warehouse = wl.create_connection("warehouse", "POSTGRES", DETAILS).set_use_only()
    wl.create_connection("rates", "HTTP", REFERENCE)
    wl.create_workspace("team").add_connection("warehouse")
    file = tmp_path / "connections.json"
    file.write_text(run(own_home, "export").stdout)
    of_team = json.loads(run(own_home, "export", "--workspace", "team").stdout)["connections"]
    for name in ("warehouse", "rates"):
        run(own_home, "delete", name, "--yes")

    refused = run(own_home, "import", str(file), code=1).stderr
    assert "Nothing was changed. Values are missing of warehouse: password, own." in refused
    assert list(wl.list_connections()) == []
    masks = json.dumps({"warehouse": {"password": "*****", "own": "x"}})
    assert (
        "warehouse: password." in run(own_home, "import", str(file), "--details-from", "-", stdin=masks, code=1).stderr
    )
    given = json.dumps({"warehouse": {"password": SECRET, "own": {"$secret": "env:OWN"}}})
    made = run(own_home, "import", str(file), "--details-from", "-", stdin=given).stdout
    assert "warehouse: made, use-only, linked to 'team'" in made
    before = [dict(c) for c in wl._transport.post("/v1/api/connections/list")["connections"]]
    again = run(own_home, "import", str(file)).stdout

    assert [c["name"] for c in of_team] == ["warehouse"]
    assert again.splitlines() == ["warehouse: as it was", "rates: as it was"]
    assert wl._transport.post("/v1/api/connections/list")["connections"] == before
    warehouse = wl.get_connection("warehouse")
    assert warehouse.details() == {**DETAILS, "own": {"$secret": "env:OWN"}}
    assert wl.get_connection("rates").details() == REFERENCE
    assert (warehouse.use_only(), warehouse.workspace_names(), warehouse.version()) == (True, ["team"], 1)

    document = json.loads(run(own_home, "export").stdout)
    assert document["connections"][0]["details"]["own"] == {"$secret": "env:OWN"}
    document["connections"][0]["details"]["host"] = "db2.example"
    document["connections"][1]["type"] = "S3"
    other = run(own_home, "import", "-", stdin=json.dumps(document), code=1).stderr
    assert "Connection 'rates' is of type HTTP, and the file says S3." in other
    document["connections"] = document["connections"][:1]
    assert "version 2 is in force" in run(own_home, "import", "-", stdin=json.dumps(document)).stdout
    changed = wl.get_connection("warehouse").details()
    assert (changed["host"], changed["password"]) == ("db2.example", SECRET)
    assert next(v.changed for v in wl.get_connection("warehouse").versions()) == ["host"]
