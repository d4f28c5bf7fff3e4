"""BigQuery's REST API over our own HTTP: addresses stay checked, waits end, and no text of the service gets out."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode
from uuid import uuid4

from bettong.drivers import bigquery_types as forms
from bettong.drivers import web
from bettong.drivers.bigquery_errors import KIND, no_answer, refused
from bettong.drivers.sql_errors import too_slow
from bettong.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

    from bettong.drivers.bigquery_types import Field
    from bettong.drivers.google_login import Tokens

MAX_ANSWER_BYTES = 64 * 2**20
WAIT_S = 10.0  # for one answer about a job that runs
PAGE_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Reference:
    """A table, by its whole name."""

    project: str
    dataset: str
    table: str

    @property
    def path(self) -> str:
        """As the Storage API has it."""
        return f"projects/{self.project}/datasets/{self.dataset}/tables/{self.table}"

    @property
    def shown(self) -> str:
        return f"{self.dataset}.{self.table}"

    def as_json(self) -> dict[str, str]:
        return {"projectId": self.project, "datasetId": self.dataset, "tableId": self.table}


@dataclass(frozen=True, slots=True)
class Done:
    """A query that has run: where its rows lie, and their columns."""

    job: str
    location: str
    fields: list[Field]
    destination: Reference | None


class Api:
    """Calls on behalf of one project. Each wait is bounded by `timeout_s`, and so is what a query may take.

    Every call raises BadInput, NotFound or Unavailable in our words.
    """

    def __init__(
        self,
        client: web.Client,
        endpoint: str,
        project: str,
        tokens: Tokens | None,
        timeout_s: float,
        *,
        dataset: str = "",
        location: str = "",
        maximum_bytes_billed: int | None = None,
    ) -> None:
        self._client, self._tokens, self._timeout_s = client, tokens, timeout_s
        self._project, self._dataset, self._location = project, dataset, location
        self._maximum_bytes_billed = maximum_bytes_billed
        self._root = f"{endpoint.rstrip('/')}/bigquery/v2/projects"

    def datasets(self, limit: int | None = None) -> list[str]:
        pages = self._pages(f"{self._own}/datasets", "datasets", {"maxResults": limit} if limit else {})
        if limit:
            return [entry["datasetReference"]["datasetId"] for entry in next(pages)]
        return [entry["datasetReference"]["datasetId"] for page in pages for entry in page]

    def tables(self, dataset: str) -> list[tuple[str, str]]:
        """(name, kind) of each table of a dataset."""
        pages = self._pages(f"{self._own}/datasets/{quote(dataset, safe='')}/tables", "tables", {})
        return [(entry["tableReference"]["tableId"], entry.get("type", "TABLE")) for page in pages for entry in page]

    def table(self, reference: Reference) -> dict[str, Any] | None:
        """What the service knows of a table; None when there is none."""
        try:
            return self._call("GET", self._url(reference), shown=reference.shown)
        except NotFound:
            return None

    def create(self, reference: Reference, fields: Sequence[Field], expires_in_s: float | None = None) -> None:
        body: dict[str, Any] = {"tableReference": reference.as_json(), "schema": {"fields": list(fields)}}
        if expires_in_s is not None:
            body["expirationTime"] = str(int((time.time() + expires_in_s) * 1000))
        path = f"{self._of(reference.project)}/datasets/{quote(reference.dataset, safe='')}/tables"
        self._call("POST", path, body, shown=reference.shown)

    def delete(self, reference: Reference) -> None:
        """Remove a table if it is there."""
        try:
            self._call("DELETE", self._url(reference), shown=reference.shown)
        except NotFound:
            return

    def describe(self, text: str, parameters: Sequence[dict[str, Any]] = ()) -> tuple[str, list[Field]]:
        """What kind of statement a query is, such as SELECT or SCRIPT, and its columns. It is not run."""
        found = self._insert(text, parameters, dry=True).get("statistics", {}).get("query", {})
        return str(found.get("statementType", "")), found.get("schema", {}).get("fields", [])

    def run(self, text: str, parameters: Sequence[dict[str, Any]] = ()) -> Done:
        """Run a statement or a script to its end. One that takes longer than there is time ends there, too."""
        until = time.monotonic() + self._timeout_s
        inserted = self._insert(text, parameters)
        _check(inserted, text)
        reference = inserted["jobReference"]
        job, location = reference["jobId"], reference.get("location") or self._location
        while True:
            left = until - time.monotonic()
            if left <= 0:
                self._call("POST", f"{self._own}/jobs/{job}/cancel?{_query(location=location)}", {})
                raise too_slow(KIND)
            wait = _query(location=location, maxResults=0, timeoutMs=int(min(left, WAIT_S) * 1000))
            found = self._call("GET", f"{self._own}/queries/{job}?{wait}", shown=text)
            if found.get("jobComplete"):
                break
        ended = self._call("GET", f"{self._own}/jobs/{job}?{_query(location=location)}", shown=text)
        _check(ended, text)
        where = ended.get("configuration", {}).get("query", {}).get("destinationTable")
        destination = Reference(where["projectId"], where["datasetId"], where["tableId"]) if where else None
        return Done(job, location, found.get("schema", {}).get("fields", []), destination)

    def rows_of(self, done: Done, schema: pa.Schema, batch_rows: int = PAGE_ROWS) -> Iterator[pa.RecordBatch]:
        """The rows that a query gave, page by page."""
        query = {"location": done.location, "maxResults": min(batch_rows, PAGE_ROWS)}
        return self._rows(f"{self._own}/queries/{done.job}", query, done.fields, schema)

    def rows(
        self, reference: Reference, fields: Sequence[Field], schema: pa.Schema, batch_rows: int = PAGE_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a table, page by page."""
        return self._rows(f"{self._url(reference)}/data", {"maxResults": min(batch_rows, PAGE_ROWS)}, fields, schema)

    @property
    def _own(self) -> str:
        return self._of(self._project)

    def _of(self, project: str) -> str:
        return f"{self._root}/{quote(project, safe=':')}"

    def _url(self, reference: Reference) -> str:
        dataset, table = quote(reference.dataset, safe=""), quote(reference.table, safe="")
        return f"{self._of(reference.project)}/datasets/{dataset}/tables/{table}"

    def _insert(self, text: str, parameters: Sequence[dict[str, Any]], *, dry: bool = False) -> dict[str, Any]:
        query: dict[str, Any] = {"query": text, "useLegacySql": False}
        if parameters:
            query |= {"parameterMode": "POSITIONAL", "queryParameters": list(parameters)}
        if self._dataset:
            query["defaultDataset"] = {"projectId": self._project, "datasetId": self._dataset}
        if self._maximum_bytes_billed is not None:
            query["maximumBytesBilled"] = str(self._maximum_bytes_billed)
        reference = {"projectId": self._project}
        configuration = {"query": query, "dryRun": dry}
        if self._location:
            reference["location"] = self._location
        if not dry:
            reference["jobId"] = f"bettong_{uuid4().hex}"
            configuration["jobTimeoutMs"] = str(int(self._timeout_s * 1000))
        body = {"jobReference": reference, "configuration": configuration}
        return self._call("POST", f"{self._own}/jobs", body, shown=text)

    def _rows(
        self, url: str, query: Mapping[str, Any], fields: Sequence[Field], schema: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        asked = {**query, "formatOptions.useInt64Timestamp": "true"}
        while True:
            page = self._call("GET", f"{url}?{_query(**asked)}")
            if page.get("rows"):
                yield forms.from_json(page["rows"], fields, schema)
            if not (token := page.get("pageToken")):
                return
            asked["pageToken"] = token

    def _pages(self, url: str, name: str, query: Mapping[str, Any]) -> Iterator[list[dict[str, Any]]]:
        asked = dict(query)
        while True:
            page = self._call("GET", f"{url}?{_query(**asked)}")
            yield page.get(name, [])
            if not (token := page.get("nextPageToken")):
                return
            asked["pageToken"] = token

    def _call(self, method: str, url: str, body: dict[str, Any] | None = None, shown: str = "") -> dict[str, Any]:
        headers = {"content-type": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        if content is not None:
            headers["content-length"] = str(len(content))
        if self._tokens is not None:
            headers["authorization"] = f"Bearer {self._tokens.current()}"
        with self._client.send(method, web.parse(url), headers, content, max_bytes=MAX_ANSWER_BYTES) as answer:
            data = b"".join(answer.chunks)
            status = answer.status
        found = _parsed(data)
        if status >= 300:
            error = found.get("error") if isinstance(found, dict) else None
            raise refused(status, error if isinstance(error, dict) else {}, shown)
        if not isinstance(found, dict):
            raise no_answer()
        return found


def _check(job: Mapping[str, Any], text: str) -> None:
    """Raises what a job failed with, if it did."""
    if failed := job.get("status", {}).get("errorResult"):
        raise refused(400, failed, text)


def _parsed(data: bytes) -> object:
    if not data.strip():
        return {}
    try:
        return json.loads(data)
    except ValueError:
        return None


def _query(**values: object) -> str:
    return urlencode({name: value for name, value in values.items() if value not in (None, "")})
