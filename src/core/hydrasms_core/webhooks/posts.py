"""What is posted: the body and the headers of one attempt."""

import functools
import json
from typing import NamedTuple

import orjson

from hydrasms_base.clock import iso_millis
from hydrasms_base.secret import Secret
from hydrasms_core.webhooks.delivery_store import Due, Target
from hydrasms_core.webhooks.model import DeliveryType
from hydrasms_core.webhooks.ports import Answered, Unanswered
from hydrasms_core.webhooks.sealed import EndpointSecrets
from hydrasms_core.webhooks.signing import signed_headers

TEST_SENDER = "+447700900000"
"""Who a test text seems to be from: a number that is reserved for fiction."""
TEST_CONTENT = "This is a test of your webhook."


_MASK = b"***"
# A shorter end of an answer may as well be the receiver's own words.
_LEAST_OF_A_WORD = 4


class Post(NamedTuple):
    """One request, ready to be sent."""

    url: str
    headers: dict[str, str]
    body: bytes
    auth: Secret | None
    """The word that the body carries as "auth", if any."""


def post_of(due: Due, target: Target, secrets: EndpointSecrets, *, at_ms: int) -> Post:
    """Return what an attempt posts; raises hydrasms_base.sealing.Unsealable.

    A text has the four members of the public contract and no others; what is new stands in the headers.
    """
    auth = None
    if due.type is not DeliveryType.MESSAGE_STATUS and target.auth_sealed:
        auth = secrets.auth(due.endpoint_id, target.auth_sealed)
    body = _body(due, target, auth)
    signing = [secrets.signing(due.endpoint_id, target.signing_sealed)]
    if target.previous_until_ms is not None and at_ms < target.previous_until_ms:
        signing.append(secrets.signing(due.endpoint_id, target.previous_sealed))
    return Post(target.url, signed_headers(signing, due.id, body, at_ms=at_ms), body, auth)


def masked(answer: Answered | Unanswered, auth: Secret | None) -> Answered | Unanswered:
    """Return an answer without the word that was posted, which a receiver may send back: answers are kept as they are
    read, and the word is not.

    It is found as it was sent, and as JSON may have it instead; also a part of it where the answer was cut off.
    """
    if auth is None or isinstance(answer, Unanswered) or not answer.body:
        return answer
    body = answer.body
    for form in _forms(auth):
        body = body.replace(form, _MASK)
        cut = _begins_at(body, form)
        if cut is not None:
            body = body[:cut] + _MASK
    return answer if body is answer.body else answer._replace(body=body)


@functools.lru_cache(maxsize=2_000)
def _forms(auth: Secret) -> tuple[bytes, ...]:
    """Return how a word may be written; the longest first, for another may be a part of it."""
    word = auth.reveal()
    forms = {word.encode(), orjson.dumps(word)[1:-1], json.dumps(word)[1:-1].encode()}
    return tuple(sorted(forms, key=len, reverse=True))


def _begins_at(body: bytes, word: bytes) -> int | None:
    """Return where a word begins that the end of a body cuts off; None where that is not so."""
    place = max(0, len(body) - len(word) + 1)
    while (place := body.find(word[:_LEAST_OF_A_WORD], place)) >= 0:
        if word.startswith(body[place:]):
            return place
        place += 1
    return None


def _body(due: Due, target: Target, auth: Secret | None) -> bytes:
    if due.type is DeliveryType.MESSAGE_STATUS:
        return due.payload.encode()
    if auth is None:
        event = {"type": "webhook.test", "timestamp": iso_millis(due.created_at_ms), "data": {}}
        return orjson.dumps(event)
    if due.text is None:
        return _text(TEST_SENDER, auth, target.shortcode, TEST_CONTENT)
    return _text(due.text.sender, auth, due.text.shortcode, due.text.content)


def _text(sender: str, auth: Secret, shortcode: str, content: str) -> bytes:
    return orjson.dumps(
        {"sender": sender, "auth": auth.reveal(), "shortcode": shortcode, "messageContent": content}
    )
