"""What is taken in of a text, and which reply it gets: pure rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydrasms_core.carriers.base import AnswerLost, InboundText, Refused, Submitted, Throttled
from hydrasms_core.consent.words import Ask
from hydrasms_core.inbound.model import MAX_TEXT_CHARACTERS, Outcome, checked
from hydrasms_core.inbound.replies import MAX_ASKING_CHARACTERS, ReplyKind, is_automatic, reply_to
from hydrasms_core.inbound.responding import Change, ReplyStatus, Standing, may_go, when_answered

NOW_MS = 1_780_000_000_000
SENDER = "+447700900123"


def arrival(text, sender=SENDER):
    return checked(InboundText("told", "", sender, text, 0), "id", now_ms=NOW_MS)


# ---- what is taken in --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "word", "content", "ask"),
    [
        ("order large", "order", "large", None),
        ("STOP", "stop", "", Ask.STOP),
        ("Stop!! now", "stop", "now", Ask.STOP),
        ("opt-out", "optout", "", Ask.STOP),
        ("\u200bUNSTOP.", "unstop", "", Ask.START),
        ("info", "info", "", Ask.HELP),
        ("stopwatch", "stopwatch", "", None),
        ("please stop", "please", "stop", None),
        ("", "", "", None),
        ("...", "...", "", None),
    ],
)
def test_a_text_is_its_first_word_its_content_and_what_it_asks_for(text, word, content, ask):
    came = arrival(text)
    assert (came.word, came.content, came.ask) == (word, content, ask)


@given(st.text(max_size=200), st.text(min_size=1, max_size=32))
def test_any_text_from_anybody_is_taken_and_can_be_stored(text, sender):
    came = arrival(text, sender)
    for kept in (came.sender, came.word, came.content, came.text):
        assert "\0" not in kept
        kept.encode()
    assert len(came.word) <= 64
    assert came.number is None or came.number.startswith("+")


@given(st.text(alphabet=st.characters(categories=["Cs"]), min_size=1, max_size=20))
def test_halves_of_surrogate_pairs_are_replaced(halves):
    assert set(arrival(f"order {halves}").content) == {"\ufffd"}


def test_what_nobody_sees_hides_no_shortcode():
    came = arrival("or\0der\0 two\0")
    assert (came.word, came.content) == ("order", "two\ufffd")


def test_a_text_has_an_end():
    assert arrival("x" * MAX_TEXT_CHARACTERS).text
    with pytest.raises(Exception, match=r"10,000"):
        arrival("x" * (MAX_TEXT_CHARACTERS + 1))


@pytest.mark.parametrize(
    ("sender", "number"),
    [
        (SENDER, SENDER),
        ("+4407700900123", SENDER),
        ("+6100412345678", "+61412345678"),
        ("07700900123", None),
        ("84433", None),
        ("HEP", None),
        ("+80012345678", None),
    ],
)
def test_a_phone_has_one_number_however_its_carrier_writes_it(sender, number):
    came = arrival("order", sender)
    assert (came.sender, came.number) == (sender, number)


# ---- which reply it gets -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "outcome", "changed", "kind"),
    [
        ("order", Outcome.ROUTED, False, None),
        ("pizza", Outcome.UNKNOWN_SHORTCODE, False, ReplyKind.UNKNOWN),
        ("", Outcome.UNKNOWN_SHORTCODE, False, None),
        ("STOP", Outcome.UNKNOWN_SHORTCODE, False, None),
        ("STOP", Outcome.OPTED_OUT, True, ReplyKind.STOP),
        ("STOP", Outcome.OPTED_OUT, False, None),
        ("START", Outcome.OPTED_IN, True, ReplyKind.START),
        ("START", Outcome.OPTED_IN, False, None),
        ("HELP", Outcome.HELP, False, ReplyKind.HELP),
        ("HELP " + "x" * (MAX_ASKING_CHARACTERS - 5), Outcome.HELP, False, ReplyKind.HELP),
        ("HELP " + "x" * (MAX_ASKING_CHARACTERS - 4), Outcome.HELP, False, None),
        ("STOP " + "x" * MAX_ASKING_CHARACTERS, Outcome.OPTED_OUT, True, None),
    ],
)
def test_what_became_of_a_text_decides_its_reply(text, outcome, changed, kind):
    reply = reply_to(arrival(text), outcome, changed=changed)
    assert (reply and reply.kind) == kind


def test_the_reply_about_a_word_quotes_it_as_it_was_folded():
    reply = reply_to(arrival("PIZZA{0}% now"), Outcome.UNKNOWN_SHORTCODE, changed=False)
    assert reply is not None
    assert reply.content == (
        "The shortcode pizza{0}% does not exist. Please include it as the first word of your message."
    )


OURS = [
    reply.content
    for text, outcome in (
        ("pizza", Outcome.UNKNOWN_SHORTCODE),
        ("STOP", Outcome.OPTED_OUT),
        ("START", Outcome.OPTED_IN),
        ("HELP", Outcome.HELP),
    )
    if (reply := reply_to(arrival(text), outcome, changed=True)) is not None
]


@pytest.mark.parametrize("said", OURS)
def test_every_reply_of_ours_is_known_again_also_where_it_was_changed_on_its_way(said):
    for text in (said, said.upper(), f"\n {said}  ", said.replace(" ", "\u00a0"), f"FWD: {said}"):
        assert is_automatic(text)
        assert reply_to(arrival(text), Outcome.UNKNOWN_SHORTCODE, changed=False) is None


@pytest.mark.parametrize("said", OURS)
def test_a_reply_is_one_text_message(said):
    assert said.isascii()
    assert len(said) <= 160


@pytest.mark.parametrize("text", ["pizza", "the shop", "please include it", "You will receive", ""])
def test_what_people_write_is_not_taken_for_a_reply(text):
    assert not is_automatic(text)


# ---- what becomes of a reply -------------------------------------------------------------------------------

FRESH, RISKY = Standing(1, False, True), Standing(2, True, True)


@pytest.mark.parametrize(
    ("at", "answer", "change"),
    [
        (FRESH, Submitted("r"), Change(ReplyStatus.SENT, NOW_MS, False)),
        (RISKY, Submitted("r"), Change(ReplyStatus.SENT, NOW_MS, True)),
        (FRESH, Refused("no"), Change(ReplyStatus.FAILED, NOW_MS, False)),
        (FRESH, Throttled("busy", 500), Change(ReplyStatus.QUEUED, NOW_MS + 500, False)),
        (RISKY, Throttled("busy", 500), Change(ReplyStatus.QUEUED, NOW_MS + 1_000, True)),
        (FRESH, AnswerLost("?"), Change(ReplyStatus.QUEUED, NOW_MS + 1_000, True)),
        (RISKY, AnswerLost("?"), Change(ReplyStatus.FAILED, NOW_MS, True)),
    ],
)
def test_an_answer_decides_about_a_reply(at, answer, change):
    assert when_answered(at, answer, now_ms=NOW_MS) == change


@pytest.mark.parametrize(
    ("at", "expired", "goes"),
    [
        (Standing(0, False, False), False, True),
        (Standing(0, False, False), True, False),
        (Standing(1, False, True), False, True),
        (Standing(2, True, False), False, True),
        (Standing(2, True, True), False, False),
    ],
)
def test_a_reply_goes_once_more_after_its_worker_died_and_never_again(at, expired, goes):
    assert may_go(at, expired=expired) is goes
