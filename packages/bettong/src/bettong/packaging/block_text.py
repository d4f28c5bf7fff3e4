"""The YAML that MLflow and conda write: blocks of keys, lists and texts. Anything else of YAML is passed over.

Values stay text; nothing is made of them. A text that goes on in further lines is cut at the first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_KEY = re.compile(r"(?P<key>[^\s:#'\"\[\]{}][^:#]*?)\s*:(?:\s+(?P<value>.*))?$")
MAX_LINES = 20_000


@dataclass(slots=True)
class Block:
    """What stands below a key: the keys in it, the items of a list, or the text behind the colon."""

    text: str = ""
    keys: dict[str, Block] = field(default_factory=dict)
    items: list[Block] = field(default_factory=list)

    def at(self, *path: str) -> Block:
        """The block below these keys, an empty one where there is none."""
        here = self
        for key in path:
            here = here.keys.get(key, Block())
        return here

    @property
    def texts(self) -> list[str]:
        """The items of a list that are texts."""
        return [item.text for item in self.items if item.text]


def read_blocks(text: str) -> Block:
    top = Block()
    open_blocks = [(-1, top)]  # (indentation of the key that opened it, block)
    for line in text.splitlines()[:MAX_LINES]:
        content = line.strip()
        if not content or content.startswith(("#", "---", "...")):
            continue
        indent = len(line) - len(line.lstrip())
        while content == "-" or content.startswith("- "):
            # a list stands as deep as its key, or deeper: `dependencies:` and `- numpy` may share their column
            _close(open_blocks, indent, item=True)
            item = Block()
            open_blocks[-1][1].items.append(item)
            open_blocks.append((indent, item))
            rest = content[1:].lstrip()
            indent += len(content) - len(rest)
            content = rest
            if content and not _KEY.match(content):
                item.text = _plain(content)
                content = ""
        if content and (match := _KEY.match(content)):
            _close(open_blocks, indent, item=False)
            block = Block(_plain(match["value"] or ""))
            open_blocks[-1][1].keys[match["key"]] = block
            open_blocks.append((indent, block))
    return top


def _close(open_blocks: list[tuple[int, Block]], indent: int, *, item: bool) -> None:
    while open_blocks[-1][0] > indent or (open_blocks[-1][0] == indent and not _takes(open_blocks, item)):
        open_blocks.pop()


def _takes(open_blocks: list[tuple[int, Block]], item: bool) -> bool:
    """Whether the innermost block, a key at the same indentation, takes this list item."""
    last = open_blocks[-1][1]
    is_list_item = len(open_blocks) > 1 and any(last is entry for entry in open_blocks[-2][1].items)
    return item and not last.text and not last.keys and not is_list_item


def _plain(value: str) -> str:
    value = value.strip()
    if value[:1] in ("'", '"') and value.endswith(value[0]) and len(value) > 1:
        return value[1:-1]
    return value.partition(" #")[0].strip()
