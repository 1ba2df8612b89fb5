"""The service token: made by whichever process of a host starts first, and waited for by an edge that cannot."""

import asyncio

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


async def awaited_token(settings: Settings) -> Secret:
    """Return the service token as `service_token` does, but wait where it can be neither read nor made.

    So an edge may start before somebody has brought it the token of a core elsewhere.
    """
    while True:
        try:
            return service_token(settings)
        except Problem as problem:
            log.warning("waiting_for_service_token", reason=str(problem), retry_s=_LOOK_EVERY_S)
        await asyncio.sleep(_LOOK_EVERY_S)
