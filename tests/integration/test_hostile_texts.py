"""Hostile texts: form and JSON are answered alike, and what is stored is what was sent (bars, input, 24)."""

import asyncio
import json
import random
import unicodedata
from dataclasses import dataclass
from urllib.parse import quote_from_bytes

import pytest

from hydrasms_core.messaging import model, service
from tests.support.product import PHONE

CREDITS = 100_000
LONGEST = 799

CONTROLS = [f"a{chr(code)}b" for code in [*range(1, 0x20), *range(0x7F, 0xA0)]]
ALONE = [
    " ",
    "\t",
    "\n",
    "\r",
    "\r\n",
    "\x1b",
    "\x7f",
    "\x85",
    "\xa0",
    "\xad",
    "\u200b",
    "\u2028",
    "\u2029",
    "\ufeff",
    "\U0001f600",
]
EDGES = [
    "  both ends  ",
    "\n\nlines\n\n",
    "one\r\ntwo\rthree\nfour",
    "trailing\t",
    "\ufeffstarts with a BOM",
    "ends with a BOM\ufeff",
    "line\u2028separator",
    "paragraph\u2029separator",
    "next\x85line",
    "vertical\x0btab and form\x0cfeed",
]
DIRECTIONS = [
    "\u202eabc\u202c",
    "\u202dשלום\u202c",
    "مرحبا abc 123",
    "\u2066abc\u2069\u2067def",
    "\u200eabc\u200f",
    "\u061cabc",
    "unclosed \u202e\u202e\u202e",
]
FORMS = [
    "e\u0301",
    "\u00e9",
    "\u212b",
    "\u00c5",
    "A\u030a",
    "\ufb01",
    "\u1e9b\u0323",
    "\u0344",
    "\u1100\u1161\u11a8",
    "\uac01",
    "q\u0307\u0323",
    "q\u0323\u0307",
    "\u2126",
    "\u03a9",
    "\uff21\uff11",
    "ß",
    "ẞ",
    "İ",
    "ı",
    "ǆ",
    "ς",
    "ﷺ",
]
ASTRAL = [
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "\U0001f1ec\U0001f1e7",
    "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "\U00010000",
    "\U0010ffff",
    "\U0010fffe",
    "\U0001d4d7\U0001d4ee",
    "\U00020000",
    "\U000f0000",
    "1\ufe0f\u20e3",
    "\U0001f44d\U0001f3ff",
    "\ufffe",
    "\uffff",
    "\ufffd",
    "\ufdd0",
    "\ud7ff",
    "\ue000",
]
QUOTES = [
    "'",
    '"',
    "`",
    "\\",
    "''",
    '\\"',
    "' OR '1'='1",
    "'; DROP TABLE messages; --",
    '"; DELETE FROM balances; --',
    "Robert'); DROP TABLE accounts;--",
    "1; ATTACH DATABASE 'x' AS y",
    "$1 :content ? %s {0} {content} ${content}",
    "$$ $tag$ $tag$",
    "E'\\x00'",
    "\\N",
    "\\000",
    "/* -- */",
    "x'00'",
    "NULL",
    "null",
    "true",
    "0",
    "-0.0",
    "1e400",
    "NaN",
    "[]",
    "{}",
    "undefined",
    "<script>alert(1)</script>",
    "&lt;&amp;&#0;",
    "]]>",
    "=1+1",
    "@SUM(A1)",
    "../../etc/passwd",
    "%00",
    "%2500",
    "%",
    "%zz",
    "%u0000",
    "+",
    "a+b c%20d",
    "a=b&c=d;e",
    "content=x&recipient=y",
    "\\u0000",
    "\\ud800",
    "&#xD800;",
    "=?utf-8?q?a?=",
    "Authorization: x\r\nSet-Cookie: y",
    "\x1b[2J\x1b[31m",
    "\x1a\x04\x03",
]
LONG = [
    "a" * LONGEST,
    "\U0001f600" * LONGEST,
    "e" + "\u0301" * (LONGEST - 1),
    "\u202e" * LONGEST,
    "'" * LONGEST,
    "\n" * LONGEST,
    "\x01" * LONGEST,
    ("a" + "\u0300\u0316" * 30) * 12,
    "\U0001f468\u200d" * (LONGEST // 2),
]
REFUSED = [
    "",
    "\0",
    "a\0b",
    "\0" * LONGEST,
    "ends with NUL\0",
    "a" * (LONGEST + 1),
    "\U0001f600" * (LONGEST + 1),
    "e" + "\u0301" * LONGEST,
    "\ud800",
    "\udfff",
    "a\ud83d",
    "\ude00b",
    "\ude00\ud83d",
    "\ud800\ud800\udc00",
    "é\udc80",
    "\udcff" * 3,
]


def drawn(number):
    """Return texts of characters from everywhere, the same at every run."""
    chance = random.Random(24)
    planes = [range(1, 0x80), range(0x80, 0xD800), range(0xE000, 0x10000), range(0x10000, 0x110000)]
    return [
        "".join(chr(chance.choice(chance.choice(planes))) for _ in range(chance.randint(1, 200)))
        for _ in range(number)
    ]


ACCEPTED = [*CONTROLS, *ALONE, *EDGES, *DIRECTIONS, *FORMS, *ASTRAL, *QUOTES, *LONG, *drawn(40)]
TEXTS = [*ACCEPTED, *REFUSED]


def as_escaped_json(text):
    return "application/json", json.dumps({"recipient": PHONE, "content": text}).encode()


def as_plain_json(text):
    document = json.dumps({"recipient": PHONE, "content": text}, ensure_ascii=False)
    # A lone surrogate as it is: three bytes that are no UTF-8.
    return "application/json", document.encode(errors="surrogatepass")


def as_form(text):
    content = quote_from_bytes(text.encode(errors="surrogatepass"), safe="")
    return "application/x-www-form-urlencoded", f"recipient=%2B{PHONE[1:]}&content={content}".encode()


WAYS = (as_escaped_json, as_plain_json, as_form)


@dataclass(frozen=True)
class Sent:
    status: int
    id: str
    answered: str
    stored: str


async def send(product, account, text, way):
    media_type, body = way(text)
    answer = await product.http.post(
        "/api/messages",
        headers={"Authorization": account.key, "Content-Type": media_type},
        content=body,
    )
    said = answer.json()
    if answer.status_code != 200:
        assert said["code"] in ("INVALID_CONTENT", "INVALID_BODY"), said
        return Sent(answer.status_code, "", "", "")
    stored = await product.message(account.id, said["ID"])
    return Sent(answer.status_code, said["ID"], said["content"], stored.content)


async def assert_parity(product, texts, *, status):
    """Send each text in each way; fail unless all have the status, and what was kept is what was sent."""
    account = await product.account(credits=CREDITS)
    accepted = set()
    for text in texts:
        answers = await asyncio.gather(*(send(product, account, text, way) for way in WAYS))
        assert [answer.status for answer in answers] == [status] * len(WAYS), ascii(text)
        if status == 200:
            # Compared as bytes, for equal texts are not all that could be shown alike.
            wanted = [text.encode()] * len(WAYS)
            assert [answer.stored.encode() for answer in answers] == wanted, ascii(text)
            assert [answer.answered.encode() for answer in answers] == wanted, ascii(text)
            accepted |= {answer.id for answer in answers}
    messages = await product.messages(account.id)
    assert {message.id for message in messages} == accepted
    assert await product.balance(account.id) == CREDITS - sum(message.credits for message in messages)
    return accepted


def test_there_are_200_hostile_texts_and_no_two_are_the_same():
    assert len(TEXTS) == len(set(TEXTS)) >= 200


async def test_every_hostile_text_is_stored_as_it_was_sent_in_whichever_way(still_product):
    accepted = await assert_parity(still_product, ACCEPTED, status=200)
    assert len(accepted) == len(ACCEPTED) * len(WAYS)


async def test_what_cannot_be_kept_is_refused_in_every_way_and_nothing_is_stored(still_product):
    assert await assert_parity(still_product, REFUSED, status=400) == set()


DAMAGES = {
    "composes": lambda text: unicodedata.normalize("NFC", text),
    "decomposes": lambda text: unicodedata.normalize("NFD", text),
    "strips": str.strip,
    "drops a BOM": lambda text: text.removeprefix("\ufeff"),
    "changes line ends": lambda text: text.replace("\r\n", "\n"),
    "knows no astral characters": lambda text: "".join(c if c < "\U00010000" else "\ufffd" for c in text),
    "drops controls": lambda text: "".join(c for c in text if unicodedata.category(c) != "Cc"),
    "doubles quotes": lambda text: text.replace("'", "''"),
    "decodes twice": lambda text: text.replace("%00", "\ufffd"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
async def test_control_the_check_catches_a_server_that(still_product, monkeypatch, damage):
    sound = model.check_content
    monkeypatch.setattr(service, "check_content", lambda text: damage(sound(text)) or "?")
    # Those that the damage changes are enough to tell, and make the control quick.
    touched = [text for text in ACCEPTED if damage(text) != text][:1]
    with pytest.raises(AssertionError):
        await assert_parity(still_product, touched, status=200)


async def test_control_the_check_catches_a_server_that_takes_what_it_must_refuse(still_product, monkeypatch):
    monkeypatch.setattr(service, "check_content", lambda text: text)
    with pytest.raises(AssertionError):
        await assert_parity(still_product, ["a" * (LONGEST + 1)], status=400)
