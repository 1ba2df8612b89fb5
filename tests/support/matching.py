"""Comparing what came with what a case expects, and saying where they differ.

An expected text that is a matcher, such as `<uuid7>`, stands for all texts of that form. `<absent>` demands that a
member of an object is not there.
"""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)
_TIMESTAMP = re.compile(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{3})?Z", re.ASCII)
_MILLIS = re.compile(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z", re.ASCII)
_API_KEY = re.compile(r"hsms_[0-9A-Za-z]{36}", re.ASCII)
_MATCHER = re.compile(r"<[a-z0-9-]+>", re.ASCII)

ABSENT = "<absent>"


def _text(form: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and form.fullmatch(value) is not None


def _is_time(form: re.Pattern[str]) -> Callable[[Any], bool]:
    def matches(value: Any) -> bool:
        if not isinstance(value, str) or form.fullmatch(value) is None:
            return False
        try:
            datetime.fromisoformat(value)
        except ValueError:
            return False
        return True

    return matches


MATCHERS: dict[str, Callable[[Any], bool]] = {
    "<any>": lambda value: True,
    "<text>": lambda value: isinstance(value, str) and value != "",
    "<uuid7>": _text(_UUID7),
    "<timestamp>": _is_time(_TIMESTAMP),
    "<millis>": _is_time(_MILLIS),
    "<api-key>": _text(_API_KEY),
}
"""What each matcher takes; `<absent>` is the one beside them."""


def unknown_matchers(expected: Any) -> list[str]:
    """Return every text in an expectation that looks like a matcher and is none."""
    if isinstance(expected, dict):
        return [name for value in expected.values() for name in unknown_matchers(value)]
    if isinstance(expected, list):
        return [name for value in expected for name in unknown_matchers(value)]
    looks = isinstance(expected, str) and _MATCHER.fullmatch(expected) is not None
    return [expected] if looks and expected != ABSENT and expected not in MATCHERS else []


def differences(expected: Any, actual: Any, *, exact: bool, at: str = "") -> list[str]:
    """Return where two values differ, a line each; with `exact` an object has no member beside those expected."""
    if isinstance(expected, dict):
        return _object_differences(expected, actual, exact=exact, at=at)
    if isinstance(expected, list):
        return _list_differences(expected, actual, exact=exact, at=at)
    if isinstance(expected, str) and expected in MATCHERS:
        return [] if MATCHERS[expected](actual) else [_line(at, expected, actual)]
    # True is 1 in Python, but not in JSON.
    if type(expected) is not type(actual) or expected != actual:
        return [_line(at, expected, actual)]
    return []


def _object_differences(expected: dict[str, Any], actual: Any, *, exact: bool, at: str) -> list[str]:
    if not isinstance(actual, dict):
        return [_line(at, expected, actual)]
    found: list[str] = []
    for name, value in expected.items():
        if value == ABSENT:
            if name in actual:
                found.append(f"{at}.{name}: expected nothing, came {actual[name]!r}")
        elif name not in actual:
            found.append(f"{at}.{name}: expected {value!r}, came nothing")
        else:
            found += differences(value, actual[name], exact=exact, at=f"{at}.{name}")
    if exact:
        found += [f"{at}.{name}: came unasked: {actual[name]!r}" for name in actual if name not in expected]
    return found


def _list_differences(expected: list[Any], actual: Any, *, exact: bool, at: str) -> list[str]:
    if not isinstance(actual, list) or len(actual) != len(expected):
        return [_line(at, expected, actual)]
    return [
        line
        for index, (wanted, came) in enumerate(zip(expected, actual, strict=True))
        for line in differences(wanted, came, exact=exact, at=f"{at}[{index}]")
    ]


def _line(at: str, expected: Any, actual: Any) -> str:
    return f"{at or 'it'}: expected {expected!r}, came {actual!r}"
