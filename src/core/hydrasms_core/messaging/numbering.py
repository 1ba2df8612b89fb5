"""Recipients: E.164 numbers and the country that each belongs to.

The library `phonenumbers` is the authority, but asking it costs some 20 µs a number. So the numbers of one
calling code and one length are compiled, when the first of them arrives, into one regular expression made
from the library's own metadata. What that expression does not match goes to the library: it either gives the
library's answer or none.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import phonenumbers
from iso3166 import countries_by_alpha2
from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, REGION_CODE_FOR_NON_GEO_ENTITY, NumberParseException
from phonenumbers.phonemetadata import PhoneMetadata, PhoneNumberDesc

_E164 = re.compile(r"[+][1-9][0-9]{6,14}", re.ASCII)
_CALLING_CODE_DIGITS = 3
# Each reading but the last takes a national prefix away, of which nobody means to type more than three.
_MAX_READINGS = 4
# An opening parenthesis that captures: neither escaped nor followed by a question mark.
_CAPTURING = re.compile(r"(?<!\\)\((?!\?)")

_ISO3 = {alpha2: country.alpha3 for alpha2, country in countries_by_alpha2.items()}
# In use everywhere, but not assigned by ISO 3166-1: Kosovo, Ascension, Tristan da Cunha.
_ISO3 |= {"XK": "XKX", "AC": "ASC", "TA": "TAA"}

# These sentences reach callers and logs, so none of them repeats the number.
_NOT_E164 = "The recipient is not in E.164 form: a plus sign, then 7 to 15 digits that do not begin with 0."
_UNKNOWN_CALLING_CODE = "The recipient does not begin with a known country calling code."
_IMPOSSIBLE = "The recipient has a number of digits that its country does not use."
_NO_COUNTRY = "The recipient belongs to an international service, not to a country."


class PhoneNumber(NamedTuple):
    """A recipient in canonical E.164, with its country in both ISO 3166-1 forms and its calling code."""

    e164: str
    country_iso2: str
    country_iso3: str
    calling_code: int


@dataclass(frozen=True, slots=True)
class _Plan:
    """The numbers of one calling code and one length whose answer is known without the library.

    `match` takes a whole text. The last group that matched names the region; None is the main region.
    """

    match: Callable[[str], re.Match[str] | None]
    countries: dict[str | None, tuple[str, str, int]]


# Matches nothing, so every number is left to the library.
_NO_PLAN = _Plan(re.compile(r"(?!)").match, {})
# By the first three digits and the length of the text. Only what has E.164 form is ever stored, so there are
# at most 900 × 9 keys, whatever is thrown at us.
_plans: dict[tuple[str, int], _Plan] = {}


def parse_recipient(text: str) -> PhoneNumber:
    """Return the number and country that a text in E.164 stands for.

    Accepted is what matches `[+][1-9][0-9]{6,14}` as a whole, has a known calling code and a length that is
    possible there, assigned or not. What is returned reads as itself. The country is the number's own region, else
    the main region of its calling code. Raises ValueError, with a sentence that does not hold the number, for all
    else, and for numbers of no country (+800, +883 and so on). The answer is always that of `parse_recipient_slowly`.
    """
    plan = _plans.get((text[1:4], len(text))) or _find_plan(text)
    match = plan.match(text)
    if match is None:
        return parse_recipient_slowly(text)
    return PhoneNumber(text, *plan.countries[match.lastgroup])


def parse_recipient_slowly(text: str) -> PhoneNumber:
    """Do what `parse_recipient` does by asking the library alone: the reference that it must agree with."""
    # Reading a number may take a national prefix from it and leave what reads as another number still, as with
    # +6100412345678. What it settles on is the number, so that one phone never goes by two.
    for _ in range(_MAX_READINGS):
        number = _read(text)
        if number.e164 == text:
            return number
        text = number.e164
    raise ValueError(_IMPOSSIBLE)


def _read(text: str) -> PhoneNumber:
    if _E164.fullmatch(text) is None:
        raise ValueError(_NOT_E164)
    try:
        number = phonenumbers.parse(text)
    except NumberParseException as refusal:
        unknown = refusal.error_type == NumberParseException.INVALID_COUNTRY_CODE
        raise ValueError(_UNKNOWN_CALLING_CODE if unknown else _IMPOSSIBLE) from None
    calling_code = number.country_code
    if calling_code is None:
        raise ValueError(_UNKNOWN_CALLING_CODE)
    main_region = phonenumbers.region_code_for_country_code(calling_code)
    if main_region == REGION_CODE_FOR_NON_GEO_ENTITY:
        raise ValueError(_NO_COUNTRY)
    if not phonenumbers.is_possible_number(number):
        raise ValueError(_IMPOSSIBLE)
    region = phonenumbers.region_code_for_number(number) or main_region
    e164 = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return PhoneNumber(e164, *_country(region, calling_code))


def _country(region: str, calling_code: int) -> tuple[str, str, int]:
    return region, _ISO3[region], calling_code


def _find_plan(text: str) -> _Plan:
    if _E164.fullmatch(text) is None:
        return _NO_PLAN
    digits = text[1 : 1 + _CALLING_CODE_DIGITS]
    # No calling code is the beginning of another; the library, too, takes the shortest that it knows.
    prefixes = (int(digits[:length]) for length in range(1, _CALLING_CODE_DIGITS + 1))
    calling_code = next((code for code in prefixes if code in COUNTRY_CODE_TO_REGION_CODE), None)
    plan = _NO_PLAN if calling_code is None else _compile_plan(calling_code, len(text))
    _plans[digits, len(text)] = plan
    return plan


@cache
def _compile_plan(calling_code: int, text_length: int) -> _Plan:
    """Compile the answers for one calling code and one length of the text, plus sign included."""
    regions = COUNTRY_CODE_TO_REGION_CODE[calling_code]
    main = PhoneMetadata.metadata_for_region(regions[0])
    general = main.general_desc if main else None
    national_length = text_length - len(f"+{calling_code}")
    # The library, too, looks at the main region alone for the possible lengths and for the national prefix.
    if (
        main is None
        or general is None
        or national_length
        not in (
            *general.possible_length,
            *general.possible_length_local_only,
        )
    ):
        return _NO_PLAN
    pattern = rf"\+{calling_code}(?=[0-9]{{{national_length}}}\Z)"
    if main.national_prefix_for_parsing:
        # A national prefix would be stripped or rewritten: the library's work. An empty match changes nothing
        # (Argentina's and Brazil's are optional throughout), hence the look back at where it ended.
        prefix = _without_captures(main.national_prefix_for_parsing)
        pattern += rf"(?!(?:{prefix})(?<!\+{calling_code}))"
    if len(regions) > 1:
        # As in the library the first region that fits wins, and none may fit.
        pattern += "(?:" + "|".join(_region_patterns(regions, national_length)) + ")?"
    countries: dict[str | None, tuple[str, str, int]] = {
        region: _country(region, calling_code) for region in regions
    }
    countries[None] = countries[regions[0]]
    return _Plan(re.compile(pattern, re.ASCII).match, countries)


def _region_patterns(regions: tuple[str, ...], national_length: int) -> Iterator[str]:
    for region in regions:
        metadata = PhoneMetadata.metadata_for_region(region)
        if metadata is None:
            continue
        if metadata.leading_digits is not None:
            yield f"(?P<{region}>{_without_captures(metadata.leading_digits)})"
            continue
        general = _described(metadata.general_desc, national_length)
        kinds = [kind for desc in _kinds(metadata) for kind in _described(desc, national_length)]
        if general and kinds:
            # One kind often repeats another's pattern, which need not be tried twice.
            alternatives = "|".join(dict.fromkeys(kinds))
            yield rf"(?P<{region}>(?={general[0]}\Z)(?:{alternatives})\Z)"


def _kinds(metadata: PhoneMetadata) -> Iterator[PhoneNumberDesc | None]:
    # The order does not matter to the answer, so the kinds that people text come first.
    if not metadata.same_mobile_and_fixed_line_pattern:
        yield metadata.mobile
    yield metadata.fixed_line
    yield metadata.voip
    yield metadata.personal_number
    yield metadata.pager
    yield metadata.toll_free
    yield metadata.premium_rate
    yield metadata.shared_cost
    yield metadata.uan
    yield metadata.voicemail


def _described(desc: PhoneNumberDesc | None, national_length: int) -> list[str]:
    """Return the pattern of a description as a list of one, or of none where no such length exists."""
    if desc is None or not desc.national_number_pattern:
        return []
    if desc.possible_length and national_length not in desc.possible_length:
        return []
    return [f"(?:{_without_captures(desc.national_number_pattern)})"]


def _without_captures(pattern: str) -> str:
    # The only groups that may capture are ours, which name regions.
    return _CAPTURING.sub("(?:", pattern)
