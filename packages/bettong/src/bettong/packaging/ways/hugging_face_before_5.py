"""HUGGING_FACE_* tasks whose pipelines transformers 5 has dropped: summarization, translation and others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bettong.errors import BadInput
from bettong.packaging.ways.hugging_face import BEFORE_FIVE, checked, needs, read_json, single

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bettong.packaging.frameworks import Needs

__all__ = ["look", "single"]

TOKENIZER = "tokenizer_config.json"
CLASS_OF_FIVE = "TokenizersBackend"


def look(folder: Path, config: Mapping[str, object]) -> Needs:
    content, version = checked(folder)
    if (content / TOKENIZER).is_file() and read_json(content, TOKENIZER).get("tokenizer_class") == CLASS_OF_FIVE:
        raise BadInput(
            f"The tokenizer was saved by transformers {version or 5}, which has no pipeline for this task any more; "
            "transformers 4, which has, cannot read it.",
            "Save the pipeline with transformers<5 and upload that.",
        )
    return needs(content, BEFORE_FIVE, version)
