"""The secrets of endpoints as they are stored: sealed, each for its endpoint and its use alone."""

from hydrasms_base.sealing import Sealer
from hydrasms_base.secret import Secret


class EndpointSecrets:
    """Seals and opens the secrets of endpoints. Opening raises hydrasms_base.sealing.Unsealable."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def seal_auth(self, endpoint_id: str, auth: Secret) -> str:
        """Return the word that pushes carry as "auth" so that it can be stored."""
        return self._sealer.seal(auth.reveal(), place=_auth_of(endpoint_id))

    def auth(self, endpoint_id: str, sealed: str) -> Secret:
        """Return the word that pushes carry as "auth"."""
        return self._sealer.unseal(sealed, place=_auth_of(endpoint_id))

    def seal_signing(self, endpoint_id: str, signing: Secret) -> str:
        """Return a signing secret so that it can be stored."""
        return self._sealer.seal(signing.reveal(), place=_signing_of(endpoint_id))

    def signing(self, endpoint_id: str, sealed: str) -> Secret:
        """Return a signing secret, the present one or the one before: a rotation moves it as it stands."""
        return self._sealer.unseal(sealed, place=_signing_of(endpoint_id))


def _auth_of(endpoint_id: str) -> str:
    return f"webhook/{endpoint_id}/auth"


def _signing_of(endpoint_id: str) -> str:
    return f"webhook/{endpoint_id}/signing"
