"""No secret at rest: keys and tokens stand in their own two files and nowhere else (bars, access, 19)."""

import asyncio
import base64
import contextlib
import random
import shutil
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx2
import pytest

from hydrasms.accounts.v1 import account_service_pb2 as pb
from hydrasms.accounts.v1 import account_service_pb2_grpc
from hydrasms_base.ids import new_id
from hydrasms_base.keys import digest_key, display_prefix, generate_key
from tests.support.at_rest import DATABASE, hits, take_a_copy
from tests.support.product import PHONE
from tests.support.served import printed_key, served, wait_until

TIMEOUT_S = 30.0
AT_ONCE = 50


@dataclass
class Secrets:
    """All that must not be found, by what it is."""

    own: list[str] = field(default_factory=list)
    imported: list[str] = field(default_factory=list)
    never_issued: list[str] = field(default_factory=list)
    demo_key: str = ""
    token: str = ""

    def all(self):
        return [*self.own, *self.imported, *self.never_issued, self.demo_key, self.token]


async def in_turns(calls):
    """Await calls, so many at once, and return what they return."""
    answers = []
    for start in range(0, len(calls), AT_ONCE):
        answers += await asyncio.gather(*(call() for call in calls[start : start + AT_ONCE]))
    return answers


class Owner:
    """Makes keys over the core's port, as the holder of the service token."""

    def __init__(self, channel, token):
        self._stub = account_service_pb2_grpc.AccountServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {token}"),)

    async def call(self, method, request, metadata=None):
        return await getattr(self._stub, method)(
            request, metadata=metadata or self._metadata, timeout=TIMEOUT_S
        )

    async def make_keys(self, account_id, secrets, number):
        """Create keys, import a tenth as many, rotate one in ten; returns the ids of those created."""

        def create():
            return self.call(
                "CreateApiKey", pb.CreateApiKeyRequest(account_id=account_id, idempotency_key=new_id())
            )

        created = await in_turns([create] * number)
        ids = [answer.api_key.id for answer in created]
        secrets.own += [answer.secret for answer in created]
        for _ in range(number // 10):
            # Made elsewhere, and so of another form.
            key = f"elsewhere-{random.randbytes(24).hex()}"
            imported = pb.ImportedKey(digest=digest_key(key), prefix=display_prefix(key))
            await self.call("CreateApiKey", pb.CreateApiKeyRequest(account_id=account_id, imported=imported))
            secrets.imported.append(key)
        for key_id in ids[::10]:
            rotated = await self.call("RotateApiKey", pb.RotateApiKeyRequest(api_key_id=key_id))
            secrets.own.append(rotated.secret)
        return ids

    async def disable(self, ids):
        for key_id in ids:
            await self.call("DisableApiKey", pb.DisableApiKeyRequest(api_key_id=key_id))

    async def knock(self, key):
        """Call with an API key where the service token belongs; returns the code of the refusal."""
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await self.call(
                "ListAccounts", pb.ListAccountsRequest(), metadata=(("authorization", f"Bearer {key}"),)
            )
        return refused.value.code()


async def use(server, secrets, number):
    """Make keys and use them rightly and wrongly, every way that a client may."""
    async with contextlib.AsyncExitStack() as stack:
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}"))
        http = await stack.enter_async_context(
            httpx2.AsyncClient(base_url=server.base, timeout=TIMEOUT_S, trust_env=False)
        )
        owner = Owner(channel, secrets.token)
        made = await owner.call(
            "CreateAccount",
            pb.CreateAccountRequest(name="test", initial_credits=10 * number, create_api_key=True),
        )
        secrets.own.append(made.api_key_secret)
        ids = await owner.make_keys(made.account.id, secrets, number)

        def sending(authorization, **headers):
            body = {"recipient": PHONE, "content": "Hello"}
            headers = {"Authorization": authorization, **headers}
            return lambda: http.post("/api/messages", headers=headers, json=body)

        async def statuses(calls):
            return {answer.status_code for answer in await in_turns(calls)}

        known = [*secrets.own, *secrets.imported, secrets.demo_key]
        # Each twice: the second is a replay.
        keyed = [sending(key, **{"Idempotency-Key": f"order-{n}"}) for n, key in enumerate(known)]
        assert await statuses(keyed) == {200}
        assert await statuses(keyed) == {200}
        secrets.never_issued += [generate_key() for _ in range(number)]
        slips = [key[:-1] + ("a" if key[-1] != "a" else "b") for key in known]
        assert await statuses([sending(key) for key in [*secrets.never_issued, *slips]]) == {401}
        assert await statuses([sending(f"Bearer {key}") for key in known]) == {401}
        assert await statuses([sending(secrets.token)]) == {401}
        await owner.disable(ids[1::10])
        assert await statuses([sending(key) for key in secrets.own[2 : number + 1 : 10]]) == {403}
        # Where no key belongs: in the address, and in the place of the service token.
        addresses = [f"/api/messages?key={key}" for key in known[:20]]
        assert await statuses([lambda at=at: http.get(at) for at in addresses]) == {401}
        assert await statuses([lambda key=key: http.get(f"/api/{key}") for key in known[:20]]) == {404}
        for key in known[:20]:
            assert await owner.knock(key) is grpc.StatusCode.UNAUTHENTICATED
        last = new_id()
        assert (await sending("", **{"X-Request-Id": last})()).status_code == 401
        return last


def search_a_run(tmp_path, number):
    run = tmp_path / "run"
    run.mkdir()
    with served(run / "var") as server:
        token = (server.data_dir / "service.token").read_text().strip()
        secrets = Secrets(demo_key=printed_key(server), token=token)
        last = asyncio.run(use(server, secrets, number))
        # Lines gather for a tenth of a second; the last request's comes with or after all others'.
        wait_until(lambda: last in server.log_file.read_text(), what="the last line of the log")
        live = take_a_copy(server, tmp_path / "live")
        assert server.terminate() == 0
        stopped = take_a_copy(server, tmp_path / "stopped")
    found = secrets.all()
    assert len(set(found)) == len(found) >= 2 * number + number // 5
    # The write-ahead log is there to be searched while the server is up, and holds what it wrote.
    assert all((live / "var" / name).stat().st_size > 0 for name in DATABASE)
    for copy in (live, stopped):
        # The first line that a newcomer sees shows the demo key, and nothing else does.
        assert hits(copy, found) == {("var.out", secrets.demo_key)}
        assert not (copy / "var.out").read_text().count(secrets.token)
    assert_kept(stopped, secrets)
    return live, secrets


def assert_kept(folder, secrets):
    """The searched files are those that were used: every key's digest is in the database, each secret in its file."""
    with contextlib.closing(sqlite3.connect(folder / "var" / "hydrasms.db")) as connection:
        digests = {digest for (digest,) in connection.execute("SELECT digest FROM api_keys")}
    known = [*secrets.own, *secrets.imported, secrets.demo_key]
    assert {digest_key(key) for key in known} == digests
    assert (folder / "var" / "demo.key").read_text().strip() == secrets.demo_key
    assert (folder / "var" / "service.token").read_text().strip() == secrets.token
    assert (folder / "var.log").read_text().count('"route":"/api/messages"') > 2 * len(known)


def plant(folder, name, secret, how):
    """Leave a secret in one file of a copy, as a mistake of ours would."""
    path = next(folder.rglob(name))
    if how == "row":
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE api_keys SET name = ? WHERE rowid = 7", (secret,))
            connection.commit()
    else:
        forms = {"plain": secret, "hex": secret.encode().hex()}
        forms["base64"] = base64.b64encode(secret.encode()).decode()
        forms["all but the end"] = secret[:-4]
        with path.open("a") as file:
            file.write(forms[how])


PLANTED = [
    *((name, how) for name in [*DATABASE[:1], "var.log", "var.out"] for how in ("plain", "hex", "base64")),
    (DATABASE[0], "row"),
    (DATABASE[1], "plain"),
    (DATABASE[2], "plain"),
    ("serve.lock", "plain"),
    ("var.log", "all but the end"),
]


def assert_planted_is_found(live: Path, tmp_path: Path, secrets: Secrets) -> None:
    """The control: every secret of every kind is found where it is planted, in each of the files."""
    known = secrets.all()
    kinds = [secrets.own[0], secrets.imported[0], secrets.never_issued[0], secrets.demo_key, secrets.token]
    before = hits(live, known)
    for number, (name, how) in enumerate(PLANTED):
        copy = shutil.copytree(live, tmp_path / f"planted-{number}")
        secret = kinds[number % len(kinds)] if name != "var.out" else secrets.own[1]
        plant(copy, name, secret, how)
        # A row may stand in the database or still in its log.
        names = {found for found, what in hits(copy, known) - before if what == secret}
        assert names, (name, how)
        assert names <= (set(DATABASE) if how == "row" else {name}), (name, how)
    for number, secret in enumerate(kinds[:3] + kinds[4:]):
        copy = shutil.copytree(live, tmp_path / f"each-{number}")
        plant(copy, "var.log", secret, "plain")
        assert hits(copy, known) - before == {("var.log", secret)}


def test_no_key_and_no_token_is_found_anywhere_but_in_its_own_file(tmp_path):
    live, secrets = search_a_run(tmp_path, 100)
    assert_planted_is_found(live, tmp_path, secrets)


@pytest.mark.faults
def test_none_of_1_000_keys_is_found_anywhere_but_in_its_own_file(tmp_path):
    search_a_run(tmp_path, 1_000)
