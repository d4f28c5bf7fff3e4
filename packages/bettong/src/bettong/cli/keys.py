"""`bettong keys`: the keys that seal the details of Connections."""

from __future__ import annotations

import base64
import secrets
import sys
from typing import Any

import click

from bettong.cli.calls import Server, Teaching, fail

MOST_WALKS = 10  # what others seal under the old key while one walks is found by the next walk
_ROOT = "/v1/api/platform/keys"


@click.group(cls=Teaching)
def keys() -> None:
    """Keys that seal the details of Connections."""


@keys.command("new")
def keys_new() -> None:
    """Print a fresh key for BETTONG_KEYS.

    The first key of BETTONG_KEYS encrypts and any of them decrypts: put a new one in front and keep the old ones.
    """
    click.echo(base64.b64encode(secrets.token_bytes(32)).decode())


@keys.command("list")
def keys_list() -> None:
    """Tell the keys by their ids, and how many values are sealed under each. No key is shown."""
    told = Server().post(f"{_ROOT}/list")
    place = "the key file of this platform" if told["from_file"] else "BETTONG_KEYS"
    click.echo(f"The keys come from {place}.")
    for key in told["keys"]:
        state = "missing" if not key["known"] else "seals" if key["seals"] else "opens"
        click.echo(f"{key['id'] or 'unknown form':<16}  {state:<7}  {_values(key['values'])}")
    if told["old_form"]:
        click.echo(f"{_values(told['old_form'])} of a release before versions. Seal them anew: bettong keys rotate")


@keys.command("rotate")
@click.option("--new-key", is_flag=True, help="Make a key first. Without it, the first key there is counts.")
def keys_rotate(new_key: bool) -> None:
    """Seal everything anew under the first key, while the platform runs.

    Stop it at any moment, and run it again: what is done is skipped. It ends with 1 when something could not be opened,
    and says what.
    """
    server = Server()
    if new_key:
        click.echo(f"Made key {server.post(f'{_ROOT}/add')['id']}; it seals from now on.")
    resealed, unopened = 0, []
    for _ in range(MOST_WALKS):
        walked = _walk(server)
        resealed += walked["resealed"]
        unopened = walked["unopened"]
        if not walked["resealed"]:
            break
    click.echo(f"Sealed anew: {_values(resealed)}. Under the first key: {_values(walked['already'])}.")
    _tell_old_keys(server)
    for reason in unopened:
        click.echo(f"Not opened, and left as it is: {reason}", err=True)
    if walked["resealed"]:
        fail("Others seal under an old key all the while. Start every server with the same first key, then try again.")
    if unopened:
        sys.exit(1)


def _walk(server: Server) -> dict[str, Any]:
    """One walk over all that is sealed, shown on one line to a person."""
    told: dict[str, Any] = {"resealed": 0, "already": 0, "unopened": []}
    after = None
    while True:
        step = server.post(f"{_ROOT}/reseal", {"after": after})
        told = {name: told[name] + step[name] for name in told}
        if sys.stderr.isatty():
            click.echo(f"\r{told['resealed']} sealed anew, {told['already']} skipped", nl=False, err=True)
        if (after := step["after"]) is None:
            if sys.stderr.isatty():
                click.echo("", err=True)
            return told


def _tell_old_keys(server: Server) -> None:
    told = server.post(f"{_ROOT}/list")
    spare = [key["id"] for key in told["keys"] if key["known"] and not key["seals"] and not key["values"]]
    if spare:
        place = "keys/connections.keys" if told["from_file"] else "BETTONG_KEYS"
        click.echo(
            f"Nothing is sealed under {', '.join(spare)} any more. Keep it for as long as a backup may need it, then "
            f"take it out of {place} and start the platform again."
        )


def _values(count: int) -> str:
    return f"{count} value" if count == 1 else f"{count} values"
