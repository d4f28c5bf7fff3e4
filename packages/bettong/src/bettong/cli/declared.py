"""`bettong connections export | import`: Connections as a file that may lie beside code, since no secret is in it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from bettong.cli.calls import Server, fail
from bettong.cli.details_in import text_from
from bettong.cli.questions import typed
from bettong.domain.declarations import Declaration, filled, from_document, to_document, unanswered
from bettong.domain.details import changed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ROOT = "/v1/api/connections"


@click.command("export")
@click.option("--workspace", metavar="NAME", help="Only the Connections of this workspace, with their link to it.")
def export_connections(workspace: str | None) -> None:
    """Print Connections as JSON, which is YAML too: references as they are, ***** for what is secret. Ends with 1 when
    some had to be left out."""
    server = Server()
    asked: dict[str, Any] = {}
    if workspace is not None:
        asked["workspace_id"] = server.post("/v1/api/workspaces/get", {"name": workspace})["id"]
    found = server.post(f"{_ROOT}/export", asked)
    declared = [
        Declaration(
            c["name"],
            c["type"],
            c["details"],
            c["use_only"],
            tuple(name for name in c["workspace_names"] if workspace in (None, name)),
        )
        for c in found["connections"]
    ]
    click.echo(json.dumps(to_document(declared), indent=2))
    for left in found["left_out"]:
        click.echo(f"Left out: {left['why']}", err=True)
    if found["left_out"]:
        sys.exit(1)


@click.command("import")
@click.argument("file")
@click.option(
    "--details-from",
    "given",
    metavar="FILE",
    help='A JSON file with what is missing, such as {"warehouse": {"password": "…"}}, or - for standard input.',
)
def import_connections(file: str, given: str | None) -> None:
    """Make and change Connections until they are as FILE (or -) says. What is ***** there stays as it is stored; what
    is stored nowhere yet is taken from --details-from, or you are asked. Importing twice changes nothing."""
    if file == given == "-":
        fail("Standard input cannot be both. Put the Connections or the details into a file.")
    declared = from_document(_json(file, "Connections"))
    answers = _answers(given, [d.name for d in declared])
    server = Server()
    there = {c["name"]: c for c in server.post(f"{_ROOT}/list")["connections"]}
    ready = [_ready(server, d, there.get(d.name), answers.get(d.name, {})) for d in declared]
    missing = {d.name: places for d, places in ready if places}
    if missing and (not sys.stdin.isatty() or "-" in (file, given)):
        told = "; ".join(f"{name}: {', '.join(places)}" for name, places in missing.items())
        fail(
            f"Nothing was changed. Values are missing of {told}. "
            "Give them with --details-from, or run it in a terminal."
        )
    drivers = server.post(f"{_ROOT}/drivers")["drivers"] if missing else []
    whole = [_asked(d, places, drivers) for d, places in ready]
    workspaces = _workspaces(server, whole)
    for each in whole:
        click.echo(f"{each.name}: {_apply(server, each, there.get(each.name), workspaces)}")


def _json(place: str, what: str) -> Any:
    try:
        return json.loads(text_from(place))
    except ValueError as wrong:
        at = f" (line {wrong.lineno}, column {wrong.colno})" if isinstance(wrong, json.JSONDecodeError) else ""
        fail(f"The {what} are no JSON{at}.")


def _answers(place: str | None, names: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
    found = {} if place is None else _json(place, "details")
    if not isinstance(found, dict) or not all(isinstance(details, dict) for details in found.values()):
        fail('The details are no JSON object of objects by the names of Connections: {"warehouse": {"password": …}}.')
    if unknown := sorted(found.keys() - set(names)):
        fail(f"There are details for {', '.join(unknown)}, which the file does not declare.")
    return found


def _ready(
    server: Server, declared: Declaration, there: Mapping[str, Any] | None, answers: Mapping[str, Any]
) -> tuple[Declaration, list[str]]:
    """What is declared with the answers over it, and the places for which there is no value yet."""
    if there is not None and there["type"].upper() != declared.type.upper():
        fail(
            f"Connection '{declared.name}' is of type {there['type']}, and the file says {declared.type}. "
            "Delete it first, or declare it under another name."
        )
    stored = {} if there is None else server.post(f"{_ROOT}/masked", {"name": declared.name})["details"]
    details = changed(declared.details, answers)
    made = Declaration(declared.name, declared.type, details, declared.use_only, declared.workspaces)
    return made, unanswered(details, stored)


def _asked(declared: Declaration, places: Sequence[str], drivers: Sequence[Mapping[str, Any]]) -> Declaration:
    """The declaration with what a person types for `places`, unseen. A text, or a reference."""
    driver = next((d for d in drivers if declared.type.upper() in d["types"]), None)
    fields = driver["details_schema"].get("properties", {}) if driver else {}
    values: dict[str, Any] = {}
    for place in places:
        label = f"{declared.name}: {place} (not shown)"
        while not (text := click.prompt(label, default="", show_default=False, hide_input=True, err=True)):
            click.echo(f"'{place}' is needed.", err=True)
        values[place] = typed(text, fields.get(place, {}))
    details = filled(declared.details, values)
    return Declaration(declared.name, declared.type, details, declared.use_only, declared.workspaces)


def _workspaces(server: Server, declared: Sequence[Declaration]) -> dict[str, int]:
    """The ids of the workspaces that are named; those that are not there are made."""
    found = {w["name"]: int(w["id"]) for w in server.post("/v1/api/workspaces/list")["workspaces"]}
    for name in dict.fromkeys(name for each in declared for name in each.workspaces):
        if name not in found:
            made = server.post("/v1/api/workspaces/create", {"workspace_name": name})
            found[name] = int(made["workspace_id"])
            click.echo(f"Made workspace '{name}'.")
    return found


def _apply(
    server: Server, declared: Declaration, there: Mapping[str, Any] | None, workspaces: Mapping[str, int]
) -> str:
    """Make it so, and say in words what that took. Rights are narrowed before it is linked to more people."""
    done = []
    if there is None:
        request = {"name": declared.name, "type": declared.type, "details": declared.details}
        made = server.post(f"{_ROOT}/create", request)["id"]
        done.append("made")
    else:
        made = there["id"]
        change = {"id": made, "details": declared.details, "replace": True}
        version = server.post(f"{_ROOT}/update", change)["version"]
        if version != there["version"]:
            done.append(f"version {version} is in force")
    if declared.use_only != (there is not None and there["use_only"]):
        server.post(f"{_ROOT}/set_use_only", {"id": made, "use_only": declared.use_only})
        done.append("use-only" if declared.use_only else "no longer use-only")
    for name in declared.workspaces:
        if there is None or name not in there["workspace_names"]:
            server.post(f"{_ROOT}/add_to_workspace", {"workspace_id": workspaces[name], "connection_id": made})
            done.append(f"linked to '{name}'")
    return ", ".join(done) or "as it was"
