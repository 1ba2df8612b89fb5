"""Revisions in two phases: which code may work on which database while an old and a new release run side by side.

The releases here are the real migrations and made-up ones after them: each pre revision adds a table, each post
revision takes away the table of the pre revision before it.
"""

import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa

from hydrasms_app import migrate
from hydrasms_app.migrate import Phase
from hydrasms_app.problems import NotYet, Problem
from tests.support.databases import connected

REAL = Path(migrate.__file__).with_name("migrations")
FIRST = max(migrate.revisions())
PRE, POST, NEXT_PRE = (f"{int(FIRST) + number:04}" for number in (1, 2, 3))

SCRIPT = '''"""A made-up revision."""

import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "{revision}", "{before}", None, None


def upgrade():
    {up}


def downgrade():
    {down}
'''
MAKE = 'op.create_table("made_by_{}", sa.Column("id", sa.Integer(), primary_key=True))'
TAKE = 'op.drop_table("made_by_{}")'
FAIL = 'op.execute("SELECT nothing FROM nowhere")'


@pytest.fixture
def release(tmp_path):
    """Return a maker of script folders: the real migrations and, by the phases of its revisions, more of them."""

    def make(*phases, failing=False):
        folder = tmp_path / ("_".join(phases) + f"{failing}")
        shutil.copytree(REAL, folder, ignore=shutil.ignore_patterns("__pycache__"))
        before = FIRST
        for number, phase in enumerate(phases, int(FIRST) + 1):
            revision = f"{number:04}"
            steps = (
                (MAKE.format(revision), TAKE.format(revision))
                if phase == "pre"
                else (TAKE.format(before), MAKE.format(before))
            )
            up = FAIL if failing and number == int(FIRST) + len(phases) else steps[0]
            (folder / "versions" / f"{revision}_{phase}_made_up.py").write_text(
                SCRIPT.format(revision=revision, before=before, up=up, down=steps[1])
            )
            before = revision
        return folder

    return make


@pytest.fixture
def old(release):
    """The release that is at work: it has no revision of those made up."""
    return release()


@pytest.fixture
def new(release):
    """The release that follows: it adds something, and later takes something away."""
    return release("pre", "post")


def tables(target):
    found = connected(target, lambda connection: sa.inspect(connection).get_table_names())
    return {name for name in found if name.startswith("made_by_")}


def floor(target):
    found = connected(
        target, lambda connection: connection.execute(sa.text("SELECT revision FROM schema_floor")).all()
    )
    return [row.revision for row in found]


def is_let_in(target, scripts):
    try:
        migrate.check_usable(target, scripts=scripts)
    except NotYet:
        return "not yet"
    except Problem as problem:
        return "no more" if "newer hydrasms" in str(problem) else str(problem)
    return "yes"


def test_the_names_of_the_files_say_the_phase(new):
    phases = migrate.revisions(new)
    assert (phases["0001"], phases["0002"]) == (Phase.PRE, Phase.PRE)
    assert (phases[PRE], phases[POST]) == (Phase.PRE, Phase.POST)


def test_all_is_applied_unless_a_phase_is_named(target, new):
    assert migrate.upgrade(target, scripts=new) == POST
    assert tables(target) == set()
    assert floor(target) == [POST]


def test_phase_pre_stops_before_the_first_post_revision(target, old, new):
    assert migrate.upgrade(target, scripts=old) == FIRST
    assert migrate.upgrade(target, phase=Phase.PRE, scripts=new) == PRE
    assert tables(target) == {f"made_by_{PRE}"}
    assert floor(target) == []
    assert migrate.upgrade(target, phase=Phase.PRE, scripts=new) == PRE
    assert migrate.upgrade(target, scripts=new) == POST
    assert floor(target) == [POST]


def test_phase_pre_goes_not_past_a_post_revision_that_the_last_release_left_undone(target, release, new):
    newest = release("pre", "post", "pre")
    migrate.upgrade(target, phase=Phase.PRE, scripts=new)
    assert migrate.upgrade(target, phase=Phase.PRE, scripts=newest) == PRE
    # Its own pre revision is not there, and would not be right before the post revision.
    assert is_let_in(target, newest) == "not yet"
    assert migrate.upgrade(target, scripts=newest) == NEXT_PRE
    assert is_let_in(target, newest) == "yes"


def test_old_and_new_code_are_let_in_side_by_side(target, old, new):
    migrate.upgrade(target, scripts=old)
    assert (is_let_in(target, old), is_let_in(target, new)) == ("yes", "not yet")
    migrate.upgrade(target, phase=Phase.PRE, scripts=new)
    assert (is_let_in(target, old), is_let_in(target, new)) == ("yes", "yes")
    migrate.upgrade(target, scripts=new)
    assert (is_let_in(target, old), is_let_in(target, new)) == ("no more", "yes")


def test_old_code_that_upgrades_leaves_what_newer_code_has_added(target, old, new):
    migrate.upgrade(target, phase=Phase.PRE, scripts=new)
    for phase in (None, Phase.PRE):
        assert migrate.upgrade(target, phase=phase, scripts=old) == PRE
    assert tables(target) == {f"made_by_{PRE}"}


def test_old_code_changes_nothing_of_what_newer_code_took_from_it(target, old, new):
    migrate.upgrade(target, scripts=new)
    for refused in (
        lambda: migrate.upgrade(target, scripts=old),
        lambda: migrate.upgrade(target, phase=Phase.PRE, scripts=old),
        lambda: migrate.downgrade(target, "base", scripts=old),
    ):
        with pytest.raises(Problem, match="newer hydrasms"):
            refused()
    assert floor(target) == [POST]


def test_code_that_knows_the_floor_is_let_in_though_newer_code_has_added_something(target, new, release):
    newest = release("pre", "post", "pre")
    migrate.upgrade(target, scripts=newest)
    assert migrate.revisions(newest)[NEXT_PRE] is Phase.PRE
    assert (is_let_in(target, new), is_let_in(target, newest)) == ("yes", "yes")


def test_taking_a_post_revision_back_lets_old_code_in_again(target, old, new):
    migrate.upgrade(target, scripts=new)
    assert migrate.downgrade(target, PRE, scripts=new) == PRE
    assert tables(target) == {f"made_by_{PRE}"}
    assert floor(target) == []
    assert (is_let_in(target, old), is_let_in(target, new)) == ("yes", "yes")


def test_taking_back_part_leaves_the_floor_of_what_remains(target, new, release):
    newest = release("pre", "post", "pre", "post")
    migrate.upgrade(target, scripts=newest)
    assert floor(target) == [f"{int(POST) + 2:04}"]
    migrate.downgrade(target, NEXT_PRE, scripts=newest)
    assert floor(target) == [POST]
    assert is_let_in(target, new) == "yes"


def test_a_revision_that_fails_leaves_nothing_of_those_before_it(target, old, release):
    migrate.upgrade(target, scripts=old)
    with pytest.raises(Problem, match="cannot be used"):
        migrate.upgrade(target, scripts=release("pre", "pre", failing=True))
    assert tables(target) == set()
    assert migrate.upgrade(target, scripts=old) == FIRST
    assert migrate.upgrade(target, scripts=release("pre", "pre")) == POST
