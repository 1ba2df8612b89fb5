"""API keys: create or import, list, disable, enable, rotate, delete."""

import sys
from typing import Annotated, Any

import typer

from hydrasms.accounts.v1 import account_service_pb2 as pb
from hydrasms_app.cli.connection import connect, new_idempotency_key
from hydrasms_app.cli.options import AccountId, AsJson, PageSize, PageToken
from hydrasms_app.cli.output import print_details, print_json, print_line, print_next_page, print_table
from hydrasms_app.cli.values import seconds_of_span, time_of
from hydrasms_app.problems import Problem
from hydrasms_base.ids import is_id
from hydrasms_base.keys import digest_key, display_prefix, is_plausible

app = typer.Typer(help="API keys: what customers authenticate with.")

_MOST_BYTES = 1_024
_DEFAULT_OVERLAP_S = 24 * 3_600
_LONGEST_OVERLAP_S = 30 * 86_400


def _key_id(text: str) -> str:
    # A key given in its id's place would travel, which no key may.
    if not is_id(text):
        raise typer.BadParameter("This is not the id of a key; `hydrasms key list ACCOUNT` shows the ids.")
    return text


def _import_source(text: str | None) -> str | None:
    # Others can read the arguments of a process.
    if text not in (None, "-"):
        raise typer.BadParameter("Give - and the key on standard input: arguments are not secret.")
    return text


def _seconds(text: str) -> int:
    return seconds_of_span(text, longest_s=_LONGEST_OVERLAP_S, said="A time from 0s to 30d")


KeyId = Annotated[
    str,
    typer.Argument(metavar="KEY_ID", callback=_key_id, help="The key's id, not the key."),
]


@app.command()
def create(
    account_id: AccountId,
    *,
    name: Annotated[str, typer.Option(help="A word to know it by.")] = "",
    source: Annotated[
        str | None,
        typer.Option(
            "--import",
            metavar="-",
            callback=_import_source,
            help="Take over the key on standard input, which was made elsewhere, and make none.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create an API key, which is shown this once, or import one."""
    request = pb.CreateApiKeyRequest(account_id=account_id, name=name, idempotency_key=new_idempotency_key())
    if source is not None:
        key = _read_key()
        request.imported.digest, request.imported.prefix = digest_key(key), display_prefix(key)
    with connect() as core:
        reply = core.call(core.accounts.CreateApiKey, request)
    made = {"api_key_id": reply.api_key.id, "account_id": reply.api_key.account_id}
    if source is None:
        made["api_key"] = _secret(reply.secret, reply.api_key.id)
    made["prefix"] = reply.api_key.prefix
    _print_made(made, as_json=as_json)


@app.command("list")
def list_keys(
    account_id: AccountId,
    *,
    page_size: PageSize = 100,
    page_token: PageToken = "",
    as_json: AsJson = False,
) -> None:
    """List an account's API keys, newest first: never the keys themselves, which are not stored."""
    request = pb.ListApiKeysRequest(account_id=account_id, page_size=page_size, page_token=page_token)
    with connect() as core:
        reply = core.call(core.accounts.ListApiKeys, request)
    keys = [_key(key) for key in reply.api_keys]
    if as_json:
        print_json({"api_keys": keys, "next_page_token": reply.next_page_token})
        return
    columns = ("id", "name", "prefix", "enabled", "imported", "created", "expires")
    fields = ("id", "name", "prefix", "enabled", "imported", "created_at", "expires_at")
    print_table(columns, ([key[field] for field in fields] for key in keys), empty="No API keys.")
    print_next_page(reply.next_page_token)


@app.command()
def disable(key_id: KeyId, *, as_json: AsJson = False) -> None:
    """Disable a key; in force within one second."""
    with connect() as core:
        reply = core.call(core.accounts.DisableApiKey, pb.DisableApiKeyRequest(api_key_id=key_id))
    _print(reply.api_key, as_json=as_json)


@app.command()
def enable(key_id: KeyId, *, as_json: AsJson = False) -> None:
    """Enable a key again."""
    with connect() as core:
        reply = core.call(core.accounts.EnableApiKey, pb.EnableApiKeyRequest(api_key_id=key_id))
    _print(reply.api_key, as_json=as_json)


@app.command()
def rotate(
    key_id: KeyId,
    *,
    overlap_s: Annotated[
        int | None,
        typer.Option(
            "--overlap",
            metavar="SPAN",
            parser=_seconds,
            help="How long the old key still works: 30m, 24h, 7d. 24h unless given.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a key's successor, which is shown this once, and let the old key end after an overlap."""
    request = pb.RotateApiKeyRequest(api_key_id=key_id, idempotency_key=new_idempotency_key())
    request.overlap.seconds = _DEFAULT_OVERLAP_S if overlap_s is None else overlap_s
    with connect() as core:
        reply = core.call(core.accounts.RotateApiKey, request)
    made = {
        "api_key_id": reply.api_key.id,
        "account_id": reply.api_key.account_id,
        "api_key": _secret(reply.secret, reply.api_key.id),
        "prefix": reply.api_key.prefix,
        "replaced_api_key_id": reply.replaced.id,
        "replaced_expires_at": time_of(reply.replaced, "expires_at"),
    }
    _print_made(made, as_json=as_json)


@app.command()
def delete(key_id: KeyId, *, as_json: AsJson = False) -> None:
    """Forget a key: from then on it is unknown."""
    with connect() as core:
        core.call(core.accounts.DeleteApiKey, pb.DeleteApiKeyRequest(api_key_id=key_id))
    if as_json:
        print_json({"api_key_id": key_id, "deleted": True})
    else:
        print_line(f"Deleted the key {key_id}.")


def _read_key() -> str:
    """Return the one key on standard input; raises Problem, which never quotes it."""
    given = sys.stdin.buffer.read(_MOST_BYTES + 1) if sys.stdin is not None else b""
    line = given.removesuffix(b"\n").removesuffix(b"\r")
    try:
        key = line.decode("ascii")
    except UnicodeDecodeError:
        key = ""
    if len(given) > _MOST_BYTES or not is_plausible(key):
        raise Problem(
            "standard input does not hold one API key: 8 to 512 visible ASCII characters, "
            "and with its check digits where it begins with hsms_"
        )
    return key


def _secret(secret: str, key_id: str) -> str:
    if not secret:
        raise Problem(
            f"the key {key_id} was created, but it was lost with the core's first answer: "
            f"remove it with `hydrasms key delete {key_id}` and make another"
        )
    return secret


def _print_made(made: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    names = {
        "api_key_id": "id",
        "account_id": "account",
        "api_key": "API key (shown this once)",
        "replaced_api_key_id": "replaces",
        "replaced_expires_at": "which ends",
    }
    print_details({names.get(name, name): value for name, value in made.items()})


def _print(key: pb.ApiKey, *, as_json: bool) -> None:
    fields = _key(key)
    if as_json:
        print_json(fields)
    else:
        print_details({name.replace("_", " "): value for name, value in fields.items()})


def _key(key: pb.ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "account_id": key.account_id,
        "name": key.name,
        "prefix": key.prefix,
        "enabled": key.enabled,
        "imported": key.imported,
        "created_at": time_of(key, "created_at"),
        "expires_at": time_of(key, "expires_at"),
    }
