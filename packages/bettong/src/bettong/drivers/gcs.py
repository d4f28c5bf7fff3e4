"""GCS: Google Cloud Storage. The details are a service account's JSON, as for BIGQUERY, and a bucket."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from bettong.drivers.google_login import Account, ServiceAccountDetails
from bettong.drivers.objects import BucketDetails, BucketDriver, Place, endpoint_parts
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bettong.domain.drivers import Egress
    from bettong.drivers.gcs_tree import GcsTree

PUBLIC = "https://storage.googleapis.com"


class GcsDetails(BucketDetails, ServiceAccountDetails):
    bucket: str
    anonymous: bool = Field(False, description="For buckets that everyone may read.")

    def place(self) -> Place:
        host, port, secure = endpoint_parts(self.endpoint or PUBLIC)
        account = None if self.anonymous else self._login()

        @contextmanager
        def tree(egress: Egress, timeout_s: float) -> Iterator[GcsTree]:
            from bettong.drivers.gcs_tree import opened

            with opened(self.endpoint or PUBLIC, self.bucket, self.prefix, account, egress, timeout_s) as found:
                yield found

        return Place(host, port, secure, tree)

    def _login(self) -> Account:
        account = self.account()
        if account is None:
            raise BadInput("The GCS details hold no service account.", "Give its JSON's fields, or anonymous.")
        return account


class GcsDriver(BucketDriver):
    types: ClassVar[tuple[str, ...]] = ("GCS",)
    title: ClassVar[str] = "Google Cloud Storage"
    extra: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ("httpcore", "jwt")
    rebinding_safe: ClassVar[bool] = True
    details: ClassVar[type[GcsDetails]] = GcsDetails
