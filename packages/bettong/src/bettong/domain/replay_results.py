"""How the rows of a replay are kept: what their columns are called, and in which files of a job's folder they lie."""

from __future__ import annotations

STATISTICS_FILE = "statistics.json"
TIME, ERROR_BEFORE, ERROR_AFTER, DIFFERS = "time", "error.before", "error.after", "differs"
BEFORE, AFTER = "before.", "after."
_MODEL_SPLIT = "out._model_split"  # names the versions of models: it says who answered, not what


def file_name(number: int) -> str:
    """Parquet files of one schema each, in the order of their names."""
    return f"result-{number:05d}.parquet"


def is_answer(column: str) -> bool:
    """Whether a column of a log, or of an inference, is one that answers are compared by."""
    group = column.partition(".")[0]
    return column != _MODEL_SPLIT and (group in ("out", "anomaly") or group.startswith("out_"))


def short_name(column: str) -> str:
    """`x` for `out.x`; other groups, and names with a dot in them, stay as they are."""
    name = column.removeprefix("out.")
    return column if "." in name else name
