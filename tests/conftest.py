"""What holds for every test: libraries are imported as the platform imports them, without threads or word to anyone."""

from __future__ import annotations

import os

from bettong.engine.forking import SINGLE_THREADED

os.environ.update(SINGLE_THREADED)
