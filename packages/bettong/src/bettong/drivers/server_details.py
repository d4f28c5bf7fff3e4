"""The details of a database server, field by field or as one URI, as people keep them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import AliasChoices, Field, SecretStr, model_validator

from bettong.drivers.details import Details
from bettong.drivers.server_uri import beside, uri_of

if TYPE_CHECKING:
    from collections.abc import Mapping


class ServerDetails(Details):
    """Host, login and database. What stands in `uri` counts where a field of its own is not given."""

    schemes: ClassVar[tuple[str, ...]]
    stand_ins: ClassVar[Mapping[str, tuple[str, ...]]] = {"uri": ("host", "user")}

    host: str = Field(description="Name or address of the server.")
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
