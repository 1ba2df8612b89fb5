"""How the command line writes values."""

import io
import sys

import pytest

from hydrasms_app.cli.output import plural, print_details, print_table, shown


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Grüße, 世界 🍕", "Grüße, 世界 🍕"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b2J", "\\x9b2J"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("\u2028", "\\u2028"),
    ],
)
def test_nothing_that_steers_a_terminal_is_shown(text, expected):
    assert shown(text) == expected


def test_a_table_fits_a_terminal_and_keeps_ids_whole(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    an_id = "018f0000-0000-7000-8000-0000000000c3"
    print_table(("id", "content"), [(an_id, "word " * 40)], empty="None.")
    lines = terminal.getvalue().splitlines()
    assert len(lines) > 3
    assert max(map(len, lines)) <= 80
    assert lines[1].startswith(an_id)
    assert " ".join(lines[1:]).split().count("word") == 40


def test_a_table_elsewhere_has_a_line_a_row(capsys):
    print_table(("id", "content"), [("1", "word " * 400), ("2", "[bold]:smile:")], empty="None.")
    out = capsys.readouterr().out.splitlines()
    assert out[1].split() == ["1", *["word"] * 400]
    assert out[2].split() == ["2", "[bold]:smile:"]
    assert len(out) == 3


def test_truth_and_absence_are_words(capsys):
    print_details({"a": True, "bcd": False, "e": None, "f": "", "g": 0})
    assert capsys.readouterr().out.splitlines() == ["a    yes", "bcd  no", "e    -", "f    -", "g    0"]


@pytest.mark.parametrize(
    ("number", "expected"), [(0, "0 credits"), (1, "1 credit"), (-1, "-1 credits"), (1_000, "1,000 credits")]
)
def test_a_noun_follows_its_number(number, expected):
    assert plural(number, "credit") == expected
