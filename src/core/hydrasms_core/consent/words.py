"""The words that mean something to every phone, whoever it writes to: STOP, START, HELP and their kin.

A text is looked at before any routing, and its first word decides, whatever follows: none of these words can be a
shortcode, so that nobody else waits for "STOP texting me". Punctuation in the word does not count here ("Stop!",
"opt-out"): in doubt a phone is left in peace.

The lists are what the field agrees on:

- STOP: what US rules name as a revocation of consent (47 CFR 64.1200(a)(10): stop, quit, end, revoke, opt out,
  cancel, unsubscribe), the large providers' STOPALL and OPTOUT, and Canada's ARRET. CANCEL, END and QUIT are
  everyday words, and yet those rules leave no choice about them.
- START: START and UNSTOP. YES, which some providers take for a START, is too often the answer to a question of
  somebody else's to end a STOP with.
- HELP: HELP, INFO and AIDE, which carriers of Canada demand.
- YES is reserved all the same: whoever held it would get the answers that are meant for everybody else.

All are folded, as `hydrasms_core.shortcodes.folding` folds.
"""

import enum

STOP_WORDS = frozenset(
    {
        "stop",
        "stopall",
        "unsubscribe",
        "cancel",
        "end",
        "quit",
        "revoke",
        "optout",
        "arret",
        "arrêt",
    }
)
"""The phone wants no more messages."""

START_WORDS = frozenset({"start", "unstop"})
"""The phone takes its STOP back."""

HELP_WORDS = frozenset({"help", "info", "aide"})
"""The phone asks whom it writes with."""

RESERVED = STOP_WORDS | START_WORDS | HELP_WORDS | {"yes"}
"""The words that nobody may have as a shortcode."""


class Ask(enum.StrEnum):
    """What a phone asks of whoever it writes to."""

    STOP = "stop"
    START = "start"
    HELP = "help"


_ASKS = (
    dict.fromkeys(STOP_WORDS, Ask.STOP)
    | dict.fromkeys(START_WORDS, Ask.START)
    | dict.fromkeys(HELP_WORDS, Ask.HELP)
)


def asked(word: str) -> Ask | None:
    """Return what a text asks for whose first word, folded, is this; None where it is an ordinary text."""
    return _ASKS.get(bare(word))


def bare(word: str) -> str:
    """Return a folded word without its punctuation, as `Stop!` and `opt-out` are recognised by."""
    return word if word.isalnum() else "".join(filter(str.isalnum, word))
