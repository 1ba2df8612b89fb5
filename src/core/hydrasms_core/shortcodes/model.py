"""Shortcodes: what they are, which words may be one, and who would get a text."""

import enum
import unicodedata
from dataclasses import dataclass

from hydrasms_base.secret import Secret
from hydrasms_core.consent.words import RESERVED, asked, bare
from hydrasms_core.errors import InvalidArgument, ShortcodeReserved
from hydrasms_core.shortcodes.folding import first_word, fold
from hydrasms_core.shortcodes.ports import Hook, MadeSecrets

MAX_WORD_CHARACTERS = 20
MAX_TEXT_CHARACTERS = 10_000

NO_SECRETS = MadeSecrets(None, None)


@dataclass(frozen=True, slots=True)
class Shortcode:
    """A word that brings texts to an account. Times are milliseconds since 1970 UTC."""

    id: str
    account_id: str
    word: str
    """Folded."""
    active: bool
    """False where the account's plan does not cover it: its texts are stored and listed, and not pushed."""
    created_at_ms: int
    updated_at_ms: int


@dataclass(frozen=True, slots=True)
class HookedShortcode:
    """A shortcode with its webhook, where it has one."""

    shortcode: Shortcode
    hook: Hook | None


@dataclass(frozen=True, slots=True)
class NewShortcode:
    """What is asked of a new shortcode, unchecked; an empty URL is no webhook."""

    account_id: str
    word: str
    webhook_url: str = ""
    secret: Secret | None = None
    retries: bool | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class ShortcodeChange:
    """What to change of a shortcode, unchecked; None leaves a thing as it is, an empty URL takes the webhook away."""

    webhook_url: str | None = None
    secret: Secret | None = None
    retries: bool | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to change."""
        return self == ShortcodeChange()


@dataclass(frozen=True, slots=True)
class ChangedShortcode:
    """A shortcode that was created or changed, and the secrets that this made, to be shown this once."""

    found: HookedShortcode
    made: MadeSecrets = NO_SECRETS
    replayed: bool = False


class RoutingReason(enum.Enum):
    """Why a text goes where it goes; the names are those of the protos."""

    PUSHED = enum.auto()
    LISTED = enum.auto()
    INACTIVE = enum.auto()
    UNKNOWN_SHORTCODE = enum.auto()
    NO_WORD = enum.auto()
    RESERVED_WORD = enum.auto()


@dataclass(frozen=True, slots=True)
class Routing:
    """Who would get a text, and why; `found` is None where nobody would."""

    reason: RoutingReason
    word: str
    content: str
    found: HookedShortcode | None = None


def is_word(folded: str) -> bool:
    """Tell whether a folded word may be a shortcode, reserved or not: 1 to 20 letters and digits.

    Marks belong to the letter before them. Whatever is one is stored the same by every database.
    """
    if folded.isascii():
        return folded.isalnum() and len(folded) <= MAX_WORD_CHARACTERS
    return (
        len(folded) <= MAX_WORD_CHARACTERS
        and _is_letter_or_digit(folded[0])
        and all(_is_letter_or_digit(c) or unicodedata.category(c) in ("Mn", "Mc") for c in folded)
    )


def check_word(text: str) -> str:
    """Return the shortcode that a text stands for, folded; raises InvalidArgument and ShortcodeReserved."""
    if not text:
        raise InvalidArgument(
            f"word is required: 1 to {MAX_WORD_CHARACTERS} letters and digits.", field="word"
        )
    word = fold(text)
    if not is_word(word):
        raise InvalidArgument(
            f"A shortcode is one word of 1 to {MAX_WORD_CHARACTERS} letters and digits; "
            "spaces, punctuation and symbols are neither.",
            field="word",
        )
    if word in RESERVED:
        raise ShortcodeReserved(
            "This word means something to every phone, as STOP and HELP do: choose another.", field="word"
        )
    return word


def check_new_shortcode(new: NewShortcode) -> str:
    """Return the folded word of a request for a shortcode; raises as `check_word` does."""
    word = check_word(new.word)
    if not new.webhook_url:
        _refuse_webhook_fields(new)
    return word


def check_change(change: ShortcodeChange, *, has_hook: bool) -> ShortcodeChange:
    """Return a change as it is; raises InvalidArgument where it says something about no webhook."""
    will_have_hook = has_hook if change.webhook_url is None else change.webhook_url != ""
    if not will_have_hook:
        _refuse_webhook_fields(change)
    return change


def check_text(text: str) -> str:
    """Return a text that a phone might send as it is; raises InvalidArgument."""
    if len(text) > MAX_TEXT_CHARACTERS:
        raise InvalidArgument(
            f"text has {len(text)} characters; {MAX_TEXT_CHARACTERS:,} are the most.", field="text"
        )
    return text


def routing_before_lookup(text: str) -> Routing:
    """Return who would get a text as far as the text alone tells: UNKNOWN_SHORTCODE where one has to look."""
    word, content = first_word(text)
    if not word:
        return Routing(RoutingReason.NO_WORD, word, content)
    if asked(word) is not None:
        return Routing(RoutingReason.RESERVED_WORD, bare(word), content)
    return Routing(RoutingReason.UNKNOWN_SHORTCODE, word, content)


def routing_to(found: HookedShortcode) -> RoutingReason:
    """Return what becomes of a text whose first word somebody holds."""
    if not found.shortcode.active:
        return RoutingReason.INACTIVE
    if found.hook is None or found.hook.disabled_at_ms is not None:
        return RoutingReason.LISTED
    return RoutingReason.PUSHED


def _refuse_webhook_fields(asked_for: NewShortcode | ShortcodeChange) -> None:
    for field, value in (("secret", asked_for.secret), ("retries", asked_for.retries)):
        if value is not None:
            raise InvalidArgument(
                f"{field} is about a webhook, and there is none: set webhook_url as well.", field=field
            )


def _is_letter_or_digit(character: str) -> bool:
    return character.isalpha() or character.isdecimal()
