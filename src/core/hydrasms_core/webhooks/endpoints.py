"""Keeping endpoints and their secrets, inside the caller's transaction; it implements `shortcodes.ports.Hooks`."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from hydrasms_base.secret import Secret
from hydrasms_core.db.transaction import Transaction
from hydrasms_core.errors import InvalidArgument, NotFound
from hydrasms_core.shortcodes.ports import Hook, MadeSecrets
from hydrasms_core.webhooks import queue_store, store
from hydrasms_core.webhooks.model import Endpoint, check_auth, check_url
from hydrasms_core.webhooks.sealed import EndpointSecrets
from hydrasms_core.webhooks.signing import make_auth, make_signing_secret
from hydrasms_core.webhooks.store import SealedSecrets

_NOTHING_MADE = MadeSecrets(None, None)


class Endpoints:
    """Where pushes go: the webhooks of shortcodes, and of accounts themselves."""

    def __init__(self, secrets: EndpointSecrets) -> None:
        self._secrets = secrets

    async def find(
        self, tx: Transaction, account_id: str, endpoint_ids: Collection[str]
    ) -> Mapping[str, Hook]:
        """Return those of the account's endpoints that exist, by id."""
        found = await store.find_endpoints(tx, account_id, endpoint_ids) if endpoint_ids else ()
        return {
            each.id: Hook(each.url, each.retries, each.disabled_at_ms, each.disabled_reason) for each in found
        }

    async def put(
        self,
        tx: Transaction,
        account_id: str,
        endpoint_id: str,
        *,
        word: str,
        url: str | None,
        auth: Secret | None,
        retries: bool | None,
        at_ms: int,
    ) -> MadeSecrets:
        """Create the webhook of a shortcode, change what is not None of it, or, with an empty URL, take it away.

        Setting a URL enables it again. Raises InvalidWebhookUrl, and InvalidArgument for an auth word that is out of
        bounds or where there is no webhook.
        """
        if url:
            url = check_url(url, field="webhook_url")
        if auth is not None:
            check_auth(auth)
        before = await store.get_endpoint(tx, account_id, endpoint_id, lock=True)
        if auth is not None and (url == "" or (url is None and before is None)):
            raise InvalidArgument("secret goes with a webhook: set webhook_url too.", field="secret")
        if url == "":
            await self.remove(tx, account_id, endpoint_id, at_ms=at_ms)
            return _NOTHING_MADE
        if before is not None:
            sealed = None if auth is None else self._secrets.seal_auth(endpoint_id, auth)
            await store.update_endpoint(
                tx, account_id, endpoint_id, url=url, retries=retries, auth_sealed=sealed, at_ms=at_ms
            )
            return _NOTHING_MADE
        if url is None:
            return _NOTHING_MADE
        made = None if auth is not None else make_auth()
        endpoint = _new(account_id, endpoint_id, word, url, retries=retries is not False)
        signing = await self._insert(tx, endpoint, auth or made, at_ms)
        return MadeSecrets(made, signing)

    async def put_own(
        self, tx: Transaction, account_id: str, url: str, *, at_ms: int
    ) -> tuple[Endpoint, Secret | None]:
        """Set the account's own webhook, which enables it again; returns it and its signing secret where it is new.

        Raises InvalidWebhookUrl.
        """
        url = check_url(url, field="url")
        before = await store.get_endpoint(tx, account_id, account_id, lock=True)
        if before is None:
            endpoint = _new(account_id, account_id, "", url, retries=True)
            return endpoint, await self._insert(tx, endpoint, None, at_ms)
        await store.update_endpoint(
            tx, account_id, account_id, url=url, retries=None, auth_sealed=None, at_ms=at_ms
        )
        after = replace(before, url=url, failing_since_ms=None, disabled_at_ms=None, disabled_reason="")
        return after, None

    async def remove(self, tx: Transaction, account_id: str, endpoint_id: str, *, at_ms: int) -> None:
        """Take the endpoint away, where there is one; what it has still to push is dead.

        An attempt that is under way is finished and recorded.
        """
        if await store.delete_endpoint(tx, account_id, endpoint_id):
            await queue_store.give_up_all(tx, account_id, endpoint_id, at_ms=at_ms)

    async def rotate(
        self, tx: Transaction, account_id: str, endpoint_id: str, *, until_ms: int, at_ms: int
    ) -> tuple[Endpoint, Secret]:
        """Make a new signing secret, and use the one before beside it until a time; raises NotFound."""
        before = await store.get_endpoint(tx, account_id, endpoint_id, lock=True)
        if before is None:
            raise NotFound("webhook endpoint")
        signing = make_signing_secret()
        sealed = self._secrets.seal_signing(endpoint_id, signing)
        await store.rotate_signing(tx, account_id, endpoint_id, sealed, until_ms=until_ms, at_ms=at_ms)
        return replace(before, previous_until_ms=until_ms), signing

    async def _insert(self, tx: Transaction, endpoint: Endpoint, auth: Secret | None, at_ms: int) -> Secret:
        signing = make_signing_secret()
        sealed = SealedSecrets(
            "" if auth is None else self._secrets.seal_auth(endpoint.id, auth),
            self._secrets.seal_signing(endpoint.id, signing),
        )
        await store.insert_endpoint(tx, endpoint, sealed, at_ms=at_ms)
        return signing


def _new(account_id: str, endpoint_id: str, word: str, url: str, *, retries: bool) -> Endpoint:
    return Endpoint(endpoint_id, account_id, word, url, retries, None, None, "", None)
