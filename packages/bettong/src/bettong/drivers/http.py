"""HTTP and HTTPFILE: a file behind a URL, read as it comes. What the tutorials call `host` is the whole URL."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urljoin, urlsplit

from pydantic import AliasChoices, Field, SecretStr

from bettong.domain.drivers import ReadOrder, ReadRequest, Stage, StageResult
from bettong.drivers import egress as reach
from bettong.drivers.formats import FormatDetails, format_of, read_chunks
from bettong.drivers.layers import climb
from bettong.errors import BadInput, BettongError, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from bettong.domain.drivers import Egress

MAX_BYTES = 4 * 2**30


class HttpDetails(FormatDetails):
    url: SecretStr = Field(
        validation_alias=AliasChoices("url", "host", "uri"), description="The address; what follows '?' may be a token."
    )
    headers: dict[str, SecretStr] = Field({}, description="Headers to send, such as a key. No other host sees them.")
    token: SecretStr = Field(SecretStr(""), description="Sent as 'Authorization: Bearer …'.")
    user: str = Field("", validation_alias=AliasChoices("user", "username"))
    password: SecretStr = SecretStr("")
    ssl_ca: str = Field("", description="The authority of the server's certificate, as PEM text.")
    max_bytes: int = Field(MAX_BYTES, gt=0, description="A longer answer is refused.")


class HttpSource:
    """Each read is one request. A query is a path below the URL, or a whole URL of the same host."""

    read_order: ClassVar[ReadOrder] = ReadOrder.STABLE

    def __init__(self, details: HttpDetails, egress: Egress, timeout_s: float) -> None:
        self._details, self._egress, self._timeout_s = details, egress, timeout_s

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        import pyarrow as pa

        if request.parameters:
            raise BadInput("A URL takes no parameters.", "Write them into the URL's query.")
        with ExitStack() as stack:
            answer = stack.enter_context(self._answer(self._place(request.query)))
            form = format_of(self._details, answer.path, answer.headers.get("content-type", ""))
            reader = read_chunks(answer.chunks, form, self._details, answer.path, request.batch_rows)
            kept = stack.pop_all()  # the answer stays open for as long as its rows are read

        def batches() -> Iterator[pa.RecordBatch]:
            with kept:
                yield from reader

        return pa.RecordBatchReader.from_batches(reader.schema, batches())

    def _place(self, query: str) -> str:
        from bettong.drivers import web

        base = self._details.url.get_secret_value()
        if not query:
            return base
        parts = urlsplit(base)
        folder = parts._replace(path=f"{parts.path.rstrip('/')}/", query="", fragment="").geturl()
        place = urljoin(folder, query)
        if parts.query and "?" not in query:  # it may be what lets us in
            place = f"{place}?{parts.query}"
        if web.parse(place).origin != web.parse(base).origin:
            raise BadInput("The query leads to another host than the connection's.", "Make a connection for that host.")
        return place

    @contextmanager
    def _answer(self, url: str) -> Iterator[Any]:
        from bettong.drivers import web

        context = web.tls_context(self._details.ssl_ca) if self._details.ssl_ca else None
        with web.get(
            url,
            self._headers(),
            self._egress,
            self._timeout_s,
            max_bytes=self._details.max_bytes,
            context=context,
        ) as answer:
            if answer.status != 200:
                raise _refused(answer.status)
            yield answer

    def _headers(self) -> dict[str, str]:
        from bettong.drivers import web

        headers = {name: value.get_secret_value() for name, value in self._details.headers.items()}
        if token := self._details.token.get_secret_value():
            headers["authorization"] = f"Bearer {token}"
        elif self._details.user:
            headers["authorization"] = web.basic(self._details.user, self._details.password.get_secret_value())
        return headers


class HttpDriver:
    types: ClassVar[tuple[str, ...]] = ("HTTP", "HTTPFILE")
    title: ClassVar[str] = "Files over HTTP"
    extra: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ("httpcore",)
    rebinding_safe: ClassVar[bool] = True
    details: ClassVar[type[HttpDetails]] = HttpDetails
    source: ClassVar[type[HttpSource]] = HttpSource

    @contextmanager
    def open(self, details: HttpDetails, egress: Egress, timeout_s: float) -> Iterator[HttpSource]:
        from bettong.drivers import web

        web.parse(details.url.get_secret_value())
        yield HttpSource(details, egress, timeout_s)

    def test(self, details: HttpDetails, egress: Egress, timeout_s: float) -> Iterator[StageResult]:
        from bettong.drivers import web

        known: dict[str, Any] = {}
        secure = details.url.get_secret_value().strip().lower().startswith("https")

        def look_up() -> str:
            address = web.parse(details.url.get_secret_value())
            known["target"] = reach.resolve(address.host, address.port, egress)
            return reach.counted(known["target"])

        def connect() -> str:
            reach.connect(known["target"], timeout_s).close()
            return f"port {known['target'].port} is open"

        def log_in() -> str:
            with HttpSource(details, egress, timeout_s)._answer(details.url.get_secret_value()) as answer:
                return f"answered with status {answer.status}"

        def sample() -> str:
            reader = HttpSource(details, egress, timeout_s).read(ReadRequest(batch_rows=100, limit=1))
            rows = next(iter(reader), None)
            return f"{rows.num_rows if rows is not None else 0} rows of {len(reader.schema)} columns"

        yield from climb(
            [
                (Stage.DNS, look_up),
                (Stage.TCP, connect),
                (
                    Stage.TLS,
                    (lambda: web.shake_hands(known["target"], web.tls_context(details.ssl_ca), timeout_s))
                    if secure
                    else None,
                ),
                (Stage.LOGIN, log_in),
                (Stage.PERMISSION, None),
                (Stage.SAMPLE, sample),
            ]
        )


def _refused(status: int) -> BettongError:
    if status in (401, 407):
        return BadInput("The server does not take this login.", "Check token, user and password, or headers.")
    if status == 403:
        return BadInput("The server does not let this login have it.", "Ask whoever runs it for the right to read.")
    if status in (404, 410):
        return NotFound("The server has nothing at that address.", "Check the path of the URL.")
    if status == 429 or status >= 500:
        return Unavailable(f"The server answered with status {status}.", "Try again later, or look at that server.")
    return BadInput(f"The server answered with status {status}.", "Check the URL and what the server wants.")
