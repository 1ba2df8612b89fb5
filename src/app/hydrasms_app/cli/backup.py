"""The database as a whole: a backup of it, and its move to a server."""

from pathlib import Path
from typing import Annotated

import typer

from hydrasms_app.cli.output import print_line
from hydrasms_app.problems import Problem


def backup(
    file: Annotated[Path, typer.Argument(help="The file to make; it must not be there yet.")],
    *,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the database and the keys.")] = None,
) -> None:
    """Copy the database as it is now into a new file, also while servers use it, and check the copy."""
    from hydrasms_app.backup import back_up
    from hydrasms_app.settings import load_settings

    settings = load_settings(data_dir=data_dir)
    if not isinstance(settings.database, Path):
        raise Problem(
            "PostgreSQL is backed up with its own tools, pg_dump or pg_basebackup: see docs/operations.md"
        )
    size = back_up(settings.database, file)
    print_line(f"Backed up {settings.database} to {file}: {size:,} bytes, and sound.")


def move(
    url: Annotated[
        str, typer.Argument(help="postgresql://USER:PASSWORD@HOST:PORT/NAME of an empty database.")
    ],
    *,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the database and the keys.")] = None,
) -> None:
    """Take everything from the SQLite file to a PostgreSQL database; no server may run meanwhile."""
    from hydrasms_app.moving import move as move_all
    from hydrasms_app.settings import load_settings

    target = load_settings(database_url=url).database
    if not isinstance(target, str):
        raise Problem("name a PostgreSQL database to move to: postgresql://USER:PASSWORD@HOST:PORT/NAME")
    rows = move_all(load_settings(data_dir=data_dir), target)
    print_line(f"Moved {rows:,} rows, and the ledger verifies. Set HYDRASMS_DATABASE_URL to begin there.")
