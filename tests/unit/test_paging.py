"""Pages: sizes, tokens, and walks that meet every row once."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydrasms_base.ids import new_id
from hydrasms_core.errors import InvalidArgument, InvalidPageToken
from hydrasms_core.paging import DEFAULT_SIZE, MAX_SIZE, page_of, page_request

SCOPE = "messages:018f0000-0000-7000-8000-000000000001"
ROWS = [new_id() for _ in range(50)]


def rows_for(request, rows):
    """Answer as a store does: one row more than the page holds, newest first."""
    below = [row for row in rows if request.before is None or row < request.before]
    return sorted(below, reverse=True)[: request.size + 1]


def page(rows, size, token="", scope=SCOPE):
    request = page_request(size, token, scope=scope)
    found = rows_for(request, rows)
    return page_of(found, found, request)


def walk(rows, sizes):
    """Return the pages that follow each other, with sizes in turn; fails where the walk does not end."""
    pages, token = [], ""
    for size in sizes:
        turned = page(rows, size, token)
        pages.append(list(turned.rows))
        token = turned.next_token
        if not token:
            return pages
    raise AssertionError("the walk did not end")


@given(count=st.integers(0, 50), sizes=st.lists(st.integers(1, 20), min_size=50, max_size=60))
def test_a_walk_meets_every_row_once_newest_first(count, sizes):
    rows = ROWS[:count]
    pages = walk(rows, sizes)
    assert [row for each in pages for row in each] == sorted(rows, reverse=True)
    assert all(len(each) <= size for each, size in zip(pages, sizes, strict=False))
    # Only a list that is empty has an empty page.
    assert all(pages) or count == 0


def test_a_page_that_holds_all_exactly_is_the_last():
    assert page(ROWS[:3], 3).next_token == ""
    assert page(ROWS[:4], 3).next_token != ""
    assert page([], 3).next_token == ""


def test_rows_that_arrive_meanwhile_change_nothing_on_the_pages_that_follow():
    rows = ROWS[:6]
    first = page(rows, 2)
    second = page([*rows, new_id(), new_id()], 2, first.next_token)
    assert second.rows == page(rows, 2, first.next_token).rows


def test_a_row_that_vanished_does_not_end_the_walk():
    rows = ROWS[:6]
    first = page(rows, 2)
    remaining = [row for row in rows if row != first.rows[-1]]
    assert page(remaining, 4, first.next_token).rows == sorted(rows, reverse=True)[2:]


def test_no_size_means_a_hundred():
    assert page_request(0, "", scope=SCOPE).size == DEFAULT_SIZE == 100


@pytest.mark.parametrize("size", [1, 2, 999, MAX_SIZE])
def test_a_size_from_one_to_a_thousand_is_taken(size):
    assert page_request(size, "", scope=SCOPE).size == size


@pytest.mark.parametrize("size", [-1, -(2**31), MAX_SIZE + 1, 2**31 - 1])
def test_another_size_is_refused(size):
    with pytest.raises(InvalidArgument) as caught:
        page_request(size, "", scope=SCOPE)
    assert caught.value.field == "page_size"


def test_the_first_page_begins_at_the_newest():
    assert page_request(1, "", scope=SCOPE).before is None


def test_a_token_goes_on_where_its_page_ended():
    first = page(ROWS, 7)
    assert page_request(3, first.next_token, scope=SCOPE).before == first.rows[-1]


def test_a_token_goes_into_a_url_as_it_is():
    token = page(ROWS, 7).next_token
    assert token.isascii()
    assert all(character.isalnum() or character in "-_" for character in token)


@pytest.mark.parametrize(
    "scope", ["", "inbound:018f0000-0000-7000-8000-000000000001", SCOPE[:-1] + "2", SCOPE + "\n", "accounts"]
)
def test_a_token_of_another_list_or_account_is_refused(scope):
    token = page(ROWS, 7).next_token
    with pytest.raises(InvalidPageToken) as caught:
        page_request(7, token, scope=scope)
    assert caught.value.field == "page_token"


def encoded(text):
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "nonsense",
        " ",
        "\n",
        "\0",
        "é",
        "\ud800",
        "=" * 8,
        pytest.param("a" * 100_000, id="a long one"),
        ROWS[0],
        encoded(SCOPE),
        encoded(f"{SCOPE}\n"),
        encoded(f"{SCOPE}\nno id"),
        encoded(f"{SCOPE}\n{ROWS[0]}\n"),
        encoded(f"{SCOPE}\n{ROWS[0].upper()}"),
        encoded(f"{SCOPE}\n\n{ROWS[0]}"),
        encoded(f"{SCOPE} \n{ROWS[0]}"),
        encoded(f"{SCOPE}\n{ROWS[0]}") + "!",
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    ],
)
def test_a_token_that_no_list_made_is_refused(token):
    with pytest.raises(InvalidPageToken):
        page_request(7, token, scope=SCOPE)


@given(st.text(max_size=200))
def test_no_token_is_more_than_refused(token):
    try:
        request = page_request(7, token, scope=SCOPE)
    except InvalidPageToken:
        return
    # Nothing but the empty one can be right by chance.
    assert (token, request.before) == ("", None)
