"""The details of a database server, field by field or as one URI, as people keep them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, AliasChoices, Field, SecretStr, model_validator

from bettong.drivers.details import Details
from bettong.drivers.server_uri import beside, uri_of

if TYPE_CHECKING:
    from collections.abc import Mapping


def _host_alone(text: str) -> str:
    """Raises ValueError for more than a host. The colons of an IPv6 address are none of a port."""
    if "://" in text:
        raise ValueError("is a whole address: put that into 'uri', or give the name of the server alone")
    name, colon, port = text.rpartition(":")
    if colon and port.isdigit() and (":" not in name or (name.startswith("[") and name.endswith("]"))):
        raise ValueError("has a port in it: put the port into 'port'")
    return text


Host = Annotated[str, AfterValidator(_host_alone)]


class ServerDetails(Details):
    """Host, login and database. What stands in `uri` counts where a field of its own is not given."""

    schemes: ClassVar[tuple[str, ...]]
    stand_ins: ClassVar[Mapping[str, tuple[str, ...]]] = {"uri": ("host", "user")}

    host: Host = Field(description="Name or address of the server.")
    port: int = Field(ge=1, le=65535)
    user: str = Field(validation_alias=AliasChoices("user", "username"))
    password: SecretStr = SecretStr("")
    database: str = Field("", validation_alias=AliasChoices("database", "dbname", "db"))
    table: str = Field("", description="What is read when nothing else is asked for.")
    uri: SecretStr | None = Field(
        None, validation_alias=AliasChoices("uri", "url", "dsn"), description="All of them in one, instead of them."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_uri(cls, values: Any) -> Any:
        example = f"{cls.schemes[0]}://user:password@host/database"
        if (uri := uri_of(values, ("uri", "url", "dsn"), cls.schemes, example)) is None:
            return values
        login = {"user": uri.user, "password": uri.password}
        return beside({"host": uri.host, "port": uri.port, **login, "database": uri.path, **uri.options}, values)
