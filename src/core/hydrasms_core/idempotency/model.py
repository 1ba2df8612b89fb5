"""The rules of idempotency keys."""

import hashlib
import re
from dataclasses import dataclass

from hydrasms_core.errors import InvalidIdempotencyKey

KEPT_MS = 24 * 3_600_000
"""How long a key is kept at least."""

_FORM = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Remembered:
    """What an earlier request with the same key was, and what it made."""

    fingerprint: str
    subject_id: str


def check_key(key: str | None) -> str | None:
    """Return a key as it is, or None where none was sent; raises InvalidIdempotencyKey."""
    if key is not None and _FORM.fullmatch(key) is None:
        raise InvalidIdempotencyKey(
            "An idempotency key is 1 to 255 visible ASCII characters.", field="idempotency_key"
        )
    return key


def fingerprint(*parts: str) -> str:
    """Return a digest of what makes two requests the same; the parts cannot run into each other."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()
