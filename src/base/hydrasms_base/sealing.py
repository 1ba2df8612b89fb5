"""Secrets that must be read back, and numbers that must not: AES-GCM and keyed hashes under one key file.

What is sealed stands in the database; the key does not, nor in a backup of it.
"""

import base64
import hashlib
import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hydrasms_base.secret import Secret

_NONCE_BYTES = 12
_FORM = "1:"


class Unsealable(Exception):
    """What was to be opened was sealed with another key, for another place, or was altered."""


class Sealer:
    """Seals texts and hashes numbers; each use has a key of its own, derived from the one that it is made with."""

    def __init__(self, key: Secret) -> None:
        self._sealing = AESGCM(_derived(key, "seal"))
        # Copied for every number. `hmac.digest` would let the interpreter's other threads run at each, and a busy one
        # gives it back only after its switch interval: thousands of times as long as the hash takes.
        self._hashing = hmac.new(_derived(key, "number"), digestmod=hashlib.sha256)
        self._check = _derived(key, "check")

    def seal(self, text: str, *, place: str) -> str:
        """Return a text so that it can be stored. It opens for the same place alone, such as `webhook/<id>/auth`."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._sealing.encrypt(nonce, text.encode(), place.encode())
        return _FORM + base64.b64encode(nonce + sealed).decode()

    def unseal(self, sealed: str, *, place: str) -> Secret:
        """Return the text that was sealed for this place; raises Unsealable."""
        if not sealed.startswith(_FORM):
            raise Unsealable("it is not in a known form")
        try:
            raw = base64.b64decode(sealed[len(_FORM) :], validate=True)
            # Several texts stand for the same bytes, because the last character has bits to spare; one was written.
            if base64.b64encode(raw).decode() != sealed[len(_FORM) :]:
                raise ValueError
            text = self._sealing.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], place.encode())
        except (ValueError, InvalidTag):
            raise Unsealable("it was sealed with another key or for another place, or was altered") from None
        return Secret(text.decode())

    def hash_number(self, number: str) -> str:
        """Return the keyed hash of a phone number, 43 characters: who lacks the key cannot try all numbers."""
        hashing = self._hashing.copy()
        hashing.update(number.encode())
        return base64.urlsafe_b64encode(hashing.digest()).decode().rstrip("=")

    @property
    def check(self) -> str:
        """What tells one key from another and nothing else about it: 64 hexadecimal digits."""
        return hashlib.sha256(self._check).hexdigest()


def _derived(key: Secret, use: str) -> bytes:
    derivation = HKDF(algorithm=SHA256(), length=32, salt=None, info=f"hydrasms/{use}".encode())
    return derivation.derive(key.reveal().encode())
