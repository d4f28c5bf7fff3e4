"""S3: Amazon's object store, and others that speak like it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import AliasChoices, Field, SecretStr

from bettong.drivers.objects import BucketDetails, BucketDriver, Place, endpoint_parts, obstore_tree
from bettong.errors import BadInput

if TYPE_CHECKING:
    from bettong.domain.drivers import Egress


class S3Details(BucketDetails):
    bucket: str
    region: str = Field("us-east-1", validation_alias=AliasChoices("region", "region_name"))
    access_key_id: str = Field("", validation_alias=AliasChoices("access_key_id", "aws_access_key_id", "key"))
    secret_access_key: SecretStr = Field(
        SecretStr(""), validation_alias=AliasChoices("secret_access_key", "aws_secret_access_key", "secret")
    )
    session_token: SecretStr = Field(SecretStr(""), validation_alias=AliasChoices("session_token", "aws_session_token"))
    anonymous: bool = Field(False, description="For buckets that everyone may read.")
    endpoint: str = Field("", validation_alias=AliasChoices("endpoint", "endpoint_url"))

    def place(self) -> Place:
        if not self.anonymous and not (self.access_key_id and self.secret_access_key.get_secret_value()):
            # Without keys the library would ask the machine for its own: they are the operator's.
            raise BadInput("The S3 details hold no keys.", "Give access_key_id and secret_access_key, or anonymous.")
        host, port, secure = endpoint_parts(self.endpoint or f"https://{self.bucket}.s3.{self.region}.amazonaws.com")
        keys: dict[str, Any] = {"skip_signature": True}
        if not self.anonymous:
            keys = {
                "access_key_id": self.access_key_id,
                "secret_access_key": self.secret_access_key.get_secret_value(),
            }
            if token := self.session_token.get_secret_value():
                keys["session_token"] = token
        if self.endpoint:
            keys["endpoint"] = self.endpoint
        else:
            keys["virtual_hosted_style_request"] = True

        def store(**waits: Any) -> Any:
            from obstore.store import S3Store

            return S3Store(self.bucket, region=self.region, **keys, **waits)

        def tree(egress: Egress, timeout_s: float) -> Any:
            return obstore_tree(store, self.prefix, secure=secure, timeout_s=timeout_s)

        return Place(host, port, secure, tree)


class S3Driver(BucketDriver):
    types: ClassVar[tuple[str, ...]] = ("S3",)
    title: ClassVar[str] = "S3 and its like"
    extra: ClassVar[str] = "s3"
    details: ClassVar[type[S3Details]] = S3Details
