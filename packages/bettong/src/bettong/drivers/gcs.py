"""GCS: Google Cloud Storage. The details are a service account's JSON, as for BIGQUERY, and a bucket."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import AliasChoices, Field, SecretStr

from bettong.drivers.objects import BucketDetails, BucketDriver, Place, endpoint_parts
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bettong.domain.drivers import Egress
    from bettong.drivers.gcs_tree import GcsTree

PUBLIC = "https://storage.googleapis.com"
TOKENS = "https://oauth2.googleapis.com/token"


class GcsDetails(BucketDetails):
    bucket: str
    client_email: str = ""
    private_key: SecretStr = SecretStr("")
    private_key_id: str = ""
    token_uri: str = TOKENS
    service_account: SecretStr = Field(
        SecretStr(""),
        validation_alias=AliasChoices("service_account", "service_account_json"),
        description="The service account's JSON as one text, instead of its fields.",
    )
    anonymous: bool = Field(False, description="For buckets that everyone may read.")

    def place(self) -> Place:
        host, port, secure = endpoint_parts(self.endpoint or PUBLIC)
        account = None if self.anonymous else self._account()

        @contextmanager
        def tree(egress: Egress, timeout_s: float) -> Iterator[GcsTree]:
            from bettong.drivers.gcs_tree import opened

            with opened(self.endpoint or PUBLIC, self.bucket, self.prefix, account, egress, timeout_s) as found:
                yield found

        return Place(host, port, secure, tree)

    def _account(self) -> dict[str, Any]:
        """The login: `client_email`, `private_key`, `private_key_id` and `token_uri`."""
        found = {
            "client_email": self.client_email,
            "private_key": self.private_key.get_secret_value(),
            "private_key_id": self.private_key_id,
            "token_uri": self.token_uri,
        }
        if whole := self.service_account.get_secret_value():
            try:
                found |= {name: str(value) for name, value in json.loads(whole).items() if name in found}
            except (ValueError, AttributeError):
                raise BadInput("service_account is not a service account's JSON.", "Paste the whole file.") from None
        if not found["client_email"] or not found["private_key"]:
            raise BadInput("The GCS details hold no service account.", "Give its JSON's fields, or anonymous.")
        return found


class GcsDriver(BucketDriver):
    types: ClassVar[tuple[str, ...]] = ("GCS",)
    title: ClassVar[str] = "Google Cloud Storage"
    extra: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ("httpcore", "jwt")
    rebinding_safe: ClassVar[bool] = True
    details: ClassVar[type[GcsDetails]] = GcsDetails
