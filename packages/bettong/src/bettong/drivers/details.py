"""Details of a connection as values a driver can use, and what is told of their fields. No text holds a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from pydantic import AliasChoices, BaseModel, ConfigDict, SecretStr, ValidationError

from bettong.domain.drivers import DriverInfo, ReadOrder
from bettong.drivers.earlier import Earlier
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

    from bettong.domain.drivers import Driver

MAX_TOLD = 5  # problems in one message
_UNSAFE = frozenset({"union_tag_invalid"})  # pydantic's own words for these repeat the value


class Details(BaseModel):
    """What the details of every driver of ours share: fields that it does not know are other people's business."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    stand_ins: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # fields that another one can stand for, by its name
    earlier: ClassVar[tuple[Earlier, ...]] = ()  # how details that are stored became these, the oldest step first


def check(model: type[BaseModel], kind: str, values: Mapping[str, Any]) -> BaseModel:
    """The details as an instance of `model`.

    Raises:
        BadInput: a field is missing or does not fit; all of them are named, none of their values is.
    """
    try:
        return model.model_validate(values)
    except ValidationError as wrong:
        found = _errors(wrong)
    raise BadInput(_told(kind, found), _takes(model))  # outside the handler: the error in hand knows the values


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
        raise BadInput(_told(kind, found), _takes(model))


def secret_fields(model: type[BaseModel]) -> tuple[str, ...]:
    """The names, as they stand in details, of the fields that hold a SecretStr at any depth of their type."""
    return tuple(_name(name, field) for name, field in model.model_fields.items() if _holds_secret(field.annotation))


def secret_values(details: BaseModel) -> Iterator[str]:
    """Every secret that these details hold, in clear: for whoever has to keep them out of texts."""
    for name in type(details).model_fields:
        yield from _secrets_in(getattr(details, name))


def describe(driver: type[Driver], types: tuple[str, ...], capabilities: frozenset[Any], installed: bool) -> DriverInfo:
    """What is told of a driver. The JSON schema marks secret fields with `format: password, writeOnly: true`."""
    return DriverInfo(
        types=types,
        title=driver.title,
        capabilities=capabilities,
        details_schema=driver.details.model_json_schema(),
        secret_fields=secret_fields(driver.details),
        extra=driver.extra,
        installed=installed,
        rebinding_safe=driver.rebinding_safe,
        read_order=getattr(driver.source, "read_order", ReadOrder.NONE),
    )


def _errors(wrong: ValidationError) -> list[ErrorDetails]:
    return wrong.errors(include_url=False, include_context=False, include_input=False)


def _told(kind: str, errors: list[ErrorDetails]) -> str:
    told = [_one(error) for error in errors[:MAX_TOLD]]
    more = f"; and {len(errors) - MAX_TOLD} more" if len(errors) > MAX_TOLD else ""
    return f"The details do not fit type {kind}: {'; '.join(told)}{more}."


def _one(error: ErrorDetails) -> str:
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"'{name}' is missing"
    if error["type"] in _UNSAFE:
        return f"'{name}' is none of the kinds it may be"
    words = error["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    return f"'{name}' {words}" if name else words


def _takes(model: type[BaseModel]) -> str:
    required = [_name(n, f) for n, f in model.model_fields.items() if f.is_required()]
    optional = [_name(n, f) for n, f in model.model_fields.items() if not f.is_required()]
    return f"It needs {', '.join(required) or 'nothing'}; it takes also {', '.join(optional) or 'nothing'}."


def _name(name: str, field: FieldInfo) -> str:
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        alias = next((choice for choice in alias.choices if isinstance(choice, str)), None)
    return alias if isinstance(alias, str) else name


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
