"""Structured logs on standard error: JSON lines, or readable ones on a terminal.

No key, phone number or message body is ever given to a log call; a test searches a whole run's log for them.
"""

import logging
import sys
from contextvars import ContextVar
from typing import Any, Literal

import orjson
import structlog

Logger = structlog.typing.FilteringBoundLogger
"""What every module's `log` is."""

Format = Literal["auto", "json", "text"]


request_id: ContextVar[str] = ContextVar("hydrasms_request_id", default="")
"""The id of the request that is being worked on; it is on every line that is logged meanwhile."""


def get_logger(name: str) -> Logger:
    """Return a logger whose lines carry the module that wrote them."""
    logger: Logger = structlog.get_logger(module=name)
    return logger


def configure_logging(level: str = "info", style: Format = "auto") -> None:
    """Set up logging for this process: level is debug, info, warning or error."""
    as_text = style == "text" or (style == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        _add_request_id,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    numeric = logging.getLevelNamesMapping()[level.upper()]
    renderers: list[structlog.typing.Processor]
    if as_text:
        renderers = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    else:
        renderers = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_dump)]
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
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


def _add_request_id(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    current = request_id.get()
    if current:
        event.setdefault("request_id", current)
    return event


def _dump(event: dict[str, Any], default: Any, **_: Any) -> str:
    return orjson.dumps(event, default=default).decode()
