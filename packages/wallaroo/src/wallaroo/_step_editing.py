"""Editing the steps of a pipeline. Nothing here asks the platform: it sees them when a version is made."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from wallaroo import _steps
from wallaroo._expressions import translate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Self

    import polars as pl

    from wallaroo._steps import Step
    from wallaroo.model_version import ModelVersion


class StepEditing:
    """The local steps of a pipeline. Every method gives the pipeline back.

    `replace_with_…` puts something else in the place of step `index`, from 0, and raises IndexError when there is none.
    """

    _steps: list[Step]

    def steps(self) -> list[Step]:
        """The local steps."""
        return list(self._steps)

    def remove_step(self, index: int) -> Self:
        """A shadow is three steps."""
        self._check_index(index)
        del self._steps[index]
        return self

    def clear(self) -> Self:
        """Remove all steps."""
        self._steps.clear()
        return self

    def add_model_step(self, model_version: ModelVersion) -> Self:
        """Run a model on the current rows."""
        return self._add(_steps.model_step(model_version))

    def replace_with_model_step(self, index: int, model_version: ModelVersion) -> Self:
        return self._replace(index, _steps.model_step(model_version))

    def add_multi_model_step(self, models: Iterable[ModelVersion]) -> Self:
        """Run several models on the same rows, at the same time.

        All are answered, the first as `out.*`, the others as `out_{name}.*`, unless a later step picks one.
        """
        return self._add(_steps.model_step(*models))

    def replace_with_multi_model_step(self, index: int, models: Iterable[ModelVersion]) -> Self:
        return self._replace(index, _steps.model_step(*models))

    def add_random_split(self, weighted: Iterable[tuple[float, ModelVersion]], hash_key: str | None = None) -> Self:
        """Send each request, all its rows, to one of the models.

        Args:
            weighted: pairs of a weight, 0 or more, and a model version.
            hash_key: a column of the input whose value (in the first row) decides instead of chance, where a request
                has it: a number of [0, 1) as it is, anything else by its SHA-256, so that equal values reach the same
                model. A model that does not know the column does not get it.
        """
        return self._add(_steps.random_split(weighted, hash_key))

    def replace_with_random_split(
        self, index: int, weighted: Iterable[tuple[float, ModelVersion]], hash_key: str | None = None
    ) -> Self:
        return self._replace(index, _steps.random_split(weighted, hash_key))

    def add_key_split(self, default: ModelVersion, meta_key: str, options: Mapping[str, ModelVersion]) -> Self:
        """Send each request, all its rows, to the model for the value of the column `meta_key` in its first row.

        Values are compared as text. What is not among `options`, and a request without the column, goes to `default`.
        """
        return self._add(_steps.key_split(default, meta_key, options))

    def replace_with_key_split(
        self, index: int, default: ModelVersion, meta_key: str, options: Mapping[str, ModelVersion]
    ) -> Self:
        return self._replace(index, _steps.key_split(default, meta_key, options))

    def add_shadow_deploy(self, champion: ModelVersion, challengers: Sequence[ModelVersion]) -> Self:
        """Run challengers beside a champion whose answer counts: three steps.

        `out.*` is the champion's, `out_{name}.*` each challenger's. One that fails has nulls there and stands in
        `logs(valid=False)`. To answer without waiting for them, deploy with `shadow_wait(False)`.
        """
        return self._add(*_steps.shadow_deploy(champion, challengers))

    def replace_with_shadow_deploy(
        self, index: int, champion: ModelVersion, challengers: Sequence[ModelVersion]
    ) -> Self:
        """Also inserts two steps behind the replaced one."""
        return self._replace(index, *_steps.shadow_deploy(champion, challengers))

    def add_audit(self, audit_slice: str) -> Self:
        """Keep the results of some models of the step before for the log; these may fail. `audit_slice` is a text:
        "1:" all but the first, "0:2" or ":2" the first two."""
        return self._add(_steps.audit(audit_slice))

    def replace_with_audit(self, index: int, audit_slice: str) -> Self:
        return self._replace(index, _steps.audit(audit_slice))

    def add_select(self, index: int) -> Self:
        """Go on with the result of one model of the step before, counted from 0."""
        return self._add(_steps.select(index))

    def replace_with_select(self, step_index: int, select_index: int) -> Self:
        return self._replace(step_index, _steps.select(select_index))

    def add_multi_out(self) -> Self:
        """Answer the results of all models of the step before."""
        return self._add(_steps.multi_out())

    def replace_with_multi_out(self, index: int) -> Self:
        return self._replace(index, _steps.multi_out())

    def add_validations(self, /, **validations: pl.Expr) -> Self:
        """Mark rows: each keyword names a polars expression over `in.*` and `out.*` that is True for an anomaly.

        An answer has `anomaly.{name}` for each, and their number in `anomaly.count`. Rows are never blocked. An
        expression may come of any polars from 0.18 on; what it cannot say is told here or when a version is made.

        Raises:
            TypeError: one is no polars expression.
            ValueError: the installed polars cannot write one down.
        """
        texts = _texts(validations)
        return self._add(_steps.check(texts)) if texts else self

    def replace_with_validations(self, index: int, /, **validations: pl.Expr) -> Self:
        self._check_index(index)
        texts = _texts(validations)
        return self._replace(index, _steps.check(texts)) if texts else self

    def _add(self, *steps: Step) -> Self:
        self._steps.extend(steps)
        return self

    def _replace(self, index: int, *steps: Step) -> Self:
        self._check_index(index)
        self._steps[index : index + 1] = steps
        return self

    def _check_index(self, index: int) -> None:
        if not 0 <= index < len(self._steps):
            raise IndexError(f"Step index {index} out of bounds")


def _texts(validations: Mapping[str, pl.Expr]) -> list[str]:
    if not validations:
        raise ValueError("No validation is given. Name at least one, such as too_high=pl.col('out.x') > 1.")
    if "count" in validations:
        warnings.warn(
            "The validation 'count' is left out: anomaly.count is the number of anomalies. Call it otherwise.",
            stacklevel=3,
        )
    return [translate(name, expression) for name, expression in validations.items() if name != "count"]
