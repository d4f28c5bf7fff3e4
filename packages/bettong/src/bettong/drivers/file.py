"""FILE: files on the platform's machine, below the folders that the operator allows."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from pydantic import AliasChoices, Field

from bettong.domain.drivers import ReadRequest, Stage, StageResult
from bettong.drivers.files import FilesSource
from bettong.drivers.formats import FormatDetails
from bettong.drivers.layers import climb
from bettong.drivers.paths import inside
from bettong.drivers.trees import LocalTree
from bettong.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bettong.domain.drivers import Egress


class FileDetails(FormatDetails):
    path: str = Field(
        validation_alias=AliasChoices("path", "file", "folder"),
        description="A file or folder on the platform's machine.",
    )


class FileDriver:
    types: ClassVar[tuple[str, ...]] = ("FILE",)
    title: ClassVar[str] = "Files on the platform's machine"
    extra: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()
    rebinding_safe: ClassVar[bool] = True
    details: ClassVar[type[FileDetails]] = FileDetails
    source: ClassVar[type[FilesSource]] = FilesSource

    @contextmanager
    def open(self, details: FileDetails, egress: Egress, timeout_s: float) -> Iterator[FilesSource]:
        path = inside(details.path, egress)
        if path.is_file():
            yield FilesSource(LocalTree(path.parent, egress), details, path.name)
        else:
            yield FilesSource(LocalTree(path, egress), details, "")

    def test(self, details: FileDetails, egress: Egress, timeout_s: float) -> Iterator[StageResult]:
        def permission() -> str:
            path = inside(details.path, egress)
            if not path.exists():
                raise NotFound(
                    f"There is nothing at '{details.path}' on the platform's machine.",
                    "Check the path, or write to it.",
                )
            with self.open(details, egress, timeout_s) as source:
                return "a file" if source.default else source.check()

        def sample() -> str:
            return sampled_files(self, details, egress, timeout_s)

        yield from climb(
            [
                *((stage, None) for stage in (Stage.DNS, Stage.TCP, Stage.TLS, Stage.LOGIN)),
                (Stage.PERMISSION, permission),
                (Stage.SAMPLE, sample),
            ]
        )


def sampled_files(driver: object, details: object, egress: Egress, timeout_s: float) -> str:
    """Read the first rows of the files; what came, in words. A place without files is a place to write to."""
    with driver.open(details, egress, timeout_s) as source:  # type: ignore[attr-defined]
        try:
            reader = source.read(ReadRequest(batch_rows=100, limit=1))
        except NotFound:
            return "no files with rows yet"
        first = next(iter(reader), None)
        return f"{first.num_rows if first is not None else 0} rows of {len(reader.schema)} columns"
