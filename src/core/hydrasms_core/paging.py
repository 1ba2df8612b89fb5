"""Pages of a list: sizes and opaque tokens.

Every list is in descending order of ids, which sort by time, so that a page is "those below the last id" and rows
that arrive meanwhile change nothing on the pages that follow.
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from hydrasms_base.ids import is_id
from hydrasms_core.errors import InvalidArgument, InvalidPageToken

T = TypeVar("T")

DEFAULT_SIZE = 100
MAX_SIZE = 1_000


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page: at most `size` rows with ids below `before` (None: from the newest)."""

    size: int
    before: str | None
    scope: str


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """The rows of one page, newest first, and the token of the next; empty on the last."""

    rows: Sequence[T]
    next_token: str


def page_request(size: int, token: str, *, scope: str) -> PageRequest:
    """Return the page that a caller asks for; `scope` names the list and whose it is.

    Raises InvalidArgument for a size that is not 0 to 1,000 and InvalidPageToken for a token of another list.
    """
    if not 0 <= size <= MAX_SIZE:
        raise InvalidArgument(
            f"A page holds 1 to {MAX_SIZE} entries; 0 means {DEFAULT_SIZE}.", field="page_size"
        )
    return PageRequest(size or DEFAULT_SIZE, _before(token, scope) if token else None, scope)


def page_of(rows: Sequence[T], ids: Sequence[str], request: PageRequest) -> Page[T]:
    """Return a page from up to `size + 1` rows and their ids: one more than fits tells that more follow."""
    if len(rows) <= request.size:
        return Page(rows, "")
    last = ids[request.size - 1]
    token = base64.urlsafe_b64encode(f"{request.scope}\n{last}".encode()).decode().rstrip("=")
    return Page(rows[: request.size], token)


def _before(token: str, scope: str) -> str:
    try:
        text = base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    found, _, last = text.rpartition("\n")
    if found != scope or not is_id(last):
        raise InvalidPageToken(
            "Send the next_page_token of this list's last page, or none to begin again.", field="page_token"
        )
    return last
