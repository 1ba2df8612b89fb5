"""What a message costs."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydrasms_billing.pricing import price


@pytest.mark.parametrize(
    ("characters", "cost"),
    [
        (0, 1),
        (1, 1),
        (159, 1),
        (160, 1),
        (161, 2),
        (320, 2),
        (321, 3),
        (480, 3),
        (481, 4),
        (640, 4),
        (641, 5),
        (799, 5),
    ],
)
def test_each_160_characters_begun_cost_a_credit_and_a_message_one_at_least(characters, cost):
    assert price("a" * characters) == cost


@pytest.mark.parametrize("character", ["a", "é", "漢", "😀", "\n", "\u0301"])
def test_a_character_is_a_code_point_however_it_is_encoded(character):
    assert price(character * 160) == 1
    assert price(character * 161) == 2


@given(st.text(max_size=1_000))
def test_the_price_is_the_contract_formula(content):
    assert price(content) == max(1, math.ceil(len(content) / 160))
