"""Arrows between rooms only point down, and the three packages do not know each other."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGES = Path(__file__).parents[2] / "packages"
FLOORS = {
    "errors": 0,
    "settings": 0,
    "domain": 1,
    "storage": 2,
    "secrets": 2,
    "artifacts": 2,
    "drivers": 2,
    "packaging": 2,
    "drift": 2,
    "logstore": 2,
    "runtimes": 2,
    "engine": 2,
    "services": 3,
    "api": 4,
    "pages": 4,
    "jobs": 4,
    "compose": 5,
    "cli": 6,
    "__main__": 7,
}


def sources(package: str) -> list[Path]:
    return sorted((PACKAGES / package / "src" / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that `path` names in an import, wherever it stands in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively; name the room"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def arrows() -> list[tuple[str, str, Path]]:
    """(room, imported room, file) of every import from one room of bettong into another."""
    root = PACKAGES / "bettong" / "src" / "bettong"
    found = []
    for path in sources("bettong"):
        here = path.relative_to(root).parts[0].removesuffix(".py")
        for module in imports(path):
            if module.startswith("bettong.") and room(module) in FLOORS and room(module) != here and here != "__init__":
                found.append((here, room(module), path))
    return found


def test_every_room_has_a_floor() -> None:
    root = PACKAGES / "bettong" / "src" / "bettong"
    rooms = {p.relative_to(root).parts[0].removesuffix(".py") for p in sources("bettong")} - {"__init__"}

    assert rooms <= FLOORS.keys(), f"Rooms without a floor: {sorted(rooms - FLOORS.keys())}. Give each one in FLOORS."


def test_arrows_point_down() -> None:
    graph = arrows()
    print("\n".join(sorted({f"{here} -> {there}" for here, there, _ in graph})))

    upward = [f"{path}: {here} -> {there}" for here, there, path in graph if FLOORS[here] <= FLOORS[there]]

    assert len(graph) > 20, "The graph is suspiciously small: is the reader still right?"
    assert upward == []


def test_the_environment_is_read_in_one_place() -> None:
    readers = [
        str(path)
        for path in sources("bettong")
        if path.name != "compose.py" and ("os.environ" in path.read_text() or "os.getenv" in path.read_text())
    ]

    assert readers == []


def test_the_three_packages_do_not_import_each_other() -> None:
    for package in ("wallaroo", "mac", "bettong"):
        others = {"wallaroo", "mac", "bettong"} - {package}
        crossed = [
            f"{path}: {module}"
            for path in sources(package)
            for module in imports(path)
            if module.split(".")[0] in others
        ]
        assert crossed == []
