"""GCS: Google Cloud Storage. The details are a service account's JSON, as for BIGQUERY, and a bucket."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from pydantic import AliasChoices, Field, SecretStr

from bettong.drivers.objects import BucketDetails, BucketDriver, Place, endpoint_parts
from bettong.errors import BadInput

PUBLIC = "https://storage.googleapis.com"


class GcsDetails(BucketDetails):
    bucket: str
    client_email: str = ""
    private_key: SecretStr = SecretStr("")
    private_key_id: str = ""
    service_account: SecretStr = Field(
        SecretStr(""),
        validation_alias=AliasChoices("service_account", "service_account_json"),
        description="The service account's JSON as one text, instead of its fields.",
    )
    anonymous: bool = Field(False, description="For buckets that everyone may read.")

    def place(self) -> Place:
        host, port, secure = endpoint_parts(self.endpoint or PUBLIC)
        account = {} if self.anonymous else self._account()
        if self.endpoint:
            account |= {"gcs_base_url": self.endpoint.rstrip("/")}
        if self.anonymous:
            account |= {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}

        def store(options: dict[str, Any], retries: dict[str, Any]) -> Any:
            from obstore.store import GCSStore

            return GCSStore(
                self.bucket,
                service_account_key=json.dumps(account),
                skip_signature=self.anonymous,
                client_options=options,
                retry_config=retries,
            )

        return Place(host, port, secure, store, "" if self.anonymous else "oauth2.googleapis.com")

    def _account(self) -> dict[str, Any]:
        if whole := self.service_account.get_secret_value():
            try:
                found = json.loads(whole)
                return {name: str(found[name]) for name in ("client_email", "private_key", "private_key_id")}
            except (ValueError, KeyError, TypeError):
                raise BadInput("service_account is not a service account's JSON.", "Paste the whole file.") from None
        key = self.private_key.get_secret_value()
        if not self.client_email or not key:
            # Without one the library would ask the machine for its own: that is the operator's.
            raise BadInput("The GCS details hold no service account.", "Give its JSON's fields, or anonymous.")
        return {"client_email": self.client_email, "private_key": key, "private_key_id": self.private_key_id}


class GcsDriver(BucketDriver):
    types: ClassVar[tuple[str, ...]] = ("GCS",)
    title: ClassVar[str] = "Google Cloud Storage"
    extra: ClassVar[str] = "gcs"
    details: ClassVar[type[GcsDetails]] = GcsDetails
