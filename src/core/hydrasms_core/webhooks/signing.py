"""Signatures as Standard Webhooks has them: HMAC-SHA256 of `id.timestamp.body` under the endpoint's secret.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import functools
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable
from importlib.metadata import version

from multidict import istr

from hydrasms_base.secret import Secret

_PREFIX = "whsec_"
_SECRET_BYTES = 32
_AUTH_BYTES = 24
# Names of this type need not be brought to lower case for every request.
_CONTENT_TYPE, _AGENT = istr("Content-Type"), istr("User-Agent")
_ID, _TIMESTAMP, _SIGNATURE = istr("webhook-id"), istr("webhook-timestamp"), istr("webhook-signature")
_USER_AGENT = f"hydrasms/{version('hydrasms')}"


def make_signing_secret() -> Secret:
    """Return a new signing secret: `whsec_` and the base64 of 32 random bytes."""
    return Secret(_PREFIX + base64.b64encode(os.urandom(_SECRET_BYTES)).decode())


def make_auth() -> Secret:
    """Return a new word for "auth": 32 characters of URL-safe base64."""
    return Secret(secrets.token_urlsafe(_AUTH_BYTES))


def signed_headers(signing: Iterable[Secret], webhook_id: str, body: bytes, *, at_ms: int) -> dict[str, str]:
    """Return the headers of one attempt, with a signature under each of the secrets, the newest first."""
    timestamp = str(at_ms // 1_000)
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return {
        _CONTENT_TYPE: "application/json",
        _AGENT: _USER_AGENT,
        _ID: webhook_id,
        _TIMESTAMP: timestamp,
        _SIGNATURE: " ".join([f"v1,{_signature(secret, signed)}" for secret in signing]),
    }


def _signature(secret: Secret, signed: bytes) -> str:
    signing = _signing(secret).copy()
    signing.update(signed)
    return base64.b64encode(signing.digest()).decode()


@functools.lru_cache(maxsize=2_000)
def _signing(secret: Secret) -> hmac.HMAC:
    """Return what signs under a secret, to be copied for each signature."""
    key = base64.b64decode(secret.reveal().removeprefix(_PREFIX))
    return hmac.new(key, digestmod=hashlib.sha256)
