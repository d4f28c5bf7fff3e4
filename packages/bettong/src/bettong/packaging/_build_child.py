"""Enters the sandbox of bettong-mac's launcher, then becomes uv. Run as `python -I -S`, its order on stdin."""

from __future__ import annotations

import importlib.util
import json
import os
import sys


def main() -> None:
    order = json.load(sys.stdin)
    spec = importlib.util.spec_from_file_location("launcher", order["launcher"])
    assert spec is not None
    assert spec.loader is not None
    launcher = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(launcher)
    vars(launcher)["SYSTEM_FOLDERS"] += tuple(order["readable"])
    python = os.path.join(order["plan"]["environment"], "bin", "python")
    holds = launcher.enter_sandbox(order["plan"], python)
    print(f"Building from source; sandbox: {holds}", flush=True)
    os.mkdir(order["variables"]["TMPDIR"])
    os.chdir(order["plan"]["temporary"])
    os.execve(order["command"][0], order["command"], order["variables"])


if __name__ == "__main__":
    main()
