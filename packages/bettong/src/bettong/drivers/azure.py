"""AZURE: blobs of Azure Storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import AliasChoices, Field, SecretStr

from bettong.drivers.objects import BucketDetails, BucketDriver, Place, endpoint_parts, obstore_tree
from bettong.errors import BadInput

if TYPE_CHECKING:
    from bettong.domain.drivers import Egress


class AzureDetails(BucketDetails):
    container: str = Field(validation_alias=AliasChoices("container", "container_name", "bucket"))
    account_name: str = Field(validation_alias=AliasChoices("account_name", "account"))
    account_key: SecretStr = SecretStr("")
    sas_token: SecretStr = SecretStr("")
    tenant_id: str = ""
    client_id: str = ""
    client_secret: SecretStr = SecretStr("")
    authority: str = Field(
        "https://login.microsoftonline.com",
        validation_alias=AliasChoices("authority", "authority_host"),
        description="Where a client's secret is exchanged for a token. Clouds of some countries have their own.",
    )
    anonymous: bool = Field(False, description="For containers that everyone may read.")

    def place(self) -> Place:
        host, port, secure = endpoint_parts(self.endpoint or f"https://{self.account_name}.blob.core.windows.net")
        keys = {"endpoint": self.endpoint} if self.endpoint else {}
        keys |= self._login()

        def store(**waits: Any) -> Any:
            from obstore.store import AzureStore

            given: dict[str, Any] = keys
            return AzureStore(self.container, account_name=self.account_name, **given, **waits)

        def tree(egress: Egress, timeout_s: float) -> Any:
            return obstore_tree(store, self.prefix, secure=secure, timeout_s=timeout_s)

        if "client_secret" not in keys:
            return Place(host, port, secure, tree)
        login_host, login_port, login_secure = endpoint_parts(self.authority)
        if not login_secure or not secure:
            raise BadInput(
                "A client's secret and its tokens go over TLS alone.",
                "Give authority and endpoint as https:// addresses.",
            )
        return Place(host, port, secure, tree, login_host, login_port)

    def _login(self) -> dict[str, Any]:
        if self.anonymous:
            return {"skip_signature": True}
        if key := self.account_key.get_secret_value():
            return {"account_key": key}
        if token := self.sas_token.get_secret_value():
            return {"sas_key": token}
        if self.tenant_id and self.client_id and (secret := self.client_secret.get_secret_value()):
            client = {"tenant_id": self.tenant_id, "client_id": self.client_id, "client_secret": secret}
            return {**client, "authority_host": self.authority.rstrip("/")}
        # Without one the library would ask the machine for its own: that is the operator's.
        raise BadInput(
            "The AZURE details hold no login.",
            "Give account_key, sas_token, or tenant_id with client_id and client_secret; or anonymous.",
        )


class AzureDriver(BucketDriver):
    types: ClassVar[tuple[str, ...]] = ("AZURE",)
    title: ClassVar[str] = "Azure Blob Storage"
    extra: ClassVar[str] = "azure"
    details: ClassVar[type[AzureDetails]] = AzureDetails
