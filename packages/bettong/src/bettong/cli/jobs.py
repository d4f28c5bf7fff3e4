"""`bettong jobs`: look at the jobs of the platform, and cancel them."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from bettong.cli.calls import Server, Teaching, fail
from bettong.cli.tables import show_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ROOT = "/v1/api/jobs"


_PAGE = 1000  # jobs of an answer
_SHORTEST_ID, _WHOLE_ID = 4, 36
_HAD = {"succeeded": "succeeded", "failed": "failed", "cancelled": "been cancelled"}


def _some_id(context: click.Context, _: click.Parameter, job_id: str | None) -> str:
    if not job_id:
        raise click.UsageError("Say which job, by its id or its first characters. bettong jobs list has them.", context)
    return job_id


_JOB = click.argument("job_id", required=False, metavar="ID", callback=_some_id)


@click.group(cls=Teaching)
def jobs() -> None:
    """Jobs: batch inference, stream inference, replays. The first four characters of an id, or more, will do.

    \b
    bettong jobs list --unended
    bettong jobs show 7d2c…
    bettong jobs rejects 7d2c…
    bettong jobs cancel 7d2c…
    """


@jobs.command("list")
@click.option("--unended", is_flag=True, help="Only those that are pending or running.")
@click.option("-n", "--lines", default=50, show_default=True, type=click.IntRange(1), help="How many.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer of the server as JSON.")
def list_jobs(unended: bool, lines: int, as_json: bool) -> None:
    """List jobs, newest first."""
    server = Server()
    listed = list(islice(_listed(server, unended=unended, most=lines + 1), lines + 1))
    found = listed[:lines]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    rows = [(j["id"], j["kind"], j["pipeline_name"], j["state"], _progress(j), j["created_at"][:19]) for j in found]
    empty = "" if rows else _none(server, unended=unended)
    show_table(("id", "kind", "pipeline", "state", "progress", "created at"), rows, empty=empty)
    if len(listed) > lines:
        click.echo(f"There are older ones: bettong jobs list -n {10 * lines}", err=True)


@jobs.command("show")
@_JOB
@click.option("--json", "as_json", is_flag=True, help="Print the answer of the server as JSON.")
def show(job_id: str, as_json: bool) -> None:
    """Tell how a job does."""
    server = Server()
    job = server.get(_path(server, job_id))["job"]
    if as_json:
        click.echo(json.dumps(job, indent=2))
        return
    told = {
        "id": job["id"],
        "kind": job["kind"],
        "pipeline": job["pipeline_name"],
        "state": job["state"],
        "messages" if job["kind"] == "infer_stream" else "rows": _rows(job),
        "last fault": (job["progress"] or {}).get("last_reason") or "",
        "waiting": _waiting(job),
        "guarantee": job["guarantee"],
        "warning": job["warning"],
        "attempts": job["attempts"],
        "created": job["created_at"][:19],
        "ended": (job["ended_at"] or "")[:19],
        "error": job["error"],
    }
    for name, value in told.items():
        if value != "":
            click.echo(f"{name:<10} {value}")
    if rejected := (job["progress"] or {}).get("rows_rejected") if job["kind"] == "infer_batch" else 0:
        click.echo(f"{'rejects':<10} {rejected:,}: bettong jobs rejects {job['id'][:8]}")
        for reason, count in ((job["result"] or {}).get("reasons") or {}).items():
            click.echo(f"  {count:>8,}  {reason}")
    for name, value in (job["result"] or {}).items():
        if isinstance(value, (str, int, float)) and value != "" and name not in told:  # tables of it are in --json
            click.echo(f"  {name:<16} {value}")


@jobs.command("logs")
@_JOB
@click.option("-n", "--lines", default=50, show_default=True, type=click.IntRange(1, 10_000), help="How many.")
def logs(job_id: str, lines: int) -> None:
    """Print what a job has said."""
    server = Server()
    for line in server.get(f"{_path(server, job_id)}/log?limit={lines}")["lines"]:
        click.echo(f"{line['at'][:19]}  {line['text']}")


@jobs.command("rejects")
@_JOB
@click.option("-n", "--lines", default=20, show_default=True, type=click.IntRange(1, 10_000), help="How many to print.")
@click.option("-o", "--output", metavar="FILE", help="Write all of them to a .csv, .parquet, .arrow or .jsonl file.")
def rejects(job_id: str, lines: int, output: str | None) -> None:
    """Show the rows that a job could not do, each with its reason, also while it runs.

    \b
    bettong jobs rejects 7d2c…
    bettong jobs rejects 7d2c… -o rejects.parquet

    Those of a batch have the row's number in the source, from 0, and its keys as key.NAME.
    """
    from bettong.cli.row_files import rows_of, save

    server = Server()
    path = _path(server, job_id)
    with rows_of(server, f"{path}/rejects") as (schema, batches):
        if not schema.names:
            click.echo(_no_rejects(server.get(path)["job"]))
            return
        if output is not None:
            count = save(schema, batches, output)
            click.echo(f"Wrote {_rejects(count)} to {output}.")
            return
        count, shown = 0, list[tuple[object, ...]]()
        for batch in batches:
            shown += [tuple(row.values()) for row in batch.slice(0, lines - len(shown)).to_pylist()]
            count += batch.num_rows
    show_table(schema.names, shown, empty="There are no rejects.")
    more = f"; these are the first {len(shown):,}. All of them go into a file with -o" if count > len(shown) else ""
    click.echo(f"{_rejects(count)}{more}.", err=True)


@jobs.command("cancel")
@_JOB
def cancel(job_id: str) -> None:
    """Have a job stop where it is safe. What it has written stays."""
    server = Server()
    path = _path(server, job_id)
    job = server.get(path)["job"]
    if not job["ended_at"]:
        job = server.post(f"{path}/cancel")["job"]
        if not job["ended_at"] or job["state"] == "cancelled":
            click.echo(f"Job {job['id']}: {'cancelled' if job['ended_at'] else 'asked to stop'}.")
            return
    click.echo(
        f"Job {job['id']} had already {_HAD[job['state']]} at {job['ended_at'][:19]}; there was nothing to cancel."
    )


def _listed(server: Server, *, unended: bool = False, most: int = _PAGE) -> Iterator[Mapping[str, Any]]:
    """Jobs, newest first, fetched as they are taken; whoever takes no more than `most` has nothing fetched in vain."""
    asked: dict[str, Any] = {"unended": unended, "limit": min(most, _PAGE)}
    more = True
    while more:
        answer = server.post(f"{_ROOT}/list", asked)
        yield from answer["jobs"]
        if more := answer["more"]:
            asked["after"] = answer["jobs"][-1]["id"]


def _none(server: Server, *, unended: bool) -> str:
    ended = sum(1 for job in _listed(server) if job["ended_at"]) if unended else 0
    if not ended:
        return "There are no jobs."
    return f"No job runs or waits. {ended:,} {'has' if ended == 1 else 'have'} ended: bettong jobs list"


def _path(server: Server, job_id: str) -> str:
    """Of the job with that id, or of the only one whose id begins so."""
    if len(job_id) < _SHORTEST_ID:
        fail(f"'{job_id}' is too short for an id. Give {_SHORTEST_ID} characters of it at least: bettong jobs list")
    if len(job_id) < _WHOLE_ID:
        named = [str(job["id"]) for job in _listed(server) if job["id"].startswith(job_id)]
        if len(named) > 1:
            fail(f"The ids of {len(named)} jobs begin with '{job_id}'. Give more of it: bettong jobs list")
        job_id = named[0] if named else job_id
    return f"{_ROOT}/{quote(job_id, safe='')}"


def _waiting(job: Mapping[str, Any]) -> str:
    """What a stream waits for, or else how far it is behind, as it said a few seconds ago; "" where nobody knows, and
    of what has ended."""
    progress = {} if job["ended_at"] else job["progress"] or {}
    if waited := progress.get("waiting_for"):
        refused = ", which refuses the login," if waited["login_refused"] else ""
        return f"for {waited['what']}{refused} since {waited['since'][11:19]} UTC"
    return "" if progress.get("lag") is None else f"{progress['lag']:,} messages"


def _progress(job: Mapping[str, Any]) -> str:
    waits = _waiting(job)
    return f"{_rows(job)}, waiting {waits}" if waits.startswith("for ") else _rows(job)


def _rows(job: Mapping[str, Any]) -> str:
    progress = job["progress"] or {}
    if "messages_in" in progress:
        return _messages(progress)
    written, total = progress.get("rows_written"), progress.get("rows_total")
    done = (progress.get("rows_read") or 0) if written is None else written
    rejected = f", {progress['rows_rejected']:,} rejected" if progress.get("rows_rejected") else ""
    return f"{done:,} of {total:,}{rejected}" if total else f"{done:,}{rejected}"


def _rejects(count: int) -> str:
    return f"{count:,} reject{'' if count == 1 else 's'}"


def _messages(progress: Mapping[str, Any]) -> str:
    """What became of those of a stream."""
    told = [f"{progress.get('predictions_out') or 0:,} answered"]
    if topic := progress.get("dead_letter"):
        told.append(f"{progress.get('dead_lettered') or 0:,} dead-lettered to '{topic}'")
    told.append(f"{progress.get('rejected') or 0:,} rejected")
    if before := progress.get("answered_before"):
        told.append(f"{before:,} answered before")
    return ", ".join(told)


def _no_rejects(job: Mapping[str, Any]) -> str:
    progress = job["progress"] or {}
    if not (topic := progress.get("dead_letter")):
        return f"Job {job['id']} has {'' if job['ended_at'] else 'so far '}no rejects."
    dead, reason = progress.get("dead_lettered") or 0, progress.get("last_reason")
    last = f" The last: {reason}" if dead and reason else ""
    return (
        f"Job {job['id']} keeps no rejects: messages that it cannot answer go to topic "
        f"'{topic}', {dead:,} so far, each with the reason in its header bettong-error.{last}"
    )
