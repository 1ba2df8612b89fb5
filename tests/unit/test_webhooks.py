"""The rules of webhooks: URLs, words, signatures, the schedule, and who gets the next attempt."""

import base64
import datetime
import random
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from hydrasms_base.sealing import Sealer, Unsealable
from hydrasms_base.secret import Secret
from hydrasms_core.errors import InvalidArgument, InvalidWebhookUrl
from hydrasms_core.webhooks.delivery import (
    DISABLED_AFTER_MS,
    JITTER,
    MAX_PAUSE_MS,
    SCHEDULE_S,
    Standing,
    health_after,
    is_to_be_disabled,
    when_answered,
)
from hydrasms_core.webhooks.delivery_store import Due, Target, Text
from hydrasms_core.webhooks.model import DeliveryStatus, DeliveryType, check_auth, check_overlap, check_url
from hydrasms_core.webhooks.posts import masked, post_of
from hydrasms_core.webhooks.sealed import EndpointSecrets
from hydrasms_core.webhooks.sharing import Queue, share_out
from hydrasms_core.webhooks.signing import make_auth, make_signing_secret, signed_headers
from tests.support.webhooks import NO_ANSWER, answered

NOW_MS = 1_780_000_000_000
HOUR_MS = 3_600_000

# ---- URLs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://example.com", "https://example.com"),
        ("http://example.com:8080/a?b=c%20d", "http://example.com:8080/a?b=c%20d"),
        ("HTTPS://Example.COM/Path", "https://example.com/Path"),
        ("http://127.0.0.1:9000/hook", "http://127.0.0.1:9000/hook"),
        ("http://[::1]:9000/", "http://[::1]:9000/"),
        ("https://bücher.example/x", "https://xn--bcher-kva.example/x"),
        # As a host it means 127.0.0.1, and stands there as what it means.
        ("http://１２７.0.0.1/", "http://127.0.0.1/"),
        ("https://example.com/" + "x" * 1_980, "https://example.com/" + "x" * 1_980),
    ],
)
def test_a_url_is_kept_with_its_host_in_ascii(url, kept):
    assert check_url(url, field="url") == kept


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "//example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "https://",
        "https:///path",
        "https://user@example.com/",
        "https://user:pass@example.com/",
        "https://example.com/#fragment",
        "https://example.com/#",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com:port/",
        "https://exa mple.com/",
        "https://example.com/\n",
        "https://example.com/\0",
        "\thttps://example.com/",
        "https://example.com\\@evil.example/",
        "https://example.com/ä",
        "https://[fe80::1%25eth0]/",
        "https://[::1/",
        "https://a..b/",
        "https://" + "a" * 64 + ".example/",
        "https://example.com/" + "x" * 1_981,
        "https://ex\u200bample.com/\ud800",
    ],
)
def test_what_is_no_url_to_post_to_is_refused_and_not_quoted(url):
    with pytest.raises(InvalidWebhookUrl) as refused:
        check_url(url, field="webhook_url")
    assert refused.value.field == "webhook_url"
    assert len(url) < 12 or url not in refused.value.message


@given(st.text(max_size=80) | st.text(max_size=40).map(lambda text: f"https://{text}"))
def test_no_text_makes_the_check_of_urls_fail_otherwise_and_it_is_idempotent(text):
    try:
        kept = check_url(text, field="url")
    except InvalidWebhookUrl:
        return
    assert kept.isascii()
    assert check_url(kept, field="url") == kept


@pytest.mark.parametrize("word", ["", "x" * 256, "a\nb", "a\x7f", "a\x9f", "a\0", "\ud800"])
def test_a_word_out_of_bounds_is_refused_and_not_quoted(word):
    with pytest.raises(InvalidArgument) as refused:
        check_auth(Secret(word))
    assert not word or word not in refused.value.message


def test_words_within_bounds_are_taken_and_made():
    for word in ("x", "x" * 255, "Sésame, ouvre-toi", make_auth().reveal()):
        assert check_auth(Secret(word)).reveal() == word


def test_an_overlap_is_a_day_unless_it_is_said_and_a_month_at_most():
    assert [check_overlap(given) for given in (None, 0, 30 * 24 * HOUR_MS)] == [
        24 * HOUR_MS,
        0,
        30 * 24 * HOUR_MS,
    ]
    for wrong in (-1, 30 * 24 * HOUR_MS + 1):
        with pytest.raises(InvalidArgument):
            check_overlap(wrong)


# ---- signatures ----------------------------------------------------------------------------------------------


def test_signing_secrets_are_what_the_standard_wants():
    secrets = {make_signing_secret().reveal() for _ in range(100)}
    assert len(secrets) == 100
    for secret in secrets:
        assert secret.startswith("whsec_")
        assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) <= 64


def test_1_000_random_bodies_verify_with_the_standards_package_and_a_flipped_byte_does_not():
    rng = random.Random(14)
    for number in range(1_000):
        secret = make_signing_secret()
        text = "".join(
            chr(rng.choice([rng.randrange(1, 0xD800), rng.randrange(0xE000, 0x110000)]))
            for _ in range(rng.randrange(200))
        )
        body = orjson.dumps({"messageContent": text})
        headers = signed_headers([secret], f"msg-{number}", body, at_ms=time.time_ns() // 1_000_000)
        verifier = Webhook(secret.reveal())
        assert verifier.verify(body, headers) == {"messageContent": text}
        flipped = bytearray(body)
        flipped[rng.randrange(len(body))] ^= 1
        # A byte that makes it no UTF-8 fails before the package looks at the signature.
        with pytest.raises((WebhookVerificationError, UnicodeDecodeError)):
            verifier.verify(bytes(flipped), headers)
        with pytest.raises(WebhookVerificationError):
            verifier.verify(body, {**headers, "webhook-id": f"msg-{number + 1}"})


def _due(**changes):
    fields: dict[str, Any] = {
        "account_id": "a", "id": "d", "interrupted": False, "endpoint_id": "e", "type": DeliveryType.INBOUND,
        "subject_id": "t", "payload": "", "attempts": 0, "step": 0, "created_at_ms": NOW_MS, "target": None,
        "text": Text("+447700900000", "order", "large"),
    }  # fmt: skip
    return Due(**(fields | changes))


def _target(secrets, *, signing, previous=None, until_ms=None):
    return Target(
        "https://x.example/", True, "order", secrets.seal_auth("e", Secret("word")),
        secrets.seal_signing("e", signing),
        "" if previous is None else secrets.seal_signing("e", previous), until_ms, False, False,
    )  # fmt: skip


@pytest.fixture
def secrets():
    return EndpointSecrets(Sealer(Secret("a key")))


def test_during_a_rotation_both_secrets_verify_and_after_it_the_new_one_alone(secrets):
    old, new = make_signing_secret(), make_signing_secret()
    now_ms = time.time_ns() // 1_000_000
    target = _target(secrets, signing=new, previous=old, until_ms=now_ms + 1)
    during = post_of(_due(), target, secrets, at_ms=now_ms)
    for secret in (old, new):
        Webhook(secret.reveal()).verify(during.body, during.headers)
    assert len(during.headers["webhook-signature"].split(" ")) == 2
    after = post_of(_due(), target, secrets, at_ms=now_ms + 1)
    Webhook(new.reveal()).verify(after.body, after.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(old.reveal()).verify(after.body, after.headers)


def test_a_secret_opens_for_its_endpoint_and_use_alone(secrets):
    sealed = secrets.seal_auth("e", Secret("word"))
    assert "word" not in sealed
    assert secrets.auth("e", sealed).reveal() == "word"
    with pytest.raises(Unsealable):
        secrets.auth("other", sealed)
    with pytest.raises(Unsealable):
        secrets.signing("e", sealed)


def test_a_test_has_the_shape_of_what_the_endpoint_gets_otherwise(secrets):
    test = _due(type=DeliveryType.TEST, text=None, subject_id="")
    target = _target(secrets, signing=make_signing_secret())
    body = orjson.loads(post_of(test, target, secrets, at_ms=NOW_MS).body)
    assert list(body) == ["sender", "auth", "shortcode", "messageContent"]
    assert (body["auth"], body["shortcode"]) == ("word", "order")
    own = post_of(test, target._replace(auth_sealed=""), secrets, at_ms=NOW_MS)
    created = datetime.datetime.fromtimestamp(NOW_MS / 1000, datetime.UTC)
    assert orjson.loads(own.body) == {
        "type": "webhook.test",
        "timestamp": f"{created:%Y-%m-%dT%H:%M:%S}.000Z",
        "data": {},
    }


@pytest.mark.parametrize(
    ("word", "sent_back", "kept"),
    [
        ("open sesame", b"got open sesame, open sesame!", b"got ***, ***!"),
        ('say "é"', orjson.dumps({"auth": 'say "é"'}), b'{"auth":"***"}'),
        ('say "é"', rb'{"auth": "say \"\u00e9\""}', b'{"auth": "***"}'),
        ("open sesame", b"cut off: open ses", b"cut off: ***"),
        ("open sesame", b"as we open", b"as we ***"),
        ("open sesame", b"no", b"no"),
        ("o", b"ok", b"***k"),
    ],
)
def test_a_word_that_a_receiver_sends_back_is_not_kept(word, sent_back, kept):
    assert masked(answered(200, sent_back), Secret(word)) == answered(200, kept)


@given(
    st.text("ab", min_size=5, max_size=12),
    st.binary(max_size=30).map(lambda raw: bytes(b"ab-"[b % 3] for b in raw)),
)
def test_the_beginning_of_a_word_at_the_end_of_an_answer_is_found_wherever_it_is(word, sent_back):
    rest = sent_back.replace(word.encode(), b"***")
    cuts = [size for size in range(4, len(word)) if rest.endswith(word[:size].encode())]
    kept = rest[: -max(cuts)] + b"***" if cuts else rest
    assert masked(answered(200, sent_back), Secret(word)) == answered(200, kept)


def test_an_answer_is_kept_as_it_is_where_no_word_was_sent_or_none_came():
    assert masked(answered(200, b"open sesame"), None) == answered(200, b"open sesame")
    assert masked(NO_ANSWER, Secret("open sesame")) == NO_ANSWER


# ---- the schedule --------------------------------------------------------------------------------------------


def test_the_schedule_outlasts_72_hours_and_is_over_before_an_endpoint_is_disabled_for_it():
    assert SCHEDULE_S == (0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
    assert sum(SCHEDULE_S) > 72 * 3_600 > sum(SCHEDULE_S[:-1])
    assert sum(SCHEDULE_S) * (1 + JITTER) * 1_000 < DISABLED_AFTER_MS


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_any_2xx_is_final(status):
    change = when_answered(Standing(3, True), answered(status, b"ok"), now_ms=NOW_MS)
    assert (change.status, change.http_status, change.failure, change.answer) == (
        DeliveryStatus.DELIVERED, status, "", "ok",
    )  # fmt: skip


@pytest.mark.parametrize("step", range(1, len(SCHEDULE_S)))
def test_a_pause_is_the_schedules_and_a_tenth_more_at_most(step):
    pauses = [
        when_answered(Standing(step, True), NO_ANSWER, now_ms=NOW_MS, jitter=jitter).due_at_ms - NOW_MS
        for jitter in (0.0, 0.5, 1.0)
    ]
    assert pauses == [round(SCHEDULE_S[step] * factor * 1_000) for factor in (1.0, 1.05, 1.1)]
    assert pauses[-1] <= MAX_PAUSE_MS


def test_the_last_step_410_and_no_retries_are_dead():
    ends = [
        when_answered(Standing(len(SCHEDULE_S), True), answered(500), now_ms=NOW_MS),
        when_answered(Standing(1, True), answered(410), now_ms=NOW_MS),
        when_answered(Standing(1, False), NO_ANSWER, now_ms=NOW_MS),
    ]
    assert [end.status for end in ends] == [DeliveryStatus.DEAD] * 3
    assert [end.gone for end in ends] == [False, True, False]


@pytest.mark.parametrize(
    ("asked_s", "pause_s"), [(None, 300), (0, 300), (299, 300), (301.5, 301.5), (10**9, 86_400)]
)
def test_retry_after_draws_a_pause_out_and_never_cuts_it_short(asked_s, pause_s):
    change = when_answered(Standing(2, True), answered(503, retry_after_s=asked_s), now_ms=NOW_MS)
    assert change.due_at_ms == NOW_MS + round(pause_s * 1_000)


def test_an_endpoint_fails_from_the_first_failure_after_the_last_success():
    assert health_after([(False, 1), (False, 2)]) == (False, 1)
    assert health_after([(False, 1), (True, 2), (False, 3), (False, 4)]) == (True, 3)
    assert health_after([(False, 1), (True, 2)]) == (True, None)
    assert not is_to_be_disabled(NOW_MS - DISABLED_AFTER_MS + 1, now_ms=NOW_MS)
    assert is_to_be_disabled(NOW_MS - DISABLED_AFTER_MS, now_ms=NOW_MS)


# ---- who gets the next attempt -------------------------------------------------------------------------------


def _queues(*names):
    return [Queue("a", name, name.startswith("failing"), True) for name in names]


def _shared(queues, busy=None, *, free=10, failing=5, most=4):
    shares = share_out(queues, busy or {}, free=free, free_for_failing=failing, most=most)
    return {queue.endpoint_id: share for queue, share in shares.items()}


def test_attempts_go_round_and_first_to_those_with_the_fewest():
    assert _shared(_queues("x", "y", "z"), free=5) == {"x": 2, "y": 2, "z": 1}
    assert _shared(_queues("x", "y"), {"x": 3}, free=2) == {"y": 2}
    assert _shared(_queues("x", "y"), {"x": 4, "y": 9}) == {}
    assert _shared(_queues("x"), free=100) == {"x": 4}
    assert _shared(_queues("x"), free=0) == {}


def test_an_endpoint_that_fails_gets_one_and_all_that_fail_a_part():
    assert _shared(_queues("failing 1")) == {"failing 1": 1}
    assert _shared(_queues("failing 1"), {"failing 1": 1}) == {}
    many = _queues(*(f"failing {n}" for n in range(9)), "x")
    assert _shared(many, free=20, failing=3) == {"failing 0": 1, "failing 1": 1, "failing 2": 1, "x": 4}


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 6)), max_size=30),
    st.integers(0, 20),
    st.integers(-2, 5),
    st.integers(1, 5),
)
def test_no_share_is_beyond_a_limit_and_nothing_is_left_that_could_be_given(ends, free, failing, most):
    queues = [Queue("a", str(n), fails, True) for n, (fails, _) in enumerate(ends)]
    busy = {str(n): count for n, (_, count) in enumerate(ends)}
    shares = share_out(queues, busy, free=free, free_for_failing=failing, most=most)
    given_to_failing = sum(share for queue, share in shares.items() if queue.failing)
    assert sum(shares.values()) <= free
    assert given_to_failing <= max(failing, 0)
    room = {queue: max((1 if queue.failing else most) - busy[queue.endpoint_id], 0) for queue in queues}
    assert all(0 < share <= room[queue] for queue, share in shares.items())
    left = [
        q for q in queues if shares.get(q, 0) < room[q] and not (q.failing and given_to_failing >= failing)
    ]
    assert not left or sum(shares.values()) == free
