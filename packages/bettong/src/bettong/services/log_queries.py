"""SQL over inference logs for those who may see them: names become topics here, before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bettong.errors import BadInput
from bettong.logstore.sql import EXAMPLE, MAX_LOGS, MAX_QUERY_CHARS, ONLY_SELECT, NamedLog, logs_named

if TYPE_CHECKING:
    from typing import BinaryIO

    from bettong.domain.identity import Principal
    from bettong.logstore.sql import LogSql
    from bettong.services.logs import LogService


class LogQueryService:
    """Runs a SELECT over the logs that it names. What the caller may not see is not found, as what is not there."""

    def __init__(self, logs: LogService, sql: LogSql) -> None:
        self._logs, self._sql = logs, sql

    def run(self, principal: Principal, query: str, workspace_id: int | None = None) -> BinaryIO:
        """The result as an Arrow stream in an open file; close it.

        Args:
            workspace_id: of the pipelines that the query names; None: wherever the caller sees one of that name.

        Raises:
            NotFound: the caller may see no pipeline of a name in the query.
            BadInput, TooLarge, Unavailable: as `LogSql.run`; a name stands for pipelines in several workspaces.
        """
        if len(query) > MAX_QUERY_CHARS:
            raise BadInput(f"The query has {len(query)} characters.", f"Send at most {MAX_QUERY_CHARS}.")
        named = logs_named(query)
        if not named:
            raise BadInput(f"{ONLY_SELECT}, and this query names no log.", EXAMPLE)
        if len(named) > MAX_LOGS:
            raise BadInput(f"The query names {len(named)} logs.", f"Name at most {MAX_LOGS}.")
        topics = [(name, valid, self._topic(principal, name, workspace_id, valid)) for name, valid in named]
        return self._sql.run(query, [NamedLog(*log) for log in topics])

    def _topic(self, principal: Principal, name: str, workspace_id: int | None, valid: bool) -> str:
        return self._logs.topic_name(principal, pipeline_name=name, workspace_id=workspace_id, failures=not valid)
