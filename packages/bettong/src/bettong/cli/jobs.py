"""`bettong jobs`: look at the jobs of the platform, and cancel them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from bettong.cli.calls import Server, Teaching
from bettong.cli.tables import show_table

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROOT = "/v1/api/jobs"


@click.group(cls=Teaching)
def jobs() -> None:
    """Jobs: batch inference, stream inference, replays.

    \b
    bettong jobs list --unended
    bettong jobs show 7d2c…
    bettong jobs cancel 7d2c…
    """


@jobs.command("list")
@click.option("--unended", is_flag=True, help="Only those that are pending or running.")
@click.option("-n", "--lines", default=50, show_default=True, type=click.IntRange(1, 1000), help="How many.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer of the server as JSON.")
def list_jobs(unended: bool, lines: int, as_json: bool) -> None:
    """List jobs, newest first."""
    found = Server().post(f"{_ROOT}/list", {"unended": unended, "limit": lines})["jobs"]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    rows = [(j["id"], j["kind"], j["pipeline_name"], j["state"], _rows(j), j["created_at"][:19]) for j in found]
    show_table(("id", "kind", "pipeline", "state", "rows", "created at"), rows, empty="There are no jobs.")


@jobs.command("show")
@click.argument("job_id")
@click.option("--json", "as_json", is_flag=True, help="Print the answer of the server as JSON.")
def show(job_id: str, as_json: bool) -> None:
    """Tell how a job does."""
    job = Server().get(f"{_ROOT}/{job_id}")["job"]
    if as_json:
        click.echo(json.dumps(job, indent=2))
        return
    told = {
        "id": job["id"],
        "kind": job["kind"],
        "pipeline": job["pipeline_name"],
        "state": job["state"],
        "rows": _rows(job),
        "guarantee": job["guarantee"],
        "attempts": job["attempts"],
        "created": job["created_at"][:19],
        "ended": (job["ended_at"] or "")[:19],
        "result": json.dumps(job["result"]) if job["result"] else "",
        "error": job["error"],
    }
    for name, value in told.items():
        if value != "":
            click.echo(f"{name:<10} {value}")


@jobs.command("logs")
@click.argument("job_id")
@click.option("-n", "--lines", default=50, show_default=True, type=click.IntRange(1, 10_000), help="How many.")
def logs(job_id: str, lines: int) -> None:
    """Print what a job has said."""
    for line in Server().get(f"{_ROOT}/{job_id}/log?limit={lines}")["lines"]:
        click.echo(f"{line['at'][:19]}  {line['text']}")


@jobs.command("cancel")
@click.argument("job_id")
def cancel(job_id: str) -> None:
    """Have a job stop where it is safe. What it has written stays."""
    job = Server().post(f"{_ROOT}/{job_id}/cancel")["job"]
    ended = job["state"] if job["ended_at"] else "asked to stop"
    click.echo(f"Job {job['id']}: {ended}.")


def _rows(job: Mapping[str, Any]) -> str:
    progress = job["progress"] or {}
    done, total = progress.get("rows_written") or progress.get("rows_read") or 0, progress.get("rows_total")
    return f"{done:,} of {total:,}" if total else f"{done:,}"
