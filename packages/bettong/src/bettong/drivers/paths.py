"""Which files may be reached: inside the allowed folders, outside the forbidden ones, whatever links say."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from bettong.errors import BadInput, NotFound

if TYPE_CHECKING:
    from bettong.domain.drivers import Egress


def inside(text: str, egress: Egress) -> Path:
    """The real path behind `text`, links resolved. It need not exist. `~` is the first of the allowed folders.

    Raises:
        BadInput: it is not absolute, or leads out of the allowed folders or into a forbidden one.
    """
    if "\0" in text or not text.startswith(("/", "~/")):
        shown = text.replace("\0", "?")
        raise BadInput(f"The path '{shown}' is not absolute.", "Write it from the root, as in /data/sales, or from ~/.")
    if text.startswith("~/"):
        text = os.path.join(egress.folders[0] if egress.folders else "/", text[2:])
    real = Path(os.path.realpath(text))
    allowed = any(real.is_relative_to(os.path.realpath(folder)) for folder in egress.folders)
    if not allowed or any(real.is_relative_to(os.path.realpath(folder)) for folder in egress.forbidden):
        raise BadInput(
            f"Drivers may not reach '{text}': it lies outside the folders that this platform allows.",
            f"{_allowed(egress)} The operator says which (BETTONG_FILE_FOLDERS).",
        )
    return real


def _allowed(egress: Egress) -> str:
    if not egress.folders:
        return "It allows none."
    return f"Use a path below {' or '.join(egress.folders)} that is not the platform's own."


def existing_file(text: str, egress: Egress) -> Path:
    """The same for a regular file that is there.

    Raises:
        BadInput: as above, or it is a folder, a device or the like.
        NotFound: there is none.
    """
    path = inside(text, egress)
    try:
        mode = path.stat().st_mode
    except OSError:
        raise NotFound(
            f"There is no file '{text}' on the platform's machine.", "Check the path: it is the server's, not yours."
        ) from None
    if not stat.S_ISREG(mode):
        raise BadInput(f"'{text}' is not a regular file.", "Name a file.")
    return path
