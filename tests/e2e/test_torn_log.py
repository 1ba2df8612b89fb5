"""A log that was torn, bytes that were turned over, pages that never reached the disk.

Whatever is left of a database, it holds no message without its debit and no debit without its message; and damage is
said, not served.
"""

import itertools
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.support.history import check
from tests.support.served import Served
from tests.support.torn import (
    PAGE_BYTES,
    Opened,
    Scene,
    changed_tables,
    look_at,
    make_scene,
    money,
    random_flip,
)

SENDS = 300


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("torn"), sends=SENDS)


def seen(scene_files, tmp_path: Path) -> Opened:
    """Look at spoiled files, in a folder that is gone afterwards."""
    folder = tmp_path / "case"
    try:
        return look_at(scene_files.lay_out(folder))
    finally:
        shutil.rmtree(folder)


def judge_log(scene: Scene, opened: Opened) -> None:
    """Whatever became of the log, the database is sound and holds at least all that the log no longer held."""
    assert opened.complaint == ""
    assert opened.books is not None
    assert check(scene.attempts, opened.books, owed=scene.settled) == []


def cut_logs(scene: Scene, tmp_path: Path, note, *, cuts: int) -> None:
    lengths = sorted(random.sample(range(len(scene.files.log)), cuts - 1))
    kept: list[set[str]] = []
    # The whole log is a case as well: it shows that there was something to lose.
    for length in [*lengths, len(scene.files.log)]:
        opened = seen(scene.files.log_cut(length), tmp_path)
        judge_log(scene, opened)
        assert opened.books is not None
        kept.append({message.id for message in opened.books.messages})
    # What a cut leaves is a history that ended earlier.
    assert all(shorter <= longer for shorter, longer in itertools.pairwise(kept))
    assert len(kept[-1]) > len(kept[0])
    assert check(scene.attempts, scene.books) == []
    note(f"{cuts} cuts left {len(kept[0])} to {len(kept[-1])} messages, none without its debit")


def flip_log(scene: Scene, tmp_path: Path, note, *, flips: int) -> None:
    for _ in range(flips):
        judge_log(scene, seen(scene.files.log_flipped(*random_flip(scene.files.log)), tmp_path))
    note(f"{flips} flips in the log: every one left a sound database")


def flip_database(scene: Scene, tmp_path: Path, note, *, flips: int) -> None:
    """Nothing about money may change unsaid, though SQLite cannot tell every byte."""
    found: Counter[str] = Counter()
    for _ in range(flips):
        at, bits = random_flip(scene.files.database)
        opened = seen(scene.files.database_flipped(at, bits), tmp_path)
        if opened.complaint:
            found["said"] += 1
            continue
        assert opened.books is not None
        assert opened.dump is not None
        assert money(opened.books) == money(scene.books), (at, bits)
        changed = changed_tables(scene.dump, opened.dump)
        found[f"unsaid, in {', '.join(sorted(changed))}" if changed else "changed nothing"] += 1
    note(f"{flips} flips in the database: {dict(found.most_common())}")


def serve_without_pages(scene: Scene, tmp_path: Path, note, *, pages: list[int]) -> None:
    """Serve databases that lack a page: whatever is answered is right, or is a refusal."""
    found: Counter[str] = Counter()
    for page in pages:
        folder = scene.files.page_zeroed(page).lay_out(tmp_path / f"page-{page}")
        for secret in ("service.token", "sealing.key"):
            shutil.copy(scene.data_dir / secret, folder)
        found[serve_damaged(scene, folder)] += 1
    note(f"{len(pages)} databases that lack a page: {dict(found.most_common())}")


def serve_damaged(scene: Scene, folder: Path) -> str:
    server = Served(folder)
    if not server.try_start("--no-demo"):
        complaint = server.log_file.read_text().splitlines()[-1]
        assert complaint.startswith("hydrasms: "), complaint
        assert "damaged" in complaint or "cannot be used" in complaint, complaint
        return "did not start"
    answers: set[str | int] = set()
    for account in scene.accounts:
        answers.add(listed_right(server, scene, account.id))
        answers.add(server.send(account.key).status if server.is_up() else 0)
    if server.is_up():
        server.kill()
    assert "Traceback" not in server.log_file.read_text()
    assert answers <= {"right", "refused", 200, 500, 503, 0}, answers
    return "answered right" if answers <= {"right", 200} else "refused"


def listed_right(server: Served, scene: Scene, account_id: str) -> str:
    done = server.run("messages", "list", account_id, "--page-size", "1000", "--json")
    if done.returncode != 0:
        assert done.stderr.count("\n") == 1, done.stderr
        return "refused"
    listed = {message["id"]: message["content"] for message in server.parse(done)["messages"]}
    expected = {m.id: m.content for m in scene.books.messages if m.account_id == account_id}
    return "right" if listed == expected else "WRONG"


def database_pages(scene: Scene) -> list[int]:
    return list(range(len(scene.files.database) // PAGE_BYTES))


def test_a_cut_log_loses_whole_transactions_alone(scene, tmp_path, note):
    cut_logs(scene, tmp_path, note, cuts=20)


def test_a_flipped_byte_in_the_log_ends_it_there(scene, tmp_path, note):
    flip_log(scene, tmp_path, note, flips=10)


def test_a_flipped_byte_in_the_database_changes_no_money_unsaid(scene, tmp_path, note):
    flip_database(scene, tmp_path, note, flips=20)


def test_a_database_that_lacks_a_page_is_refused_or_answered_right(scene, tmp_path, note):
    serve_without_pages(scene, tmp_path, note, pages=random.sample(database_pages(scene), 2))


@pytest.mark.faults
def test_500_cuts_of_the_log(scene, tmp_path, note):
    cut_logs(scene, tmp_path, note, cuts=500)


@pytest.mark.faults
def test_500_flipped_bytes(scene, tmp_path, note):
    flip_log(scene, tmp_path, note, flips=250)
    flip_database(scene, tmp_path, note, flips=250)


@pytest.mark.faults
def test_a_database_that_lacks_any_one_of_its_pages(scene, tmp_path, note):
    pages = database_pages(scene)
    serve_without_pages(scene, tmp_path, note, pages=random.sample(pages, min(60, len(pages))))
