"""What a receiver's owner is told about a post that got no answer."""

import errno
import re
import ssl
from email.utils import parsedate_to_datetime

import aiohttp

from hydrasms_core.webhooks.addresses import RefusedTarget
from hydrasms_core.webhooks.ports import Refusal, Unanswered

_MAX_WORDS = 200
_UNPRINTABLE = re.compile(r"[^ -~]+")

_CONNECT_FAILURES = {
    errno.ECONNREFUSED: "The receiver's host refuses connections on that port.",
    errno.ECONNRESET: "The receiver's host broke the connection off while it was being made.",
    errno.EHOSTUNREACH: "No way leads to the receiver's host.",
    errno.ENETUNREACH: "No way leads to the receiver's network.",
    errno.ETIMEDOUT: "The receiver's host does not answer.",
}


def unanswered(error: Exception, *, out_of_time: bool, after_s: float) -> Unanswered:
    """Return why a post got no answer, from what it ended with."""
    refusal, words = _of(error, out_of_time=out_of_time)
    return Unanswered(refusal, words[:_MAX_WORDS], after_s)


def _of(error: Exception, *, out_of_time: bool) -> tuple[Refusal, str]:
    if out_of_time:
        return Refusal.TIMEOUT, "The receiver did not answer in time."
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, RefusedTarget):
        return Refusal.ADDRESS, str(cause)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return (
            Refusal.CONNECT,
            "The name of the receiver's host could not be looked up; its name servers failed.",
        )
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return (
            Refusal.CONNECT,
            f"The receiver's certificate does not hold{_because(error.certificate_error)}.",
        )
    if isinstance(cause, ssl.SSLError):
        return Refusal.CONNECT, f"TLS with the receiver failed{_because(cause)}."
    if isinstance(error, aiohttp.ClientConnectorError):
        return Refusal.CONNECT, _CONNECT_FAILURES.get(
            error.os_error.errno or 0, "No connection to the receiver could be made."
        )
    if isinstance(error, aiohttp.InvalidURL):
        return Refusal.ADDRESS, "The URL cannot be posted to."
    if isinstance(error, aiohttp.ClientConnectionError | OSError):
        return Refusal.PROTOCOL, "The receiver closed the connection without an answer."
    return Refusal.PROTOCOL, "The receiver's answer is not HTTP, or its headers are too long."


def _because(error: Exception) -> str:
    """Return the reason that OpenSSL gives for a failure, which holds no address; empty where it gives none."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = str(error.verify_message)
    else:
        reason = str(getattr(error, "reason", None) or "").replace("_", " ").lower()
    reason = _UNPRINTABLE.sub(" ", reason).strip(" .")
    return f": {reason}" if reason else ""


def retry_after_s(value: str | None, now_ms: int) -> float | None:
    """Return what a Retry-After asks for, in seconds from now, 0 or more; None for no form of RFC 9110, 10.2.3."""
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", value.strip()):
        return float(value)
    try:
        at = parsedate_to_datetime(value)
        return max(at.timestamp() - now_ms / 1000, 0.0)
    except (ValueError, OverflowError):
        return None
