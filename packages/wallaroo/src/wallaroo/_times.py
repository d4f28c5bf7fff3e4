"""Times on the wire are ISO-8601 with an offset; in Python they are aware datetimes."""

from __future__ import annotations

from datetime import datetime, timezone

UTC = timezone.utc  # noqa: UP017 - this package runs on Python 3.10, which has no datetime.UTC


def parse(text: str | None) -> datetime | None:
    """An aware datetime of a wire time; None for None. A time without an offset is taken as UTC."""
    if text is None:
        return None
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def as_utc_text(moment: datetime) -> str:
    """ISO-8601 in UTC; a naive datetime is taken as UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat()
