"""Shortcodes: claim, list, change, release, and who would get a text."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hydrasms.messaging.v1 import shortcode_service_pb2 as pb
from hydrasms_app.cli.connection import connect, new_idempotency_key
from hydrasms_app.cli.options import AccountId, AsJson, PageSize, PageToken, Switch
from hydrasms_app.cli.output import print_details, print_json, print_line, print_next_page, print_table
from hydrasms_app.cli.values import time_of
from hydrasms_app.cli.values import word as word_of
from hydrasms_app.problems import Problem

app = typer.Typer(help="Shortcodes: the first word of a text, elsewhere called a keyword, and its webhook.")

_MOST_BYTES = 4_096
_STANDARD_INPUT = "-"

Word = Annotated[
    str, typer.Argument(metavar="WORD", help="The word, 1 to 20 letters and digits; case does not count.")
]
Held = Annotated[str, typer.Argument(metavar="WORD", help="The word, or the shortcode's id.")]
SecretWord = Annotated[
    str | None,
    typer.Option(
        "--secret",
        help="The word that every push carries as auth. Others on this host can read it: "
        "better leave it out, and one is made, or give it by --secret-file.",
    ),
]
SecretFile = Annotated[
    str | None,
    typer.Option("--secret-file", metavar="FILE", help="Read the word from a file; - is standard input."),
]
Retries = Annotated[Switch | None, typer.Option(help="Whether a push that failed is tried again.")]


@app.command()
def create(
    context: typer.Context,
    account_id: AccountId,
    word: Word,
    *,
    webhook: Annotated[str, typer.Option(metavar="URL", help="Where its texts are posted to.")] = "",
    secret: SecretWord = None,
    secret_file: SecretFile = None,
    retries: Retries = None,
    as_json: AsJson = False,
) -> None:
    """Claim a shortcode for an account; secrets that are made for its webhook are shown this once."""
    request = pb.CreateShortcodeRequest(
        account_id=account_id, word=word, webhook_url=webhook, idempotency_key=new_idempotency_key()
    )
    given = _secret(context, secret, secret_file)
    if given is not None:
        request.secret = given
    if retries is not None:
        request.retries = retries is Switch.ON
    with connect() as core:
        reply = core.call(core.shortcodes.CreateShortcode, request)
    if reply.shortcode.webhook_url and not reply.signing_secret:
        raise Problem(
            f"the shortcode {reply.shortcode.word} was created, but its secrets were lost with the core's first "
            f"answer: remove it with `hydrasms shortcode delete {account_id} {reply.shortcode.word}` and "
            "create it again"
        )
    _print(_shortcode(reply.shortcode) | _secrets(reply), as_json=as_json)


@app.command("list")
def list_shortcodes(
    account_id: AccountId,
    *,
    page_size: PageSize = 100,
    page_token: PageToken = "",
    as_json: AsJson = False,
) -> None:
    """List an account's shortcodes, newest first: never their secrets."""
    request = pb.ListShortcodesRequest(account_id=account_id, page_size=page_size, page_token=page_token)
    with connect() as core:
        reply = core.call(core.shortcodes.ListShortcodes, request)
    rows = [_shortcode(each) for each in reply.shortcodes]
    if as_json:
        print_json({"shortcodes": rows, "next_page_token": reply.next_page_token})
        return
    columns = ("id", "word", "active", "webhook", "retries", "disabled", "created")
    fields = ("id", "word", "active", "webhook_url", "retries", "webhook_disabled_at", "created_at")
    print_table(columns, ([row[field] for field in fields] for row in rows), empty="No shortcodes.")
    print_next_page(reply.next_page_token)


@app.command()
def update(
    context: typer.Context,
    account_id: AccountId,
    word: Held,
    *,
    webhook: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where its texts are posted to; enables a disabled webhook again."),
    ] = None,
    no_webhook: Annotated[bool, typer.Option("--no-webhook", help="Take its webhook away.")] = False,
    secret: SecretWord = None,
    secret_file: SecretFile = None,
    retries: Retries = None,
    as_json: AsJson = False,
) -> None:
    """Change what is given of a shortcode's webhook and leave the rest."""
    if no_webhook and webhook is not None:
        context.fail("Give either --webhook or --no-webhook.")
    request = pb.UpdateShortcodeRequest(account_id=account_id, shortcode_id=word)
    if webhook is not None or no_webhook:
        request.webhook_url = webhook or ""
    given = _secret(context, secret, secret_file)
    if given is not None:
        request.secret = given
    if retries is not None:
        request.retries = retries is Switch.ON
    if request == pb.UpdateShortcodeRequest(account_id=account_id, shortcode_id=word):
        context.fail("Nothing to change: give --webhook, --no-webhook, --secret, --secret-file or --retries.")
    with connect() as core:
        reply = core.call(core.shortcodes.UpdateShortcode, request)
    _print(_shortcode(reply.shortcode) | _secrets(reply), as_json=as_json)


@app.command()
def delete(account_id: AccountId, word: Held, *, as_json: AsJson = False) -> None:
    """Release a shortcode: anybody may claim it from then on."""
    request = pb.DeleteShortcodeRequest(account_id=account_id, shortcode_id=word)
    with connect() as core:
        core.call(core.shortcodes.DeleteShortcode, request)
    if as_json:
        print_json({"account_id": account_id, "shortcode": word, "deleted": True})
    else:
        print_line(f"Deleted the shortcode {word}.")


@app.command("who-gets")
def who_gets(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The text as a phone would send it.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Say who would receive a text now, and why; nothing is received."""
    with connect() as core:
        reply = core.call(core.shortcodes.WhoGets, pb.WhoGetsRequest(text=text))
    answer = {
        "reason": word_of(pb.RoutingReason.Name, reply.reason),
        "word": reply.word,
        "content": reply.content,
        "account_id": reply.shortcode.account_id or None,
        "shortcode_id": reply.shortcode.id or None,
        "webhook_url": reply.shortcode.webhook_url or None,
    }
    _print(answer, as_json=as_json)


def _secret(context: typer.Context, secret: str | None, file: str | None) -> str | None:
    """Return the word that was given in one way or the other, or None; raises Problem, which never quotes it."""
    if secret is not None and file is not None:
        context.fail("Give either --secret or --secret-file.")
    return secret if file is None else _read_secret(file)


def _read_secret(file: str) -> str:
    name = "standard input" if file == _STANDARD_INPUT else file
    if file != _STANDARD_INPUT:
        with Path(file).open("rb") as opened:
            given = opened.read(_MOST_BYTES + 1)
    else:
        given = sys.stdin.buffer.read(_MOST_BYTES + 1) if sys.stdin is not None else b""
    try:
        # The core has the bounds; what is no text at all does not get there.
        word = given.removesuffix(b"\n").removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        word = ""
    if len(given) > _MOST_BYTES or not word:
        raise Problem(f"{name} does not hold one secret: a line of 1 to 255 characters, in UTF-8")
    return word


def _secrets(reply: pb.CreateShortcodeResponse | pb.UpdateShortcodeResponse) -> dict[str, str]:
    made = {"secret": reply.secret, "signing_secret": reply.signing_secret}
    return {name: value for name, value in made.items() if value}


def _print(fields: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(fields)
        return
    names = {
        "secret": "secret (shown this once)",
        "signing_secret": "signing secret (shown this once)",
    }
    print_details({names.get(name, name.replace("_", " ")): value for name, value in fields.items()})


def _shortcode(shortcode: pb.Shortcode) -> dict[str, Any]:
    return {
        "id": shortcode.id,
        "account_id": shortcode.account_id,
        "word": shortcode.word,
        "active": shortcode.active,
        "webhook_url": shortcode.webhook_url or None,
        "retries": shortcode.retries if shortcode.webhook_url else None,
        "webhook_disabled_at": time_of(shortcode, "webhook_disabled_at"),
        "webhook_disabled_reason": shortcode.webhook_disabled_reason or None,
        "created_at": time_of(shortcode, "created_at"),
        "updated_at": time_of(shortcode, "updated_at"),
    }
