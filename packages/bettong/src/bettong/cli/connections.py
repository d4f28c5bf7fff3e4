"""`bettong connections`: make, look at, use and change Connections. Details never go on the command line."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from bettong.cli.calls import Server, Teaching, fail
from bettong.cli.declared import export_connections, import_connections
from bettong.cli.details_in import TakesDetails, is_asked, read_details, remark_on_fields, remark_on_type
from bettong.cli.tables import show_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ROOT = "/v1/api/connections"
_DETAILS = click.option(
    "--details",
    "place",
    metavar="FILE",
    help="A JSON file with the details, or - for standard input. Without it you are asked, secrets unseen.",
)


@click.group(cls=Teaching)
def connections() -> None:
    """Connections: how code and the platform reach data sources.

    \b
    bettong connections create warehouse POSTGRES --details warehouse.json
    bettong connections test warehouse
    bettong connections preview warehouse sales.daily
    """


connections.add_command(export_connections)
connections.add_command(import_connections)


@connections.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the answer of the server as JSON.")
def list_connections(as_json: bool) -> None:
    """List the Connections, never their details."""
    found = Server().post(f"{_ROOT}/list")["connections"]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    rows = [(c["name"], c["type"], c["version"], _last(c), ", ".join(c["workspace_names"])) for c in found]
    show_table(("name", "type", "version", "last used", "workspaces"), rows, empty="There are no Connections.")


@connections.command("drivers")
def drivers() -> None:
    """List the types that the platform can use, and what their details hold. Other types are stored only."""
    found = Server().post(f"{_ROOT}/drivers")["drivers"]
    for driver in found:
        ready = "" if driver["installed"] else f'  (pip install "bettong[{driver["extra"]}]")'
        click.echo(f"{', '.join(driver['types'])}: {', '.join(driver['capabilities'])}{ready}")
        for name, field in driver["details_schema"].get("properties", {}).items():
            needed = "needed" if name in driver["details_schema"].get("required", ()) else ""
            secret = "secret" if name in driver["secret_fields"] else ""
            marks = ", ".join(filter(None, (needed, secret)))
            click.echo(f"  {name:<24} {marks:<15} {field.get('description', '')}".rstrip())


@connections.command("create", cls=TakesDetails)
@click.argument("name")
@click.argument("type")
@_DETAILS
@click.option("--workspace", "workspaces", multiple=True, metavar="NAME", help="Link it to this workspace.")
@click.option("--use-only", is_flag=True, help="Let others use it, and not see its details.")
def create(name: str, type: str, place: str | None, workspaces: Sequence[str], use_only: bool) -> None:
    """Make a Connection of a TYPE, such as POSTGRES; any other text will do for one that is stored only."""
    server = Server()
    ids = [server.post("/v1/api/workspaces/get", {"name": workspace})["id"] for workspace in workspaces]
    if is_asked(place):
        _refuse_taken(server, name)
    driver, types = _driver(server, type)
    if stored_only := remark_on_type(type, driver, types):
        click.echo(stored_only, err=True)
    details = read_details(place, driver)
    made = server.post(f"{_ROOT}/create", {"name": name, "type": type, "details": details})["id"]
    if use_only:
        server.post(f"{_ROOT}/set_use_only", {"id": made, "use_only": True})
    for workspace_id in ids:
        server.post(f"{_ROOT}/add_to_workspace", {"workspace_id": workspace_id, "connection_id": made})
    if remark := remark_on_fields(type, driver, details):
        click.echo(remark, err=True)
    tried = f" Try it: {shlex.join(('bettong', 'connections', 'test', name))}" if driver else ""
    click.echo(f"Made Connection '{name}'.{tried}")


@connections.command("test")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def test(name: str, as_json: bool) -> None:
    """Tell layer by layer whether a Connection works. Ends with 1 when it does not."""
    report = Server().post(f"{_ROOT}/test", {"name": name})
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        _show_report(report)
    if not report["ok"]:
        sys.exit(1)


@connections.command("browse")
@click.argument("name")
@click.argument("path", default="")
def browse(name: str, path: str) -> None:
    """List what there is to read: schemas, tables, files, topics."""
    found = Server().post(f"{_ROOT}/browse", {"name": name, "path": path})["entries"]
    show_table(("name", "kind", ""), [(e["name"], e["kind"], e["detail"]) for e in found], empty="There is nothing.")


@connections.command("preview")
@click.argument("name")
@click.argument("table", default="")
@click.option("-n", "--rows", default=10, show_default=True, type=click.IntRange(1, 1000), help="How many rows.")
def preview(name: str, table: str, rows: int) -> None:
    """Print the first rows of a table."""
    from bettong.cli.row_files import rows_of

    request = {"name": name, "table": table, "rows": rows}
    with rows_of(Server(), f"{_ROOT}/preview", request) as (schema, batches):
        values = [tuple(row.values()) for batch in batches for row in batch.to_pylist()]
    show_table(schema.names, values, empty=f"No rows. The columns are: {', '.join(schema.names)}.")


@connections.command("read")
@click.argument("name")
@click.argument("query", default="")
@click.option("-o", "--output", metavar="FILE", help="A .csv, .parquet, .arrow or .jsonl file. Without it: CSV.")
@click.option("--limit", type=click.IntRange(0), help="The most rows.")
@click.option("--purpose", default="", help="What for, in your words; it goes into the audit.")
def read(name: str, query: str, output: str | None, limit: int | None, purpose: str) -> None:
    """Read rows: of a query, a table, a path, whatever the type reads."""
    from bettong.cli.row_files import rows_of, save

    request = {"name": name, "query": query, "purpose": purpose, **({} if limit is None else {"limit": limit})}
    with rows_of(Server(), f"{_ROOT}/read", request) as (schema, batches):
        rows = save(schema, batches, output)
    click.echo(f"Read {_rows(rows)}.", err=True)


@connections.command("write")
@click.argument("name")
@click.argument("table")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--mode", type=click.Choice(["append", "replace", "upsert"]), default="append", show_default=True)
@click.option("--key", "keys", multiple=True, metavar="COLUMN", help="With upsert: a column that tells rows apart.")
@click.option("--purpose", default="", help="What for, in your words; it goes into the audit.")
def write(name: str, table: str, file: str, mode: str, keys: Sequence[str], purpose: str) -> None:
    """Write the rows of a .csv, .parquet, .arrow or .jsonl file into a table."""
    from bettong.cli.row_files import ARROW_STREAM, load

    params = [("name", name), ("table", table), ("mode", mode), ("purpose", purpose)]
    params += [("keys", key) for key in keys]
    done = Server().send(f"{_ROOT}/write", params, load(file), ARROW_STREAM)
    click.echo(f"Wrote {_rows(done['rows'])}.")


@connections.command("update", cls=TakesDetails)
@click.argument("name")
@_DETAILS
@click.option("--remove", "removed", multiple=True, metavar="FIELD", help="Drop this field.")
def update(name: str, place: str | None, removed: Sequence[str]) -> None:
    """Change details: those given go over what is stored, untested. A value ***** stays as it is."""
    server = Server()
    details, remark = ({}, "") if removed and place is None else _change(server, name, place)
    changed = server.post(f"{_ROOT}/update", {"name": name, "details": details, "remove": list(removed)})
    if remark:
        click.echo(remark, err=True)
    click.echo(f"Version {changed['version']} of '{name}' is in force.")


@connections.command("rotate", cls=TakesDetails)
@click.argument("name")
@_DETAILS
def rotate(name: str, place: str | None) -> None:
    """Test changed details, and put them in force if they work; you are asked for secrets alone. Ends with 1 when they
    do not."""
    server = Server()
    details, _ = _change(server, name, place, secrets=True)
    done = server.post(f"{_ROOT}/rotate", {"name": name, "details": details})
    _show_report(done["report"])
    version = done["connection"]["version"]
    if not done["switched"]:
        click.echo(f"Not switched: version {version} of '{name}' stays in force.")
        sys.exit(1)
    click.echo(f"Version {version} of '{name}' is in force.")


@connections.command("versions")
@click.argument("name")
def versions(name: str) -> None:
    """List the versions of the details, with the names of the fields that changed."""
    kept = Server().post(f"{_ROOT}/versions", {"name": name})["versions"]
    show_table(
        ("version", "", "created at", "changed", "added", "removed", "earlier form"),
        [
            (
                v["version"],
                "in force" if v["current"] else "" if v["readable"] else "unreadable",
                v["created_at"][:19],
                *(", ".join((v["changes"] or {}).get(how, ())) for how in ("changed", "added", "removed")),
                "; ".join(v["read_as"]),
            )
            for v in kept
        ],
        empty="There are no versions.",
    )


@connections.command("rollback")
@click.argument("name")
@click.argument("version", type=click.IntRange(1))
def rollback(name: str, version: int) -> None:
    """Put the details of an older version in force again, as a new version."""
    changed = Server().post(f"{_ROOT}/rollback", {"name": name, "version": version})
    click.echo(f"Version {changed['version']} of '{name}' is in force, with the details of version {version}.")


@connections.command("used-by")
@click.argument("name")
def used_by(name: str) -> None:
    """Tell where a Connection is used: workspaces, jobs that have not ended, the last use."""
    _show_uses(Server().post(f"{_ROOT}/used_by", {"name": name}))


@connections.command("audit")
@click.argument("name")
@click.option("-n", "--lines", default=50, show_default=True, type=click.IntRange(1, 10_000), help="How many.")
def audit(name: str, lines: int) -> None:
    """Tell what was done with a Connection and by whom, newest first."""
    events = Server().post(f"{_ROOT}/audit", {"name": name, "limit": lines})["events"]
    rows = [(e["at"][:19], e["email"], e["action"].removeprefix("connection."), e["detail"]) for e in events]
    show_table(("at", "who", "did", "what for"), rows, empty="Nothing was done.")


@connections.command("delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Also while jobs that have not ended use it: they fail.")
def delete(name: str, yes: bool, force: bool) -> None:
    """Delete a Connection, its details in every version, and every link. Shows first where it is used."""
    server = Server()
    if not yes:
        _show_uses(server.post(f"{_ROOT}/used_by", {"name": name}))
        click.confirm(f"Delete Connection '{name}'?", abort=True, err=True)
    server.post(f"{_ROOT}/delete", {"name": name, "force": force})
    click.echo(f"Deleted Connection '{name}'.")


def _refuse_taken(server: Server, name: str) -> None:
    """Said before the first question: nobody types details for a name that is taken."""
    if any(c["name"] == name for c in server.post(f"{_ROOT}/list")["connections"]):
        change = shlex.join(("bettong", "connections", "update", name))
        fail(f"A connection '{name}' exists already. Choose another name, or change that one: {change}")


def _change(server: Server, name: str, place: str | None, *, secrets: bool = False) -> tuple[dict[str, Any], str]:
    """The details to send, and what is to be said of them."""
    kind = server.post(f"{_ROOT}/get", {"name": name, "reveal": False})["type"]
    driver, _ = _driver(server, kind)
    details = read_details(place, driver, change=True, secrets=secrets)
    return details, remark_on_fields(kind, driver, details)


def _driver(server: Server, kind: str) -> tuple[Mapping[str, Any] | None, list[str]]:
    """The driver of a type, None when there is none, and every type that has one."""
    found = server.post(f"{_ROOT}/drivers")["drivers"]
    driver = next((driver for driver in found if kind.upper() in driver["types"]), None)
    return driver, [name for each in found for name in each["types"]]


def _show_report(report: Mapping[str, Any]) -> None:
    for stage in report["stages"]:
        state = {True: "ok", False: "FAILED", None: "-"}[stage["ok"]]
        said = stage["said"] if stage["ok"] is not None else ""
        click.echo(f"{stage['stage']:<11} {state:<7} {stage['took_ms']:>9.1f} ms  {said}".rstrip())
        if stage["next_step"]:
            click.echo(f"{'':<11} {stage['next_step']}")
    click.echo("It works." if report["ok"] else "It does not work.")


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"


def _show_uses(uses: Mapping[str, Any]) -> None:
    jobs = [f"{job['kind']} {job['id']} ({job['state']})" for job in uses["jobs"]]
    click.echo(f"Workspaces: {', '.join(uses['workspace_names']) or 'none'}")
    click.echo(f"Unended jobs: {', '.join(jobs) or 'none'}")
    click.echo(f"Last used: {_last(uses)}")


def _last(record: Mapping[str, Any]) -> str:
    return str(record["last_used_at"] or "never")[:19]
