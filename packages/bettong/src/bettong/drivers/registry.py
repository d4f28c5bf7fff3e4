"""Which drivers there are. They are found by entry point, without importing one, and compared without case."""

from __future__ import annotations

import logging
import sys
from importlib import metadata
from typing import TYPE_CHECKING, cast

from bettong.domain.field_names import nearest
from bettong.drivers.abilities import capabilities, installed
from bettong.drivers.details import describe
from bettong.errors import BadInput, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bettong.domain.drivers import Driver, DriverInfo

log = logging.getLogger("bettong.drivers")

GROUP = "bettong.drivers"
OURS = "bettong"


class Registry:
    """The drivers of this installation: one entry point per type name, its value `module:Class`.

    `folders` are looked through besides what is installed, for drivers of others that come without an installation.
    """

    def __init__(self, folders: Sequence[str] = ()) -> None:
        self.folders = tuple(folders)
        self._found = _find(self.folders)
        self._loaded: dict[str, type[Driver]] = {}

    def types(self) -> list[str]:
        """Every type name that has a driver, in order, upper case."""
        return sorted(self._found)

    def driver(self, kind: str) -> type[Driver]:
        """The driver of a type.

        Raises:
            BadInput: no driver has that type; those there are are named.
            Unavailable: its module does not import.
        """
        name = kind.upper()
        if name not in self._found:
            raise BadInput(
                f"No driver is for connections of type '{kind}': it is stored only, and opened by code that knows it.",
                f"{_meant(name, self.types())}Types with a driver: {', '.join(self.types())}.",
            )
        if name not in self._loaded:
            self._loaded[name] = self._load(self._found[name])
        return self._loaded[name]

    def info(self, kind: str) -> DriverInfo | None:
        """What is told of the driver of a type; None when there is none. Raises Unavailable: it does not import."""
        if kind.upper() not in self._found:
            return None
        driver = self.driver(kind)
        return describe(driver, driver.types, capabilities(driver), installed(driver))

    def all(self) -> list[DriverInfo]:
        """Each driver once, in the order of their names. One that does not import is left out and logged."""
        infos: dict[tuple[str, ...], DriverInfo] = {}
        for name in self.types():
            try:
                info = self.info(name)
            except Unavailable as broken:
                log.warning("driver type=%s problem=%s", name, broken)
                continue
            if info is not None:
                infos.setdefault(info.types, info)
        return sorted(infos.values(), key=lambda info: info.types)

    def _load(self, point: metadata.EntryPoint) -> type[Driver]:
        for folder in self.folders:
            if folder not in sys.path:
                sys.path.append(folder)
        try:
            return cast("type[Driver]", point.load())
        except Exception as broken:  # whatever the module of somebody else does
            raise Unavailable(
                f"The driver for type {point.name} does not import ({type(broken).__name__} in {point.module}).",
                "Ask the operator to install it anew.",
            ) from broken


def _meant(name: str, known: Sequence[str]) -> str:
    near = nearest(name, known)
    return f"Did you mean {near}? " if near else ""


def _find(folders: Sequence[str]) -> dict[str, metadata.EntryPoint]:
    found: dict[str, metadata.EntryPoint] = {}
    for distribution in (*metadata.distributions(), *metadata.distributions(path=list(folders))):
        for point in distribution.entry_points.select(group=GROUP):
            name = point.name.upper()
            # Nobody takes over a type of ours by being installed beside us.
            if name not in found or distribution.name == OURS:
                found[name] = point
    return found
