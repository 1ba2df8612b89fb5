"""What reaches the log, and what must not."""

import errno
import io
import json
import logging
import sys

import pytest
import structlog

from hydrasms_base import log as hydrasms_log
from tests.support.served import wait_until

SECRET = "+447700900000 and a private text"


@pytest.fixture(params=["json", "text"])
def written(request, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    hydrasms_log.configure_logging("info", request.param)
    yield stream
    # Other tests look at what is logged through structlog's own means.
    structlog.reset_defaults()
    hydrasms_log._direct = None
    logging.basicConfig(force=True, handlers=[logging.NullHandler()])


def fail(recipient):
    try:
        raise ValueError(recipient)
    except ValueError as error:
        raise ExceptionGroup(recipient, [KeyError(recipient)]) from error


def test_an_exception_is_logged_without_its_words_and_variables(written):
    log = hydrasms_log.get_logger("test")
    try:
        fail(SECRET)
    except ExceptionGroup:
        log.exception("broken")
    text = written.getvalue()
    assert "broken" in text
    assert "ExceptionGroup" in text
    assert "test_log.py" in text
    assert "private" not in text
    assert "7700900000" not in text


def test_an_error_that_is_among_its_own_causes_is_logged_once(written):
    log = hydrasms_log.get_logger("test")
    first, second = ValueError("one"), KeyError("two")
    first.__cause__, second.__cause__ = second, first
    try:
        raise first
    except ValueError:
        log.exception("broken")
    assert written.getvalue().count("broken") == 1


def test_the_search_would_find_what_is_logged(written):
    hydrasms_log.get_logger("test").warning("leak", words=SECRET)
    assert "private" in written.getvalue()


def test_ordinary_lines_gather_and_are_written_all_the_same(written):
    log = hydrasms_log.get_logger("test")
    for number in range(50):
        log.info("line", number=number)
    wait_until(lambda: written.getvalue().count("\n") == 50, what="fifty lines")


def test_a_warning_is_written_at_once_after_what_waits(written):
    log = hydrasms_log.get_logger("test")
    log.info("first")
    log.warning("second")
    text = written.getvalue()
    assert text.index("first") < text.index("second")


def test_the_line_of_a_request_has_the_fields_of_any_other(written):
    hydrasms_log.RequestLog("test").info("http", {"status": 200})
    hydrasms_log.get_logger("test").warning("other", status=200)
    lines = written.getvalue().splitlines()
    if lines[0].startswith("{"):
        first, second = (json.loads(line) for line in lines)
        assert set(first) == set(second)
        assert first["timestamp"][-1] == second["timestamp"][-1] == "Z"
    else:
        assert all("status" in line for line in lines)


def test_the_request_id_is_on_every_line_of_its_request(written):
    token = hydrasms_log.request_id.set("r-17")
    hydrasms_log.get_logger("test").warning("inside")
    hydrasms_log.request_id.reset(token)
    hydrasms_log.get_logger("test").warning("outside")
    inside, outside = written.getvalue().splitlines()
    assert "r-17" in inside
    assert "r-17" not in outside


class FullDisk(io.StringIO):
    """A stream that takes nothing until there is space."""

    is_full = True

    def write(self, text):
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


def test_a_log_that_cannot_be_written_stops_nobody_and_says_later_what_is_missing(monkeypatch):
    stream = FullDisk()
    monkeypatch.setattr(sys, "stderr", stream)
    hydrasms_log.configure_logging("info", "json")
    log = hydrasms_log.get_logger("test")
    try:
        for _ in range(3):
            log.warning("lost")
        stream.is_full = False
        log.warning("written")
        log.warning("written too")
    finally:
        structlog.reset_defaults()
        hydrasms_log._direct = None
        logging.basicConfig(force=True, handlers=[logging.NullHandler()])
    lines = [json.loads(line) for line in stream.getvalue().splitlines() if line]
    assert [line["event"] for line in lines] == ["log_lines_dropped", "written", "written too"]
    assert lines[0]["lines"] == 3
