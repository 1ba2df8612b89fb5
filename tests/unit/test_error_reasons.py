"""Every reason is known everywhere: in the proto, in the domain, over HTTP and in the documentation."""

from pathlib import Path

import grpc
import pytest

from hydrasms.errors.v1 import error_reason_pb2
from hydrasms_core import errors
from hydrasms_core.errors import DomainError, Kind
from hydrasms_edge.errors import HTTP_STATUS

ROOT = Path(__file__).parents[2]
REASONS = {
    name.removeprefix("ERROR_REASON_") for name, number in error_reason_pb2.ErrorReason.items() if number
}


def domain_errors():
    found, waiting = [], [DomainError]
    while waiting:
        error = waiting.pop()
        found.append(error)
        waiting += error.__subclasses__()
    return found


@pytest.mark.parametrize("error", domain_errors(), ids=lambda error: error.__name__)
def test_every_domain_error_has_a_reason_of_the_proto(error):
    assert error.reason in REASONS


def test_every_reason_has_one_http_status():
    assert set(HTTP_STATUS) == REASONS
    assert all(400 <= status < 600 for status in HTTP_STATUS.values())


def test_every_reason_is_documented():
    page = (ROOT / "docs/errors.md").read_text()
    assert all(f"| `{reason}` | {HTTP_STATUS[reason]} |" in page for reason in REASONS)


def test_every_kind_is_a_status_code_of_grpc():
    assert {kind.name for kind in Kind} <= {code.name for code in grpc.StatusCode}


def test_the_words_of_the_core_errors_are_sentences():
    assert str(errors.NotFound("message")) == "There is no such message."
    assert str(errors.InsufficientCredits(0, 1)) == "The message costs 1 credit and the balance is 0."
