"""The `hydrasms` program: its commands, and what becomes of a failure."""

import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from hydrasms_app.cli import (
    accounts,
    backup,
    certs,
    credit,
    keys,
    ledger,
    messages,
    server,
    shortcodes,
    simulate,
    transactions,
    webhooks,
)
from hydrasms_app.cli.output import shown
from hydrasms_app.problems import Problem

FAILED = 1
MISUSED = 2
INTERRUPTED = 130

_KEY = re.compile(r"hsms_[0-9A-Za-z]+", re.ASCII)
_QUOTED_EXTRAS = re.compile(r"(unexpected extra argument(?:s|\(s\))?) \(.*\)", re.DOTALL)


class Program(TyperGroup):
    """Ends every failure with one line on standard error and a status that is not 0; never with a traceback."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001 - the signature is typer's
        windows_expand_args: bool = True,  # noqa: FBT001 - the signature is typer's
        **extra: Any,
    ) -> Any:
        """Run one command and exit with its status."""
        try:
            status = super().main(
                args, prog_name or "hydrasms", complete_var, False, windows_expand_args, **extra
            )
        except TyperException as error:
            status = _fail(_misuse(error), error.exit_code)
        except Problem as problem:
            status = _fail(str(problem))
        except typer.Abort:
            status = INTERRUPTED
        except UnicodeEncodeError:
            status = _fail("an argument is not valid UTF-8", MISUSED)
        except OSError as error:
            status = _fail(": ".join(str(part) for part in (error.filename, error.strerror) if part))
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends as one line without its data
            status = _fail(f"internal error: {_whereabouts(error)}")
        if not standalone_mode:
            return status
        sys.exit(status or 0)


app = typer.Typer(
    name="hydrasms",
    cls=Program,
    add_completion=False,
    rich_markup_mode=None,
    help="A self-hosted SMS platform. HYDRASMS_CORE and HYDRASMS_TOKEN_FILE say which core a command calls.",
)
app.command()(server.serve)
server.database.command()(backup.backup)
server.database.command()(backup.move)
app.add_typer(server.database, name="db")
app.add_typer(accounts.app, name="account")
app.add_typer(keys.app, name="key")
app.add_typer(credit.app, name="credits")
app.add_typer(transactions.app, name="transactions")
app.add_typer(messages.app, name="messages")
app.add_typer(shortcodes.app, name="shortcode")
app.add_typer(simulate.app, name="simulate")
app.add_typer(ledger.app, name="ledger")
app.add_typer(webhooks.app, name="webhook")
app.add_typer(webhooks.deliveries, name="deliveries")
app.command()(certs.certs)
app.command()(server.version)


def main(args: Sequence[str] | None = None) -> None:
    """Run the program with the process's arguments, or those given, and exit."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            # A terminal that cannot show a character gets its number rather than no output at all.
            reconfigure(errors="backslashreplace")
    typer.main.get_command(app).main(args)


def _fail(text: str, status: int = FAILED) -> int:
    line = _KEY.sub("hsms_…", " ".join(shown(word) for word in text.split()))
    typer.echo(f"hydrasms: {line}", err=True)
    return status


def _misuse(error: TyperException) -> str:
    # An argument too many may be a key in the wrong place, so that it is not quoted.
    text = _QUOTED_EXTRAS.sub(r"\1", error.format_message().strip())
    stop = "" if text.endswith((".", "?", ")")) else "."
    context = getattr(error, "ctx", None)
    hint = f" Try `{context.command_path} --help`." if context is not None else ""
    return f"{text}{stop}{hint}"


def _whereabouts(error: Exception) -> str:
    """Name an unexpected error and its place; its words are left out, for they may quote a key or a text."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"
