"""By which names a model of details takes its fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import AliasChoices

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo


def names_of(name: str, field: FieldInfo) -> tuple[str, ...]:
    """The names under which a field is taken, the one that people are told first."""
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return tuple(choice for choice in alias.choices if isinstance(choice, str)) or (name,)
    return (alias,) if isinstance(alias, str) else (name,)


def known_to(model: type[BaseModel]) -> tuple[str, ...] | None:
    """Every name that means something to the model; None where any does."""
    if model.model_config.get("extra") == "allow":
        return None
    names = [each for name, field in model.model_fields.items() for each in names_of(name, field)]
    return (*names, *getattr(model, "also_known", ()))
