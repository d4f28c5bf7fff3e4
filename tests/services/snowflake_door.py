"""Run in the emulator's environment: `python snowflake_door.py PORT LOGINS`. The emulator's server, with what a real
one has and it lacks: a login that can be refused, nulls among times, MERGE in a transaction, a wish for telemetry, and
for a file called `elsewhere` a store on another host."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import fakesnow.arrow
import fakesnow.info_schema
import jwt
import pyarrow as pa
import pyarrow.compute as pc
import uvicorn
from fakesnow.server import app, shared_fs

ASKED: list[str] = []


def main(port: int, logins: Path) -> None:
    known = json.loads(logins.read_text())
    shared_fs.connect(known["database"].upper(), known["schema"].upper())
    _keep_nulls()
    _keep_no_comments()
    uvicorn.run(_door(known), host="127.0.0.1", port=port, log_level="warning")


def _door(known: dict[str, str]) -> Any:
    async def door(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        path = scope["path"]
        if path == "/asked":
            await _answer(send, ASKED)
            return
        ASKED.append(path)
        if path == "/session/v1/login-request":
            body = await _body(receive)
            asked = json.loads(_plain(body))["data"]
            if not _holds(asked, known):
                refused = {"code": "390100", "message": "Incorrect username or password was specified."}
                await _answer(send, {"data": None, "success": False, **refused})
                return
            wanted = asked.get("SESSION_PARAMETERS", {}).get("CLIENT_TELEMETRY_ENABLED", True)
            told = {"name": "CLIENT_TELEMETRY_ENABLED", "value": wanted}
            await app(scope, _again(body), _changing(send, lambda answer: answer["data"]["parameters"].append(told)))
            return
        if path == "/queries/v1/query-request":
            body = await _body(receive)
            if b"elsewhere" in _plain(body):
                await app(scope, _again(body), _changing(send, _elsewhere))
            else:
                await app(scope, _again(body), send)
            return
        await app(scope, receive, send)

    return door


def _holds(asked: dict[str, Any], known: dict[str, str]) -> bool:
    how = asked.get("AUTHENTICATOR", "SNOWFLAKE")
    if how == "SNOWFLAKE_JWT":
        try:
            # Whom it is for and how long it holds is checked by real ones; here it is the key alone.
            claims = jwt.decode(asked["TOKEN"], known["public_key"], ["RS256"], options={"verify_aud": False})
        except jwt.PyJWTError:
            return False
        return bool(claims["sub"] == f"{asked['ACCOUNT_NAME'].upper()}.{asked['LOGIN_NAME'].upper()}")
    if how in ("PROGRAMMATIC_ACCESS_TOKEN", "OAUTH"):
        return bool(asked["TOKEN"] == known["token"])
    return bool(asked.get("PASSWORD") == known["password"])


def _changing(send: Any, change: Any) -> Any:
    """Sends an answer that `change` has been over."""
    started: dict[str, Any] = {}

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            started.update(message)
            return
        answer = json.loads(message["body"])
        change(answer)
        await _answer(send, answer, started["status"])

    return sending


def _elsewhere(answer: dict[str, Any]) -> None:
    place = answer["data"]["stageInfo"]
    place["presignedUrl"] = place["presignedUrl"].replace("127.0.0.1", "127.0.0.2")


def _plain(body: bytes) -> bytes:
    return gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body


def _keep_nulls() -> None:
    plain = fakesnow.arrow.timestamp_to_sf_struct

    def with_nulls(times: Any) -> Any:
        array = times.combine_chunks() if isinstance(times, pa.ChunkedArray) else times
        filled = plain(pc.fill_null(array, pa.scalar(0, array.type)))
        return pa.StructArray.from_arrays(filled.flatten(), fields=list(filled.type), mask=array.is_null())

    fakesnow.arrow.timestamp_to_sf_struct = with_nulls


def _keep_no_comments() -> None:
    """Comments of tables lie in another database of the emulator, and a transaction of it writes to one only: without
    this a MERGE, which makes a table, ends every transaction that it is not the first in."""
    fakesnow.info_schema.insert_table_comment_sql = lambda *_: "SELECT 1"


async def _body(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message["body"])
        if not message.get("more_body"):
            return body


def _again(body: bytes) -> Any:
    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _answer(send: Any, value: Any, status: int = 200) -> None:
    data = json.dumps(value).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
