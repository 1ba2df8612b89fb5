"""What is posted: the body and the headers of one attempt."""

from typing import NamedTuple

import orjson

from hydrasms_base.clock import iso_millis
from hydrasms_base.secret import Secret
from hydrasms_core.webhooks.delivery_store import Due, Target
from hydrasms_core.webhooks.model import DeliveryType
from hydrasms_core.webhooks.sealed import EndpointSecrets
from hydrasms_core.webhooks.signing import signed_headers

TEST_SENDER = "+447700900000"
"""Who a test text seems to be from: a number that is reserved for fiction."""
TEST_CONTENT = "This is a test of your webhook."


class Post(NamedTuple):
    """One request, ready to be sent."""

    url: str
    headers: dict[str, str]
    body: bytes


def post_of(due: Due, target: Target, secrets: EndpointSecrets, *, at_ms: int) -> Post:
    """Return what an attempt posts; raises hydrasms_base.sealing.Unsealable.

    A text has the four members of the public contract and no others; what is new stands in the headers.
    """
    body = _body(due, target, secrets)
    signing = [secrets.signing(due.endpoint_id, target.signing_sealed)]
    if target.previous_until_ms is not None and at_ms < target.previous_until_ms:
        signing.append(secrets.signing(due.endpoint_id, target.previous_sealed))
    return Post(target.url, signed_headers(signing, due.id, body, at_ms=at_ms), body)


def _body(due: Due, target: Target, secrets: EndpointSecrets) -> bytes:
    if due.type is DeliveryType.MESSAGE_STATUS:
        return due.payload.encode()
    if target.auth_sealed == "":
        event = {"type": "webhook.test", "timestamp": iso_millis(due.created_at_ms), "data": {}}
        return orjson.dumps(event)
    auth = secrets.auth(due.endpoint_id, target.auth_sealed)
    if due.text is None:
        return _text(TEST_SENDER, auth, target.shortcode, TEST_CONTENT)
    return _text(due.text.sender, auth, due.text.shortcode, due.text.content)


def _text(sender: str, auth: Secret, shortcode: str, content: str) -> bytes:
    return orjson.dumps(
        {"sender": sender, "auth": auth.reveal(), "shortcode": shortcode, "messageContent": content}
    )
