"""Writes docs/errors.md from the reasons in the protos and the edge's table, or checks that it is up to date."""

import re
import sys
from pathlib import Path

from hydrasms.errors.v1 import error_reason_pb2
from hydrasms_edge.errors import HTTP_STATUS

ROOT = Path(__file__).parent.parent
PROTO = ROOT / "proto/hydrasms/errors/v1/error_reason.proto"
PAGE = ROOT / "docs/errors.md"
PREFIX = "ERROR_REASON_"

HEAD = """\
# Errors

This page is generated from `proto/hydrasms/errors/v1/error_reason.proto` by `make proto`.

Every refused call carries one of these reasons: over gRPC as the `reason` of a `google.rpc.ErrorInfo` with domain
`hydrasms`, over HTTP as `code` in the JSON body, beside a human `response` and the `request_id` to quote. Programs
should decide by the reason; the words may change, the reasons never do. A list only ever grows.

| code | HTTP | what it means |
| --- | --- | --- |
"""


def page() -> str:
    """Return what docs/errors.md should hold."""
    comments = _comments(PROTO.read_text())
    rows = [
        f"| `{name.removeprefix(PREFIX)}` | {HTTP_STATUS[name.removeprefix(PREFIX)]} | {comments[name]} |"
        for name, number in error_reason_pb2.ErrorReason.items()
        if number
    ]
    return HEAD + "\n".join(rows) + "\n"


def _comments(text: str) -> dict[str, str]:
    """Return the comment above each value of the enum, on one line."""
    found = re.findall(r"((?:  //[^\n]*\n)+)  (ERROR_REASON_\w+) =", text)
    return {name: " ".join(line.strip(" /") for line in comment.splitlines()) for comment, name in found}


def main() -> int:
    """Write the page, or say that it is out of date."""
    wanted = page()
    if "--write" in sys.argv[1:]:
        PAGE.write_text(wanted)
        return 0
    if not PAGE.exists() or PAGE.read_text() != wanted:
        print("docs/errors.md is out of date: run make proto", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
