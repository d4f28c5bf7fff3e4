"""How the numbers of a part are written follows from the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bettong.logstore.encodings import encodings_for

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 200


def images(pixels: np.ndarray) -> pa.Table:
    count = len(pixels) // ROWS
    return pa.table(
        {
            "in.image": pa.FixedSizeListArray.from_arrays(pa.array(pixels.astype("f4")), count),
            "out.class": pa.array(["cat", "dog"] * (ROWS // 2)),
            "out.score": pa.array(np.arange(ROWS) / ROWS),
        }
    )


def encodings_in(file: Path) -> dict[str, set[str]]:
    group = pq.ParquetFile(file).metadata.row_group(0)
    columns = [group.column(at) for at in range(group.num_columns)]
    return {column.path_in_schema: set(column.encodings) for column in columns}


def written(table: pa.Table, file: Path) -> dict[str, set[str]]:
    with pq.ParquetWriter(file, table.schema, compression="zstd", **encodings_for(table, table.schema)) as writer:
        writer.write_table(table)
    assert pq.read_table(file).equals(table)
    return encodings_in(file)


def test_floats_that_never_repeat_are_split_into_planes_and_what_repeats_has_a_dictionary(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).normal(size=ROWS * 48)

    found = written(images(pixels), tmp_path / "part.parquet")

    assert "BYTE_STREAM_SPLIT" in found["in.image.list.element"]
    assert "BYTE_STREAM_SPLIT" in found["out.score"]
    assert "RLE_DICTIONARY" in found["out.class"]


def test_pixels_of_few_levels_keep_their_dictionary(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, size=ROWS * 48) / 255

    found = written(images(pixels), tmp_path / "part.parquet")

    assert "RLE_DICTIONARY" in found["in.image.list.element"]


def test_nested_empty_and_missing_numbers_are_written_as_they_are(tmp_path: Path) -> None:
    table = pa.table(
        {
            "in.deep": pa.array([[[0.5, 1.5], []], None, [[2.5, None]]], pa.list_(pa.list_(pa.float64()))),
            "in.none": pa.array([None, None, None], pa.float32()),
            "in.map": pa.array([[("a", 1.0)], [], None], pa.map_(pa.string(), pa.float32())),
            "in.struct": pa.array([{"q": [1.25]}, None, {"q": []}], pa.struct([("q", pa.list_(pa.float32()))])),
        }
    )

    found = written(table, tmp_path / "part.parquet")

    assert "BYTE_STREAM_SPLIT" in found["in.deep.list.element.list.element"]
    assert "BYTE_STREAM_SPLIT" not in found["in.none"]
