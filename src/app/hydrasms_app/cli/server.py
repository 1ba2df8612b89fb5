"""The server itself: run it, and bring its database up to date."""

from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal

import typer

from hydrasms_app.cli.output import print_line

database = typer.Typer(help="The database.")


def serve(
    role: Annotated[
        Literal["core", "edge", "worker"] | None,
        typer.Argument(metavar="[ROLE]", help="core, edge or worker; everything in this process without it."),
    ] = None,
    *,
    http_host: Annotated[str | None, typer.Option(help="Address of the REST API.")] = None,
    http_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port of the REST API; 0 takes any free one.")
    ] = None,
    grpc_host: Annotated[str | None, typer.Option(help="Address of the core.")] = None,
    grpc_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port of the core; 0 takes any free one.")
    ] = None,
    grpc_socket: Annotated[
        Path | None, typer.Option(help="Unix socket of the core, instead of a port.")
    ] = None,
    core: Annotated[
        str | None, typer.Option(help="Address of the core, for an edge: HOST:PORT, unix:PATH and more.")
    ] = None,
    ops_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65_535, help="Port of /livez, /readyz and /metrics of a core or worker; off without."
        ),
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the database and the keys.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Processes that serve everything, or an edge, on the same ports."),
    ] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, typer.Option(help="The least that is logged.")
    ] = None,
    log_format: Annotated[
        Literal["auto", "json", "text"] | None, typer.Option(help="auto: text on a terminal, json elsewhere.")
    ] = None,
    no_dispatcher: Annotated[
        bool, typer.Option("--no-dispatcher", help="Accept messages, but hand none to a carrier.")
    ] = False,
    no_demo: Annotated[bool, typer.Option("--no-demo", help="Make no demo account.")] = False,
) -> None:
    """Run everything in this process, or one role. Each flag is also a variable: HYDRASMS_HTTP_PORT and so on."""
    from hydrasms_app.settings import load_settings

    settings = load_settings(
        http_host=http_host,
        http_port=http_port,
        grpc_host=grpc_host,
        grpc_port=grpc_port,
        grpc_socket=grpc_socket,
        ops_port=ops_port,
        HYDRASMS_CORE=core,
        data_dir=data_dir,
        workers=workers,
        log_level=log_level,
        log_format=log_format,
    )
    if settings.workers > 1:
        # The parent of several does little itself, and need not import all that they do.
        from hydrasms_app.workers import supervisor

        supervisor.serve(settings, role, dispatcher=not no_dispatcher, demo=not no_demo)
    else:
        from hydrasms_app import roles

        roles.serve(settings, role, dispatcher=not no_dispatcher, demo=not no_demo)


# Without a callback typer makes a single command the whole group.
@database.callback()
def _group() -> None: ...


@database.command()
def upgrade(
    *,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the database and the keys.")] = None,
    phase: Annotated[
        Literal["pre", "post"] | None,
        typer.Option(
            help="pre: only what older processes do not mind, before new ones start. post, or none: everything."
        ),
    ] = None,
) -> None:
    """Bring the database up to date."""
    from hydrasms_app.database import upgrade_database
    from hydrasms_app.migrate import Phase
    from hydrasms_app.settings import load_settings

    revision = upgrade_database(load_settings(data_dir=data_dir), Phase.PRE if phase == "pre" else None)
    print_line(f"The database is at revision {revision}.")


def version() -> None:
    """Show the version."""
    print_line(f"hydrasms {metadata.version('hydrasms')}")
