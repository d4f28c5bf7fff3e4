"""SNOWFLAKE: the Snowflake warehouse, through the client of its maker. Login with a key pair, a token or a password."""

from __future__ import annotations

import re
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import AliasChoices, Field, SecretStr

from bettong.domain.drivers import Stage, StageResult
from bettong.drivers import egress as reach
from bettong.drivers import sql
from bettong.drivers.details import Details
from bettong.drivers.layers import climb
from bettong.drivers.objects import endpoint_parts
from bettong.drivers.snowflake_source import SnowflakeSource
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bettong.domain.drivers import Egress

_ACCOUNT = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_SUFFIX = ".snowflakecomputing.com"


class SnowflakeDetails(Details):
    account: str = Field(description="The account's identifier, such as myorg-account1.")
    user: str = Field(validation_alias=AliasChoices("user", "username"))
    password: SecretStr = SecretStr("")
    private_key: SecretStr = Field(SecretStr(""), description="Of a key pair, as PEM text.")
    private_key_passphrase: SecretStr = SecretStr("")
    token: SecretStr = Field(SecretStr(""), description="A programmatic access token, or one of OAuth.")
    token_kind: Literal["pat", "oauth"] = "pat"
    warehouse: str = Field("", description="What queries run on. The user's own when none is named.")
    database: str = Field("", description="Where tables without a database are looked for and made.")
    schema_name: str = Field("", validation_alias=AliasChoices("schema", "schema_name"))
    role: str = Field("", description="What the session may do. The user's own when none is named.")
    table: str = Field("", description="What is read when nothing else is asked for.")
    endpoint: str = Field("", description="The address of a private way to the account, or of an emulator.")

    def place(self) -> tuple[str, int, bool]:
        """Host, port and whether TLS is spoken. Raises BadInput for what is no account or address."""
        account = self.account.strip().removesuffix(_SUFFIX)
        if not _ACCOUNT.fullmatch(account):
            raise BadInput("The account is not an identifier of Snowflake.", "Write it like myorg-account1.")
        if self.endpoint:
            return endpoint_parts(self.endpoint)
        return f"{account.lower().replace('_', '-')}{_SUFFIX}", 443, True

    def arguments(self) -> dict[str, Any]:
        """What the client is told. Raises BadInput when there is no login, more than one, or a key that is none."""
        given = [name for name in ("password", "private_key", "token") if getattr(self, name).get_secret_value()]
        if len(given) != 1:
            found = f"hold {' and '.join(given)}" if given else "hold no login"
            raise BadInput(f"The SNOWFLAKE details {found}.", "Give one of private_key, token and password.")
        host, port, secure = self.place()
        named = {"warehouse": self.warehouse, "database": self.database, "schema": self.schema_name, "role": self.role}
        return {
            "account": self.account.strip().removesuffix(_SUFFIX),
            "user": self.user,
            "host": host,
            "port": port,
            "protocol": "https" if secure else "http",
            **{name: value for name, value in named.items() if value},  # in small letters or large, as in SQL
            **self._login(given[0]),
        }

    def _login(self, by: str) -> dict[str, Any]:
        if by == "password":
            return {"password": self.password.get_secret_value()}
        if by == "token":
            kind = {"pat": "PROGRAMMATIC_ACCESS_TOKEN", "oauth": "OAUTH"}[self.token_kind]
            return {"authenticator": kind, "token": self.token.get_secret_value()}
        return {"authenticator": "SNOWFLAKE_JWT", "private_key": self._key()}

    def _key(self) -> bytes:
        """The private key as the client takes it: DER, without a passphrase."""
        from cryptography.hazmat.primitives import serialization

        passphrase = self.private_key_passphrase.get_secret_value().encode() or None
        try:
            key = serialization.load_pem_private_key(self.private_key.get_secret_value().encode(), passphrase)
        except (ValueError, TypeError):
            key = None
        if key is None:  # outside the handler: the error in hand may know the key
            raise BadInput(
                "The private key cannot be read.", "Give it as PEM text, and private_key_passphrase if it has one."
            )
        return key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


class SnowflakeDriver:
    types: ClassVar[tuple[str, ...]] = ("SNOWFLAKE",)
    title: ClassVar[str] = "Snowflake"
    extra: ClassVar[str] = "snowflake"
    needs: ClassVar[tuple[str, ...]] = ("snowflake.connector",)
    rebinding_safe: ClassVar[bool] = True  # the client opens no socket by itself
    details: ClassVar[type[SnowflakeDetails]] = SnowflakeDetails
    source: ClassVar[type[SnowflakeSource]] = SnowflakeSource

    @contextmanager
    def open(self, details: SnowflakeDetails, egress: Egress, timeout_s: float) -> Iterator[SnowflakeSource]:
        with _connected(details, egress, timeout_s) as source:
            yield source

    def test(self, details: SnowflakeDetails, egress: Egress, timeout_s: float) -> Iterator[StageResult]:
        from bettong.drivers import web

        known: dict[str, Any] = {}
        with ExitStack() as stack:

            def look_up() -> str:
                host, port, known["secure"] = details.place()
                known["target"] = reach.resolve(host, port, egress)
                return reach.counted(known["target"])

            def connect() -> str:
                reach.connect(known["target"], timeout_s).close()
                return f"port {known['target'].port} is open"

            def shake_hands() -> str:
                if not known["secure"]:
                    return "not used: the endpoint is http://"
                return web.shake_hands(known["target"], web.tls_context(), timeout_s)

            def log_in() -> str:
                known["source"] = source = stack.enter_context(_connected(details, egress, timeout_s))
                return source.greeted()

            yield from climb(
                [
                    (Stage.DNS, look_up),
                    (Stage.TCP, connect),
                    (Stage.TLS, shake_hands),
                    (Stage.LOGIN, log_in),
                    (Stage.PERMISSION, lambda: known["source"].rights()),
                    (Stage.SAMPLE, lambda: sql.sampled(known["source"], details.table)),
                ]
            )


@contextmanager
def _connected(details: SnowflakeDetails, egress: Egress, timeout_s: float) -> Iterator[SnowflakeSource]:
    from bettong.drivers.snowflake_client import opened

    arguments = details.arguments()
    host, port, _ = details.place()
    reach.resolve(host, port, egress)
    with opened(arguments, egress, timeout_s) as client:
        yield SnowflakeSource(client, details.table)
