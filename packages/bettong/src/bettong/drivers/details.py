"""Details of a connection as values a driver can use, and what is told of their fields. No text holds a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from bettong.domain.drivers import DriverInfo, ReadOrder
from bettong.domain.field_names import unused
from bettong.drivers.earlier import Earlier
from bettong.drivers.known_fields import known_to, names_of
from bettong.drivers.misfits import misfit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic_core import ErrorDetails

    from bettong.domain.drivers import Driver


class Details(BaseModel):
    """What the details of every driver of ours share: fields that it does not know are other people's business."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    stand_ins: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # fields that another one can stand for, by its name
    earlier: ClassVar[tuple[Earlier, ...]] = ()  # how details that are stored became these, the oldest step first
    also_known: ClassVar[frozenset[str]] = frozenset()  # no fields, and yet nothing to wonder about in these details


def check(model: type[BaseModel], kind: str, values: Mapping[str, Any]) -> BaseModel:
    """The details as an instance of `model`.

    Raises:
        BadInput: a field is missing or does not fit; all of them are named, none of their values is.
    """
    try:
        return model.model_validate(values)
    except ValidationError as wrong:
        found = _errors(wrong)
    raise misfit(model, kind, values, found)  # outside the handler: the error in hand knows the values


def check_beside(model: type[BaseModel], kind: str, values: Mapping[str, Any], unknown: frozenset[str]) -> None:
    """The same for details of which some top-level fields cannot be known yet: nothing is said of those.

    Raises:
        BadInput: another field is missing or does not fit.
    """
    stand_ins: Mapping[str, tuple[str, ...]] = getattr(model, "stand_ins", {})
    unknown = unknown.union(*(stand_ins.get(name, ()) for name in unknown))
    try:
        model.model_validate(values)
        return
    except ValidationError as wrong:
        # A check over all fields runs on values that are still to come: its verdict counts once they are there.
        found = [error for error in _errors(wrong) if error["loc"] and str(error["loc"][0]) not in unknown]
    if found:
        raise misfit(model, kind, values, found)


def left_alone(model: type[BaseModel], kind: str, values: Mapping[str, Any]) -> str:
    """What is said of top-level fields that the model does not use, not knowing them or having a value for them by
    another name; "" when it uses them all."""
    known = known_to(model)
    strange = "" if known is None else unused(kind, tuple(values), known)
    return "; ".join(filter(None, (strange, _given_twice(model, values))))


def secret_fields(model: type[BaseModel]) -> tuple[str, ...]:
    """The names, as they stand in details, of the fields that hold a SecretStr at any depth of their type."""
    return tuple(
        names_of(name, field)[0] for name, field in model.model_fields.items() if _holds_secret(field.annotation)
    )


def secret_values(details: BaseModel) -> Iterator[str]:
    """Every secret that these details hold, in clear: for whoever has to keep them out of texts."""
    for name in type(details).model_fields:
        yield from _secrets_in(getattr(details, name))


def describe(driver: type[Driver], types: tuple[str, ...], capabilities: frozenset[Any], installed: bool) -> DriverInfo:
    """What is told of a driver. The JSON schema marks secret fields with `format: password, writeOnly: true`, has every
    name that means something in `x-known`, and in `x-instead-of` of a field those that it stands for."""
    return DriverInfo(
        types=types,
        title=driver.title,
        capabilities=capabilities,
        details_schema=_schema(driver.details),
        secret_fields=secret_fields(driver.details),
        extra=driver.extra,
        installed=installed,
        rebinding_safe=driver.rebinding_safe,
        read_order=getattr(driver.source, "read_order", ReadOrder.NONE),
    )


def _given_twice(model: type[BaseModel], values: Mapping[str, Any]) -> str:
    given = [[each for each in names_of(name, field) if each in values] for name, field in model.model_fields.items()]
    twice = [f"{', '.join(others)} ({first} counts)" for first, *others in filter(None, given) if others]
    return f"given under two names: {', '.join(twice)}" if twice else ""


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    stand_ins: Mapping[str, tuple[str, ...]] = getattr(model, "stand_ins", {})
    for name, fields in stand_ins.items():
        if name in schema.get("properties", {}):
            schema["properties"][name]["x-instead-of"] = list(fields)
    known = known_to(model)
    if known is not None and not getattr(model, "earlier", ()):  # names of an earlier form are known to its steps alone
        schema["x-known"] = list(known)
    return schema


def _errors(wrong: ValidationError) -> list[ErrorDetails]:
    return wrong.errors(include_url=False, include_input=False)


def _holds_secret(annotation: object) -> bool:
    return annotation is SecretStr or any(_holds_secret(part) for part in get_args(annotation))


def _secrets_in(value: object) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        yield from secret_values(value)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _secrets_in(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _secrets_in(part)
