"""What a worker is told when it is started, beside the settings that it finds in its environment."""

import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import SecretStr

from hydrasms_app.settings import Settings, variable


@dataclass(frozen=True, slots=True)
class Orders:
    """Which worker it is, whose, and what it inherits."""

    role: Literal["edge"] | None
    """What it serves: everything, or an edge."""
    number: int
    """Its number among its siblings, from 0."""
    parent: int
    """The process that started it and that it must not outlive."""
    line: int
    """Descriptor of its end of the line to the parent."""
    http: int
    """Descriptor of the listening socket of the REST API."""
    dispatcher: bool
    demo: bool

    @classmethod
    def parse(cls, text: str) -> "Orders":
        """Return the orders that a command line holds."""
        return cls(**json.loads(text))

    def command(self) -> list[str]:
        """Return the command that starts the worker."""
        words = json.dumps(dataclasses.asdict(self), separators=(",", ":"))
        return [sys.executable, "-m", "hydrasms_app.workers.child", words]


def environment(settings: Settings, **changed: Any) -> Mapping[str, str]:
    """Return an environment in which another process finds the same settings, but for those that are changed."""
    given = {name: getattr(settings, name) for name in settings.model_fields_set} | changed
    return {**os.environ, **{variable(name): _text(value) for name, value in given.items()}}


def _text(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    # An empty variable counts as one that is not set.
    return "" if value is None else str(value)
