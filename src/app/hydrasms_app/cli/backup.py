"""Backups of the database."""

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
