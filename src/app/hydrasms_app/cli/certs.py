"""Certificates for a trial of TLS."""

from pathlib import Path
from typing import Annotated

import typer

from hydrasms_app.cli.output import print_line


def certs(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to put them.")] = Path("certs"),
    *,
    host: Annotated[
        list[str] | None,
        typer.Option(help="A name or address that the core is reached by; may be given several times."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=3_650, help="How long they are valid.")] = 90,
) -> None:
    """Make an authority, a core's certificate and one for its callers, to try TLS with."""
    from hydrasms_app.certificates import make_trial_certificates

    made = make_trial_certificates(folder, host or (), days)
    lines = [
        "For a core:",
        *_variables(made.core, made.core_key, made.authority),
        "",
        "For an edge, the command line and every other caller:",
        *_variables(made.client, made.client_key, made.authority),
        "",
        f"Keep {folder / 'ca.key'} to yourself: whoever has it can make more of them.",
    ]
    for line in lines:
        print_line(line)


def _variables(certificate: Path, key: Path, authority: Path) -> list[str]:
    paths = {"CERT": certificate, "KEY": key, "CA": authority}
    return [f"  export HYDRASMS_TLS_{name}={path.absolute()}" for name, path in paths.items()]
