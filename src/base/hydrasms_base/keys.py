"""API keys: their form, their check digits and their digest."""

import hashlib
import re
import secrets
import string
import zlib

PREFIX = "hsms_"
DISPLAY_LENGTH = 9

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
# Two base62 digits at once: every request with one of our keys computes six.
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_RANDOM_LENGTH = 30
_CHECK_LENGTH = 6
_OWN_FORM = re.compile(rf"hsms_[0-9A-Za-z]{{{_RANDOM_LENGTH + _CHECK_LENGTH}}}", re.ASCII)
_VISIBLE = re.compile(r"[\x21-\x7e]{8,512}", re.ASCII)


def generate_key() -> str:
    """Return a new API key: `hsms_`, 30 random base62 characters (178 bits), 6 of CRC-32 over them."""
    body = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_LENGTH))
    return f"{PREFIX}{body}{_check_digits(body)}"


def is_plausible(key: str) -> bool:
    """Tell whether a key could exist, without asking anybody.

    A key with our prefix must have our form and its check digits; any other may have been imported, so it
    needs only to be 8 to 512 visible ASCII characters.
    """
    if not key.startswith(PREFIX):
        return _VISIBLE.fullmatch(key) is not None
    if _OWN_FORM.fullmatch(key) is None:
        return False
    body, check = key[len(PREFIX) : -_CHECK_LENGTH], key[-_CHECK_LENGTH:]
    return _check_digits(body) == check


def digest_key(key: str) -> str:
    """Return the SHA-256 of a key, 64 lower-case hexadecimal digits: all that is ever stored or sent on."""
    return hashlib.sha256(key.encode()).hexdigest()


def display_prefix(key: str) -> str:
    """Return the first characters of a key, at most 9 and at most a quarter of it, to tell it from others."""
    return key[: min(DISPLAY_LENGTH, len(key) // 4)]


def _check_digits(body: str) -> str:
    number = zlib.crc32(body.encode("ascii"))
    number, last = divmod(number, len(_PAIRS))
    first, middle = divmod(number, len(_PAIRS))
    return _PAIRS[first] + _PAIRS[middle] + _PAIRS[last]
