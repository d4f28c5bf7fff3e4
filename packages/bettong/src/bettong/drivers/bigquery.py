"""BIGQUERY: Google BigQuery, with the details of the tutorials: a service account's JSON, a dataset and a table."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from bettong.domain.drivers import Stage, StageResult
from bettong.drivers import egress as reach
from bettong.drivers import sql
from bettong.drivers.bigquery_source import BigQuerySource
from bettong.drivers.google_login import Account, ServiceAccountDetails
from bettong.drivers.layers import climb
from bettong.drivers.objects import endpoint_parts
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bettong.domain.drivers import Egress
    from bettong.drivers.bigquery_storage import Storage

PUBLIC = "https://bigquery.googleapis.com"
PUBLIC_STORAGE = "https://bigquerystorage.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/bigquery"


class BigQueryDetails(ServiceAccountDetails):
    project_id: str = Field(description="The project that asks, and pays.")
    dataset: str = Field("", description="Where tables without a dataset are looked for and made.")
    table: str = Field("", description="What is read when nothing else is asked for.")
    location: str = Field("", description="Where queries run, such as EU. BigQuery finds it by the tables.")
    api_endpoint: str = Field("", description="The address of an emulator, or of a private way to BigQuery.")
    grpc_endpoint: str = Field("", description="Host and port of the Storage API there. TLS as for api_endpoint.")
    maximum_bytes_billed: int | None = Field(None, ge=1, description="A query that would read more is refused.")

    def places(self) -> dict[str, tuple[str, int, bool]]:
        """Host, port and whether TLS is spoken, of each service that is talked to: "api", "storage" unless another
        address is given for the rest alone, "login" unless nobody is said to be asking."""
        api = endpoint_parts(self.api_endpoint or PUBLIC)
        found = {"api": api}
        storage = self.grpc_endpoint or ("" if self.api_endpoint else PUBLIC_STORAGE)
        if storage:
            scheme = "" if "://" in storage else ("https://" if api[2] else "http://")
            found["storage"] = endpoint_parts(f"{scheme}{storage}")
        if self.login() is not None:
            found["login"] = endpoint_parts(self.token_uri)
        return found

    def login(self) -> Account | None:
        """Who asks; None is for an emulator. Raises BadInput when these details hold no login and need one."""
        account = self.account()
        if account is None and (not self.api_endpoint or self.client_email or self.private_key.get_secret_value()):
            raise BadInput("The BIGQUERY details hold no service account.", "Give all fields of its JSON.")
        return account


class BigQueryDriver:
    types: ClassVar[tuple[str, ...]] = ("BIGQUERY",)
    title: ClassVar[str] = "Google BigQuery"
    extra: ClassVar[str] = "bigquery"
    needs: ClassVar[tuple[str, ...]] = ("grpc", "google.cloud.bigquery_storage_v1", "jwt")
    rebinding_safe: ClassVar[bool] = True  # HTTP is ours, and the channel goes to the address that was checked
    details: ClassVar[type[BigQueryDetails]] = BigQueryDetails
    source: ClassVar[type[BigQuerySource]] = BigQuerySource

    @contextmanager
    def open(self, details: BigQueryDetails, egress: Egress, timeout_s: float) -> Iterator[BigQuerySource]:
        with _connected(details, egress, timeout_s) as source:
            yield source

    def test(self, details: BigQueryDetails, egress: Egress, timeout_s: float) -> Iterator[StageResult]:
        from bettong.drivers import web

        known: dict[str, Any] = {}
        with ExitStack() as stack:

            def look_up() -> str:
                known["places"] = list(details.places().values())
                known["targets"] = [reach.resolve(host, port, egress) for host, port, _ in known["places"]]
                return reach.counted(*known["targets"])

            def connect() -> str:
                for target in known["targets"]:
                    reach.connect(target, timeout_s).close()
                return f"{len(known['targets'])} services take connections"

            def shake_hands() -> str:
                said = [
                    web.shake_hands(target, web.tls_context(), timeout_s)
                    for target, (_, _, secure) in zip(known["targets"], known["places"], strict=True)
                    if secure
                ]
                return said[0] if said else "not used: the endpoint is http://"

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
def _connected(details: BigQueryDetails, egress: Egress, timeout_s: float) -> Iterator[BigQuerySource]:
    """Nothing is asked before the first call, and the Storage API is opened by the first that needs it."""
    from bettong.drivers import web
    from bettong.drivers.bigquery_api import Api
    from bettong.drivers.google_login import Tokens

    account, places = details.login(), details.places()
    for host, port, _ in places.values():
        reach.resolve(host, port, egress)
    with ExitStack() as stack:
        client = stack.enter_context(web.Client(egress, timeout_s))
        tokens = Tokens(client, account, SCOPE) if account is not None else None
        api = Api(
            client,
            details.api_endpoint or PUBLIC,
            details.project_id,
            tokens,
            timeout_s,
            dataset=details.dataset,
            location=details.location,
            maximum_bytes_billed=details.maximum_bytes_billed,
        )

        def storage() -> Storage | None:
            from bettong.drivers.bigquery_storage import opened

            if "storage" not in places:
                return None
            return stack.enter_context(opened(places["storage"], tokens.current if tokens else None, egress, timeout_s))

        yield BigQuerySource(details.project_id, details.dataset, details.table, api, storage)
