"""The command line: `bettong up | status | stop | serve | logs | token | tokens | connections | jobs | keys`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from bettong import __version__, compose
from bettong.cli import launch, record
from bettong.cli.calls import CALL_TIMEOUT_S, Teaching, call, fail, running, token_of
from bettong.cli.connections import connections
from bettong.cli.jobs import jobs
from bettong.cli.keys import keys
from bettong.services import text_logs

if TYPE_CHECKING:
    from pathlib import Path


@click.group(cls=Teaching, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bettong")
def cli() -> None:
    """bettong: from a model file to a running, watched pipeline, on this machine.

    \b
    bettong up        start the platform in the background
    bettong status    see what runs
    bettong stop      stop it, deployments included

    Everything it keeps lies in one folder: $BETTONG_HOME, or ~/.bettong.
    """


@cli.command()
def up() -> None:
    """Start the platform in the background, or find the one that runs.

    It listens on loopback only. Notebooks on this machine find it by themselves: `wallaroo.Client()`.
    """
    settings = compose.settings_from_environment()
    compose.prepare_home(settings)
    found, started = launch.up(settings.home, compose.child_environment(settings))
    state = "started" if started else "was running already"
    click.echo(f"bettong {found.version} {state} at {found.url} (home {settings.home}).")
    for warning in call(settings, found, "GET", "/v1/api/platform/status")["warnings"]:
        click.echo(f"Warning: {warning}")


@cli.command()
@click.option("--host", help="Address to listen on; loopback unless told otherwise.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 = the last one if it is free.")
@click.option(
    "--database-url", help="postgresql://… instead of the SQLite file in the home folder; needs BETTONG_KEYS."
)
def serve(host: str | None, port: int | None, database_url: str | None) -> None:
    """Run the platform in the foreground: for services of the operating system, and to watch it.

    Every option has an environment variable: BETTONG_HOST, BETTONG_PORT, BETTONG_DATABASE_URL. Settings that are
    secrets have nothing but a variable: BETTONG_KEYS.
    """
    from bettong.cli import server  # the heavy half; other commands do without it

    server.serve(compose.settings_from_environment(host=host, port=port, database_url=database_url))


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print the answer of the server as JSON.")
def status(as_json: bool) -> None:
    """Tell whether the platform runs, where, and how its deployments do."""
    settings = compose.settings_from_environment()
    found = record.running(settings.home)
    if found is None:
        left = compose.hosts_left(settings)
        click.echo(
            f"No platform runs in {settings.home}."
            + (f" {_count(left, 'deployment')} of it still answer without it." if left else "")
            + " Start it with: bettong up"
        )
        sys.exit(3)
    facts = call(settings, found, "GET", "/v1/api/platform/status")
    deployments = call(settings, found, "POST", "/v1/api/deployments/list")["deployments"]
    deployed = [d for d in deployments if d["deployed"]]
    if as_json:
        click.echo(json.dumps({**facts, "deployed": deployed}, indent=2))
        return
    click.echo(f"bettong {facts['version']} runs at {facts['url']} since {facts['started_at']} (home {facts['home']}).")
    click.echo(f"Model workers: {facts['sandbox']}.")
    for warning in facts["warnings"]:
        click.echo(f"Warning: {warning}")
    if not deployed:
        click.echo("Nothing is deployed.")
    for deployment in deployed:
        state = call(settings, found, "POST", "/v1/api/status/get_deployment", {"name": deployment["label"]})
        click.echo(f"{deployment['label']:<40} {state['status']:<9} {deployment['url'] or '-'}")
        if state["target"]["error"]:
            click.echo(f"{'':<40} {state['target']['error']}")


@cli.command()
@click.option("--keep-deployments", is_flag=True, help="Stop the server alone; what is deployed goes on answering.")
def stop(keep_deployments: bool) -> None:
    """Stop the platform. What was deployed comes back with the next `bettong up`."""
    settings = compose.settings_from_environment()
    found = record.running(settings.home)
    if found is None:
        left = 0 if keep_deployments else compose.stop_hosts(settings)
        click.echo(
            f"No platform runs in {settings.home}."
            + (f" Stopped {_count(left, 'deployment')} that it had left." if left else "")
        )
        return
    call(settings, found, "POST", "/v1/api/platform/stop", {"keep_deployments": keep_deployments})
    if not launch.wait_for_end(found.pid, CALL_TIMEOUT_S):
        fail(f"The server (pid {found.pid}) has not ended within {CALL_TIMEOUT_S:g} s. See: bettong logs")
    click.echo("Stopped." if not keep_deployments else "Stopped the server; deployments go on answering.")


@cli.command()
@click.option("--deployment", metavar="LABEL", help="The log of one deployment's processes, such as rental-forecast-1.")
@click.option("--model", metavar="MODEL", help="With --deployment: what one model of it printed, tracebacks included.")
@click.option(
    "-n", "--lines", default=50, show_default=True, type=click.IntRange(1), help="How many of the last lines."
)
def logs(deployment: str | None, model: str | None, lines: int) -> None:
    """Print the last lines of the server's log, of a deployment's, or of a model's."""
    settings = compose.settings_from_environment()
    if model is not None and deployment is None:
        fail("--model names a model of a deployment: give --deployment too. `bettong status` lists the deployments.")
    path = settings.home / launch.LOG if deployment is None else _deployment_log(settings.home, deployment, model)
    if not path.is_file():
        fail(
            f"There is no log at {path}. A server in the foreground (bettong serve) logs to where it was started; "
            "`bettong status` lists what is deployed."
        )
    for line in text_logs.tail(path, lines, most_bytes=2 * text_logs.KEPT_BYTES):
        click.echo(line)


@cli.command()
@click.option(
    "--header", is_flag=True, help="Print an Authorization header, for curl: bettong token --header | curl -H @- …"
)
def token(header: bool) -> None:
    """Print the API token of the person who owns this platform.

    Keep it off command lines, where others can see it: hand it to programs through a pipe or a file.
    """
    text = token_of(compose.settings_from_environment().home)
    click.echo(f"Authorization: Bearer {text}" if header else text)


@cli.group(cls=Teaching)
def tokens() -> None:
    """API tokens of the people and programs that use this platform."""


@tokens.command("create")
@click.argument("email")
@click.option("--label", default="", help="What it is for, in your words.")
@click.option("--invite", is_flag=True, help="Make the user first, if nobody has that address.")
@click.option("--json", "as_json", is_flag=True, help="Print the file that WALLAROO_SDK_CREDENTIALS names.")
def tokens_create(email: str, label: str, invite: bool, as_json: bool) -> None:
    """Print a new API token for the user with that address.

    It is told this once. Hand it on by a file that only its owner can read, or through a pipe.
    """
    settings = compose.settings_from_environment()
    found = running(settings)
    if invite:
        call(settings, found, "POST", "/v1/api/users/invite", {"email": email})
    made = call(settings, found, "POST", "/v1/api/users/create_token", {"email": email, "label": label})
    click.echo(json.dumps(made, indent=2) if as_json else made["token"])


cli.add_command(connections)
cli.add_command(jobs)
cli.add_command(keys)


def main() -> None:
    cli(prog_name="bettong")


def _deployment_log(home: Path, label: str, model: str | None) -> Path:
    """The log of a deployment's host and replicas, or of the newest worker of a model that is named without its id.

    Names are looked up, never joined to a path.
    """
    folder = home / "deployments"
    known = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    if label not in known:
        fail(f"There is no deployment '{label}'. Those with a log: {', '.join(known) or 'none'}.")
    if model is None:
        return folder / label / "host.log"
    workers = {p.stem: p for p in (folder / label).glob("*.log") if p.stem != "host"}
    named = [uid for uid in workers if model in (uid, uid.rpartition("-")[0])]
    if not named:
        fail(f"Deployment '{label}' has no log of a model '{model}'. It has: {', '.join(sorted(workers)) or 'none'}.")
    return workers[max(named, key=lambda uid: workers[uid].stat().st_mtime)]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
