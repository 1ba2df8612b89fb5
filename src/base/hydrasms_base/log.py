"""Structured logs on standard error: JSON lines, or readable ones on a terminal.

Ordinary lines gather for a tenth of a second and are written together, because a system call a line is a tenth of
what a request costs. Warnings and errors are written at once, with all that gathered before them.

No key, phone number or message body is ever given to a log call; a test searches a whole run's log for them.
"""

import atexit
import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TextIO

import orjson
import structlog

_GATHER_S = 0.1
# So much is written to a pipe in one piece, also where several processes write to it.
_WHOLE_BYTES = 4_096

Logger = structlog.typing.FilteringBoundLogger
"""What every module's `log` is."""

Format = Literal["auto", "json", "text"]


request_id: ContextVar[str] = ContextVar("hydrasms_request_id", default="")
"""The id of the request that is being worked on; it is on every line that is logged meanwhile."""


def get_logger(name: str) -> Logger:
    """Return a logger whose lines carry the module that wrote them."""
    logger: Logger = structlog.get_logger(module=name)
    return logger


class RequestLog:
    """Writes the one line of every request, past structlog where lines are JSON: it is most of what is logged.

    A line has the same fields either way.
    """

    def __init__(self, name: str) -> None:
        self._module = name
        self._log = get_logger(name)

    def info(self, event: str, fields: dict[str, Any]) -> None:
        """Write a line of level info."""
        direct = _direct
        if direct is None:
            self._log.info(event, **fields)
            return
        if _worker is not None:
            fields["worker"] = _worker
        fields["module"] = self._module
        fields["event"] = event
        fields["level"] = "info"
        fields["timestamp"] = _iso_now()
        direct.msg(orjson.dumps(fields).decode())


def configure_logging(level: str = "info", style: Format = "auto", *, worker: int | None = None) -> None:
    """Set up logging for this process: level is debug, info, warning or error.

    Each line carries the number of the worker that wrote it, where there are several.
    """
    global _worker
    _worker = worker
    as_text = style == "text" or (style == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        _add_worker,
        _add_request_id,
        _add_error,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    lines = _Lines(sys.stderr)
    atexit.register(lines.flush)
    numeric = logging.getLevelNamesMapping()[level.upper()]
    renderers: list[structlog.typing.Processor]
    if as_text:
        renderers = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    else:
        renderers = [structlog.processors.JSONRenderer(_dump)]
    global _direct
    _direct = None if as_text or numeric > logging.INFO else lines
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )
    # Libraries log through the standard library; what they warn of goes to the same stream.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    logging.basicConfig(level=max(numeric, logging.WARNING), handlers=[handler], force=True)


def _iso_now() -> str:
    """Return the time in UTC as structlog writes it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _missing(lines: int) -> str:
    fields = {"lines": lines, "event": "log_lines_dropped", "level": "warning", "timestamp": _iso_now()}
    return orjson.dumps(fields).decode()


class _Lines:
    """Writes lines to a stream; structlog calls the method of a line's level."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        self._dropped = 0
        self._something = threading.Event()
        threading.Thread(target=self._write_on, name="hydrasms-log", daemon=True).start()

    def msg(self, line: str) -> None:
        """Write a line soon."""
        self._waiting.append(line)
        if len(self._waiting) == 1:
            self._something.set()

    def urgent(self, line: str) -> None:
        """Write a line now, after those that wait."""
        self._waiting.append(line)
        self.flush()

    def flush(self) -> None:
        """Write all lines that wait; those that cannot be written are dropped, and counted once that is over.

        A log that nobody can write, on a disk that is full, must stop neither whoever logs nor later lines.
        """
        with self._lock:
            lines, self._waiting = self._waiting, []
            if not lines:
                return
            # What came first of all that was dropped may have been written in part, so that a line is to end.
            missing = ["", _missing(self._dropped)] if self._dropped else []
            try:
                for piece in _pieces([*missing, *lines]):
                    self._stream.write(piece)
                self._stream.flush()
            except OSError:
                self._dropped += len(lines)
            else:
                self._dropped = 0

    def _write_on(self) -> None:
        while True:
            self._something.wait()
            self._something.clear()
            # Nothing is waited for here but more lines to write with the first.
            time.sleep(_GATHER_S)
            self.flush()

    debug = info = msg
    warning = warn = error = err = exception = critical = fatal = failure = urgent


def _pieces(lines: list[str]) -> Iterator[str]:
    """Put lines together to pieces that no other process can write into."""
    piece: list[str] = []
    size = 0
    for line in lines:
        length = len(line.encode(errors="replace")) + 1
        if piece and size + length > _WHOLE_BYTES:
            yield "\n".join([*piece, ""])
            piece, size = [], 0
        piece.append(line)
        size += length
    if piece:
        yield "\n".join([*piece, ""])


# Where JSON lines go that are put together by hand; None while they are not wanted.
_direct: _Lines | None = None
_worker: int | None = None


def _add_worker(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    if _worker is not None:
        event["worker"] = _worker
    return event


def _add_request_id(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    current = request_id.get()
    if current:
        event.setdefault("request_id", current)
    return event


def _add_error(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Put an exception's type and the calls that led to it in the place of its traceback.

    Its words are left out, and so is every local variable: they may hold a key, a number or a body.
    """
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    elif isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["error"] = type(error).__name__
        event["where"] = whereabouts(error)
    return event


def whereabouts(error: BaseException) -> list[str]:
    """Return the calls that led to an error and to those that caused it or that it holds, innermost last."""
    lines: list[str] = []
    # By identity, for an error may well be among the causes of its own causes.
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        lines += [
            f"{type(current).__name__} {Path(frame.filename).name}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(current.__traceback__)
        ]
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions
        if current.__cause__ is not None:
            waiting.append(current.__cause__)
    return lines


def _dump(event: dict[str, Any], default: Any, **_: Any) -> str:
    return orjson.dumps(event, default=default).decode()
