"""What RabbitMQ and pika refuse, in our words. The broker's own texts name queues, users and vhosts: they stay here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bettong.drivers import sql_errors, streams, web
from bettong.errors import BadInput, BettongError, DeadlineExceeded, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

KIND = "RabbitMQ"


def not_connected(host: str, failed: BaseException) -> BettongError:
    """The words for a connection that did not come about, for the first reason that says something."""
    import ssl

    from pika import exceptions

    no_answer = False
    for why in _reasons(failed):
        text = str(why).lower()
        if isinstance(why, ssl.SSLError):
            return tls_ended(host, why)
        if isinstance(why, (exceptions.ProbableAuthenticationError, exceptions.AuthenticationError)):
            return sql_errors.no_login(KIND)
        if isinstance(why, exceptions.ConnectionClosedByBroker) and why.reply_code == 403:
            return sql_errors.no_login(KIND)
        if isinstance(why, (exceptions.ConnectionClosedByBroker, exceptions.ProbableAccessDeniedError)):
            return _no_vhost(text)
        if isinstance(why, (exceptions.IncompatibleProtocolError, exceptions.ProtocolSyntaxError)):
            return _no_amqp(host)
        no_answer = no_answer or isinstance(why, TimeoutError) or "timeout" in type(why).__name__.lower()
    if no_answer:
        return Unavailable(f"'{host}' did not answer as RabbitMQ does in time.", "Check host and port.")
    return _no_amqp(host)


def translated(failed: BaseException, queue: str) -> BettongError:
    """The words for what went wrong on an open connection, in something about `queue`."""
    from pika import exceptions

    if isinstance(failed, BettongError):
        return failed
    if isinstance(failed, TimeoutError):
        return DeadlineExceeded("RabbitMQ did not answer in time.", "Try again, or look at that server.")
    if isinstance(failed, exceptions.ShortStringTooLong):
        return BadInput("The name of a header or queue is longer than 255 bytes.", "Take a shorter one.")
    if isinstance(failed, exceptions.ConsumerCancelled):
        return streams.no_topic(KIND, queue, "queue")
    if isinstance(failed, (exceptions.ChannelClosedByBroker, exceptions.ConnectionClosedByBroker)):
        return _refused(failed.reply_code, failed.reply_text.lower(), queue)
    if isinstance(failed, (exceptions.AMQPError, OSError)):
        return sql_errors.broken(KIND)
    raise failed


def no_queue(name: str) -> BettongError:
    return BadInput(
        f"'{name}' in RabbitMQ is a stream, which is not read like a queue.", "Name a classic or a quorum queue."
    )


def tls_ended(host: str, why: BaseException, *, stood: bool = False) -> BettongError:
    """The words for TLS that did not come about, or that the server ended as soon as it stood."""
    reason = str(getattr(why, "reason", ""))
    if "CERTIFICATE_REQUIRED" in reason:
        return Unavailable(f"'{host}' asks for a certificate of ours.", "Set ssl_certificate and ssl_key.")
    if stood or "ALERT" in reason:
        return Unavailable(
            f"'{host}' ended TLS: it does not take our certificate, or asks for one.",
            "Set ssl_certificate and ssl_key to one that it knows, or leave them out.",
        )
    return web.tls_failed(host, why)


def _reasons(failed: BaseException) -> Iterator[BaseException]:
    """An error of pika's and those that it holds, from inside."""
    held = [*getattr(failed, "exceptions", ()), getattr(failed, "exception", None), *failed.args]
    for each in held:
        if isinstance(each, BaseException):
            yield from _reasons(each)
    yield failed


def _no_vhost(text: str) -> BettongError:
    if "limit" in text:
        return Unavailable("RabbitMQ gives this vhost or user no more connections.", "End some, or raise the limit.")
    if "down" in text:
        return Unavailable("The vhost of the details is down in RabbitMQ.", "Look at its log.")
    if "not found" in text:
        return BadInput("RabbitMQ has no such vhost.", "Check vhost in the details; the first one is called '/'.")
    return BadInput(
        "RabbitMQ does not let this user into the vhost.", "Check vhost in the details, or ask its administrator."
    )


def _no_amqp(host: str) -> BettongError:
    return Unavailable(
        f"'{host}' does not answer as AMQP 0-9-1 does.",
        "Check host and port (5672, and 5671 with TLS), and whether ssl has to be 'verify'.",
    )


def _refused(code: int, text: str, queue: str) -> BettongError:
    """By the reply codes of AMQP."""
    if code == 404:
        return streams.no_topic(KIND, queue, "queue")
    if code == 403:
        return sql_errors.no_right(KIND, f" with '{queue}'")
    if code == 405:
        return BadInput(f"The queue '{queue}' belongs to another connection alone.", "Name a queue that is shared.")
    if code == 311 or "message size" in text:
        return BadInput("A message is longer than this RabbitMQ takes.", "Send less, or raise its max_message_size.")
    if code == 406 and "timed out" in text:
        return Unavailable(
            f"What this consumer of '{queue}' had was held for longer than RabbitMQ allows, and comes again.",
            "Take fewer messages at once, or raise its consumer_timeout.",
        )
    if code == 540 or "stream" in text:
        return no_queue(queue)
    if code in (320, 541):
        return sql_errors.broken(KIND)
    return BadInput(f"RabbitMQ refused that for '{queue}' (code {code}).", "Look the code up in its manual.")
