"""Answers in JSON."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

NO_STORE = {"cache-control": "no-store"}


class Answer(Response):
    """A JSON body that nobody may keep a copy of."""

    media_type = "application/json"

    def __init__(
        self, content: Any, status_code: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(content, status_code, NO_STORE if headers is None else {**NO_STORE, **headers})

    def render(self, content: Any) -> bytes:
        """Return the content as JSON."""
        return orjson.dumps(content)
