"""What commands print: JSON for programs, tables and plain lines for people."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer

_UNBROKEN = 20_000


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object, in ASCII: no terminal or encoding can spoil it."""
    typer.echo(json.dumps(value))


def print_line(text: str) -> None:
    """Print one line."""
    typer.echo(shown(text))


def print_details(details: Mapping[str, object]) -> None:
    """Print names and values, one a line, in columns; what is None or empty is a dash."""
    width = max(len(name) for name in details)
    for name, value in details.items():
        typer.echo(f"{name:<{width}}  {_cell(value)}")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print a table, or the line `empty` where there is no row.

    On a terminal long cells are folded to its width; elsewhere a row is a line, whatever its length.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        print_line(empty)
        return
    # A table is the only thing that needs rich, which takes a while to import.
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in columns:
        # Ids are there to be copied, so that other columns make room for them.
        table.add_column(column, overflow="fold", no_wrap=column == "id")
    for row in cells:
        table.add_row(*row)
    console = Console(
        file=sys.stdout,
        width=None if sys.stdout.isatty() else _UNBROKEN,
        markup=False,
        emoji=False,
        highlight=False,
    )
    with console.capture() as captured:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def print_next_page(token: str) -> None:
    """Say how to see the next page, where there is one."""
    if token:
        print_line(f"There are more: --page-token {token}")


def shown(text: str) -> str:
    """Return a text with everything that could steer a terminal written out: phones send what they like."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def plural(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None or value == "" else shown(str(value))
