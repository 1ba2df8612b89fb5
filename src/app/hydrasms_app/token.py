"""The service token: made by whichever process of a host starts first, read by callers, waited for by an edge."""

import asyncio
from pathlib import Path

from hydrasms_app.channel import Way, way_to_core
from hydrasms_app.problems import Problem
from hydrasms_app.settings import Settings
from hydrasms_base.log import get_logger
from hydrasms_base.secret import Secret, make_secret

_LOOK_EVERY_S = 1.0

log = get_logger(__name__)


def service_token(settings: Settings) -> Secret:
    """Return the service token, after making one where there is none; raises Problem."""
    try:
        settings.token_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return make_secret(settings.token_file)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Problem(f"cannot use the service token {settings.token_file}: {reason}") from None


def callers_token(settings: Settings, way: Way) -> Secret | None:
    """Return the token to send to a core; None where there is none and a certificate says who calls.

    Raises Problem.
    """
    if way.has_identity and not settings.token_file.exists():
        return None
    return _read_token(settings.token_file)


async def edge_token(settings: Settings) -> Secret | None:
    """Return the token that an edge sends, as `callers_token` does; raises Problem.

    Where one is needed and there is none, the edge makes it for the core, which may start later, or waits where it
    cannot, until somebody has brought it that of a core elsewhere.
    """
    way = way_to_core(settings)
    if way.has_identity:
        return callers_token(settings, way)
    while True:
        try:
            return service_token(settings)
        except Problem as problem:
            log.warning("waiting_for_service_token", reason=str(problem), retry_s=_LOOK_EVERY_S)
        await asyncio.sleep(_LOOK_EVERY_S)


def _read_token(path: Path) -> Secret:
    """Return the first service token of a file; it may hold several, one a line."""
    try:
        words = path.read_text(encoding="ascii").split()
    except OSError as error:
        raise _unreadable(path, error.strerror or "unreadable") from None
    except UnicodeDecodeError:
        raise _unreadable(path, "it holds something else") from None
    if not words or not words[0].isprintable():
        raise _unreadable(path, "it holds something else" if words else "it is empty")
    return Secret(words[0])


def _unreadable(path: Path, why: str) -> Problem:
    return Problem(
        f"cannot read the service token {path}: {why}. `hydrasms serve` makes it in its data directory: "
        "name that with HYDRASMS_DATA_DIR, or the file with HYDRASMS_TOKEN_FILE"
    )
