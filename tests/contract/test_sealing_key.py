"""The key of a database: made once, and no other is let in."""

import stat

import pytest

from hydrasms_app.problems import Problem
from hydrasms_app.sealing import sealer_of
from hydrasms_app.settings import Settings
from hydrasms_base.secret import make_secret


async def test_the_first_process_makes_the_key_and_the_next_takes_it(database, tmp_path):
    settings = Settings(data_dir=tmp_path / "var")
    first = await sealer_of(settings, database)
    sealed = first.seal("text", place="here")
    assert (await sealer_of(settings, database)).unseal(sealed, place="here").reveal() == "text"
    assert stat.S_IMODE((tmp_path / "var" / "sealing.key").stat().st_mode) == 0o600


async def test_another_key_is_refused_with_what_to_do(database, tmp_path):
    await sealer_of(Settings(data_dir=tmp_path / "one"), database)
    make_secret(tmp_path / "sealing.key")
    with pytest.raises(Problem, match=r"is not the one .*: copy sealing\.key"):
        await sealer_of(Settings(data_dir=tmp_path), database)


async def test_a_database_that_has_a_key_is_given_no_other(database, tmp_path):
    await sealer_of(Settings(data_dir=tmp_path / "one"), database)
    with pytest.raises(Problem, match=r"there is no sealing key .*: copy sealing\.key"):
        await sealer_of(Settings(data_dir=tmp_path / "two"), database)
    # Nothing is left there that could be taken for the key.
    assert not (tmp_path / "two" / "sealing.key").exists()


async def test_a_key_file_that_is_empty_is_refused(database, tmp_path):
    (tmp_path / "sealing.key").touch()
    with pytest.raises(Problem, match="cannot use the sealing key"):
        await sealer_of(Settings(data_dir=tmp_path), database)
