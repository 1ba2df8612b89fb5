"""From one file to one server: everything is moved, and nothing else."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from hydrasms_app.schema import metadata, schema_floor
from tests.support.aftermath import books_of, settle
from tests.support.databases import postgres_template, postgres_url
from tests.support.served import Served, served

pytestmark = pytest.mark.postgresql


@pytest.fixture
def url():
    with postgres_template(lambda _: None) as name:
        yield postgres_url(name)


def filled(folder: Path) -> Served:
    """Return a server that has sent some messages and is stopped."""
    with served(folder / "var") as server:
        account = server.account(credits=50)
        for number in range(12):
            assert server.send(account.key, f"text {number}", Idempotency_Key=f"k{number}").status == 200
        # One is refused by its carrier and refunded.
        assert server.send(account.key, "no", recipient="+447700900901").status == 200
        settle(server)
        assert server.terminate() == 0
    return server


def contents(server: Served) -> dict[str, list[tuple]]:
    async def work(tx):
        return {
            table.name: sorted(
                tuple(row)
                for row in await tx.execute(sa.select(*[c for c in table.columns if c.name != "lane"]))
            )
            for table in metadata.sorted_tables
            if table is not schema_floor
        }

    return server.read(work)


@pytest.mark.parametrize("lanes", ["1", "4"])
def test_everything_is_moved_and_the_server_goes_on_there(tmp_path, url, lanes):
    before = filled(tmp_path)
    before.variables["HYDRASMS_LANES"] = lanes
    moved = before.run("db", "move", url)
    assert moved.returncode == 0, moved.stderr
    assert "the ledger verifies" in moved.stdout
    after = Served(before.data_dir, database_url=url, variables={"HYDRASMS_LANES": lanes})
    assert contents(after) == contents(Served(before.data_dir))
    assert len(books_of(after).messages) == 13
    after.start()
    try:
        key = (before.data_dir / "demo.key").read_text().strip()
        assert after.send(key, "after the move").status == 200
        settle(after)
        assert after.json("ledger", "verify")["ok"] is True
    finally:
        after.kill()


def test_a_database_with_something_in_it_is_refused(tmp_path, url):
    before = filled(tmp_path)
    assert before.run("db", "move", url).returncode == 0
    again = before.run("db", "move", url)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == "hydrasms: the database to move to is not empty: name one that is\n"


def test_nothing_is_moved_under_a_running_server(tmp_path, url):
    with served(tmp_path / "var") as server:
        refused = server.run("db", "move", url)
        assert refused.returncode == 1
        assert "already uses the data directory" in refused.stderr
