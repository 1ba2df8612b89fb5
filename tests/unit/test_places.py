"""What processes of one host hold: the data directory, the socket's path, the service token."""

import multiprocessing
import socket
import stat

import pytest

from hydrasms_app.data_dir import held_data_dir
from hydrasms_app.listening import for_owner_alone, owned_socket
from hydrasms_app.problems import Problem
from hydrasms_base import secret
from hydrasms_base.secret import make_secret, write_new_secret


def test_roles_share_a_data_directory(tmp_path):
    with held_data_dir(tmp_path / "var", shared=True), held_data_dir(tmp_path / "var", shared=True):
        assert stat.S_IMODE((tmp_path / "var").stat().st_mode) == 0o700


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True), (False, False)])
def test_a_server_that_is_all_in_one_shares_with_nobody(tmp_path, first, second):
    with held_data_dir(tmp_path, shared=first):
        with pytest.raises(Problem, match="another hydrasms"), held_data_dir(tmp_path, shared=second):
            pass
    with held_data_dir(tmp_path, shared=second):
        pass


def bound(path):
    listener = socket.socket(socket.AF_UNIX)
    with for_owner_alone():
        listener.bind(str(path))
    listener.listen()
    return listener


def test_the_socket_of_a_dead_core_is_replaced(tmp_path):
    path = tmp_path / "run" / "core.sock"
    with owned_socket(path):
        pass
    bound(path).close()
    assert path.is_socket()
    with owned_socket(path):
        assert not path.exists()
        with bound(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


def test_the_socket_of_a_live_core_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "core.sock"
    with owned_socket(path), bound(path):
        with pytest.raises(Problem, match="already listens"), owned_socket(path):
            pass
        assert path.is_socket()


def test_a_file_in_the_place_of_the_socket_is_left_alone(tmp_path):
    path = tmp_path / "core.sock"
    path.write_text("a letter")
    with pytest.raises(Problem, match="something else"), owned_socket(path):
        pass
    assert path.read_text() == "a letter"


def test_a_folder_that_everybody_may_write_to_is_refused(tmp_path):
    # With the sticky bit too: while no core runs, anybody could put a socket there and collect tokens.
    for mode in (0o777, 0o1777):
        tmp_path.chmod(mode)
        with pytest.raises(Problem, match="everybody may write"), owned_socket(tmp_path / "core.sock"):
            pass
    tmp_path.chmod(0o700)


def test_a_path_that_is_too_long_for_a_socket_is_refused_in_words(tmp_path):
    with pytest.raises(Problem, match="longer than 107"), owned_socket(tmp_path / ("x" * 120)):
        pass


def test_a_secret_that_is_there_is_never_written_over(tmp_path):
    path = tmp_path / "token"
    write_new_secret(path, "first")
    with pytest.raises(FileExistsError):
        write_new_secret(path, "second")
    assert path.read_text() == "first\n"
    assert [each.name for each in tmp_path.iterdir()] == ["token"]


def test_who_finds_that_another_was_faster_takes_what_that_one_made(tmp_path, monkeypatch):
    # The other one comes between the look and the write: the moment that a read-then-write would get wrong.
    path = tmp_path / "token"

    def overtaken(place, text):
        monkeypatch.undo()
        write_new_secret(place, "the-faster-ones")
        write_new_secret(place, text)

    monkeypatch.setattr(secret, "write_new_secret", overtaken)
    assert make_secret(path).reveal() == "the-faster-ones"


def _make(path, barrier, results):
    barrier.wait(30)
    results.put(make_secret(path).reveal())


def test_processes_that_start_at_once_end_with_the_same_token(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_make, args=(tmp_path / "token", barrier, results)) for _ in range(4)]
    for process in processes:
        process.start()
    tokens = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join(30)
        process.close()
    results.close()
    assert len(tokens) == 1
