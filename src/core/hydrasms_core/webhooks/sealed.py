"""The secrets of endpoints as they are stored: sealed, each for its endpoint and its use alone."""

import functools

from hydrasms_base.sealing import Sealer
from hydrasms_base.secret import Secret

_MAX_OPENED = 2_000


class EndpointSecrets:
    """Seals and opens the secrets of endpoints. Opening raises hydrasms_base.sealing.Unsealable.

    What was opened last is remembered, in memory alone: every attempt takes two of them.
    """

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._opened = functools.lru_cache(_MAX_OPENED)(self._open)

    def seal_auth(self, endpoint_id: str, auth: Secret) -> str:
        """Return the word that pushes carry as "auth" so that it can be stored."""
        return self._sealer.seal(auth.reveal(), place=_auth_of(endpoint_id))

    def auth(self, endpoint_id: str, sealed: str) -> Secret:
        """Return the word that pushes carry as "auth"."""
        return self._opened(sealed, _auth_of(endpoint_id))

    def seal_signing(self, endpoint_id: str, signing: Secret) -> str:
        """Return a signing secret so that it can be stored."""
        return self._sealer.seal(signing.reveal(), place=_signing_of(endpoint_id))

    def signing(self, endpoint_id: str, sealed: str) -> Secret:
        """Return a signing secret, the present one or the one before: a rotation moves it as it stands."""
        return self._opened(sealed, _signing_of(endpoint_id))

    def _open(self, sealed: str, place: str) -> Secret:
        return self._sealer.unseal(sealed, place=place)


def _auth_of(endpoint_id: str) -> str:
    return f"webhook/{endpoint_id}/auth"


def _signing_of(endpoint_id: str) -> str:
    return f"webhook/{endpoint_id}/signing"
