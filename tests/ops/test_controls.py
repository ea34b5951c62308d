"""Commands are checked before they are queued, kills go first, and a socket hands on nothing but commands."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from ami_engine.errors import ConfigError
from ami_engine.ops import control_socket
from ami_engine.ops.control_socket import SOCKET_NAME, ControlServer, send_command
from ami_engine.ops.controls import Command, ControlReply, Controls

# Commands. ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"verb": "explode"}, "verb"),
        ({"verb": "kill", "operator": " ", "reason": "x"}, "operator"),
        ({"verb": "pause", "operator": "ann"}, "reason"),
        ({"verb": "pause", "operator": "ann\nbob", "reason": "x"}, "operator"),
        ({"verb": "pause", "operator": "ann", "reason": "x" * 501}, "reason"),
        ({"verb": "budget", "operator": "ann", "reason": "x"}, "usd"),
        ({"verb": "budget", "operator": "ann", "reason": "x", "usd": float("nan")}, "usd"),
        ({"verb": "budget", "operator": "ann", "reason": "x", "usd": 0.0}, "usd"),
        ({"verb": "kill", "operator": "ann", "reason": "x", "usd": 5.0}, "usd"),
        ({"verb": "kill", "operator": "ann", "reason": "x", "release": ("kill_switch",)}, "release"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(given: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=f"`{named}`"):
        Command(**given)  # type: ignore[arg-type]


def test_a_kill_is_taken_before_what_waits() -> None:
    controls = Controls()
    controls.pause("ann", "lunch")
    controls.kill("bob", "fire")
    taken = [controls.take(), controls.take(), controls.take()]
    assert [ticket and ticket.command.verb for ticket in taken] == ["kill", "pause", None]
    assert controls.pending is False


def test_a_full_queue_refuses_at_once_but_takes_a_kill() -> None:
    controls = Controls()
    tickets = [controls.status() for _ in range(70)]
    refused = tickets[-1].wait(0.0)
    assert refused is not None
    assert not refused.ok
    assert controls.kill("ann", "fire").wait(0.0) is None
    first = controls.take()
    assert first is not None
    assert first.command.verb == "kill"


def test_a_run_that_ended_answers_everybody() -> None:
    controls = Controls()
    waiting = controls.pause("ann", "x")
    controls.close("steps")
    late = controls.kill("ann", "x")
    for ticket in (waiting, late):
        reply = ticket.wait(0.0)
        assert reply is not None
        assert (reply.ok, reply.message) == (False, "the run is over: steps")
    assert controls.pending is False


def test_commands_of_many_threads_are_all_obeyed_once() -> None:
    controls = Controls()
    tickets: list[object] = []
    taken: list[object] = []

    def give() -> None:
        for _ in range(7):
            tickets.append(controls.status())

    threads = [threading.Thread(target=give) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) or controls.pending:
        ticket = controls.take()
        if ticket is not None:
            ticket.answer(ControlReply(True, "here"))
            taken.append(ticket)
    assert len(taken) == len(set(map(id, taken))) == len(tickets) == 56


# The socket. --------------------------------------------------------------------------------------------------------


@pytest.fixture
def obeying(tmp_path: Path) -> Iterator[tuple[Path, list[Command], ControlServer]]:
    """A server, and a loop that obeys everything and remembers it."""
    controls, seen, over = Controls(), [], threading.Event()

    def loop() -> None:
        while not over.wait(0.001):
            while (ticket := controls.take()) is not None:
                seen.append(ticket.command)
                ticket.answer(ControlReply(True, "obeyed", "ACTIVE"))

    thread = threading.Thread(target=loop)
    thread.start()
    server = ControlServer(tmp_path, controls)
    yield tmp_path, seen, server
    server.close()
    over.set()
    thread.join()


Obeying = tuple[Path, list[Command], ControlServer]


def talk(folder: Path, sent: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(5.0)
        here = os.open(folder, os.O_RDONLY)
        try:
            caller.connect(f"/proc/self/fd/{here}/{SOCKET_NAME}")
        finally:
            os.close(here)
        caller.sendall(sent)
        caller.shutdown(socket.SHUT_WR)
        answer = b""
        while part := caller.recv(4_096):
            answer += part
        return answer


def test_a_command_arrives_whole_and_its_answer_comes_back(obeying: Obeying) -> None:
    folder, seen, _ = obeying
    command = Command("resume", "ann", "checked by hand", release=("kill_switch",))
    assert send_command(folder, command) == ControlReply(True, "obeyed", "ACTIVE")
    assert seen == [command]


def test_only_the_owner_may_open_the_socket(obeying: Obeying) -> None:
    folder, _, _ = obeying
    assert stat.S_IMODE((folder / SOCKET_NAME).stat().st_mode) == 0o600


def test_a_caller_who_is_not_the_owner_is_turned_away(obeying: Obeying, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, seen, server = obeying
    monkeypatch.setattr(control_socket.os, "geteuid", lambda: 12_345)
    monkeypatch.setattr(control_socket, "_ROOT", 54_321)
    reply = send_command(folder, Command("kill", "eve", "x"))
    assert not reply.ok
    assert "only the owner" in reply.message
    assert (seen, server.refused) == ([], 1)


@pytest.mark.parametrize(
    "sent",
    [
        b"\n",
        b"\x00\xff\xfe\n",
        b"kill\n",
        b"[]\n",
        b'{"verb":"kill"}\n',
        b'{"verb":"kill","operator":"ann","reason":"x","more":1}\n',
        b'{"verb":"budget","operator":"ann","reason":"x","usd":1e999}\n',
        b'{"verb":"budget","operator":"ann","reason":"x","usd":"1"}\n',
        b"{" * 4_000 + b"\n",
        b"x" * 20_000,
    ],
)
def test_what_is_no_command_goes_no_further(obeying: Obeying, sent: bytes) -> None:
    folder, seen, server = obeying
    try:
        answer = talk(folder, sent)
    except (ConnectionResetError, BrokenPipeError):
        answer = b""  # the server did not read to the end of what was too long
    if answer:
        assert msgspec.json.decode(answer, type=ControlReply).ok is False
    assert send_command(folder, Command("status")).ok
    assert seen == [Command("status")]
    assert server.refused == 1


def test_callers_who_say_nothing_do_not_keep_a_kill_out(obeying: Obeying, tmp_path: Path) -> None:
    folder, seen, _ = obeying
    silent = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(5)]
    for caller in silent:
        caller.connect(str(folder / SOCKET_NAME))
    assert send_command(folder, Command("kill", "ann", "x")).ok
    assert [command.verb for command in seen] == ["kill"]
    for caller in silent:
        caller.close()


def test_callers_for_whom_there_is_no_thread_are_told_to_come_again(obeying: Obeying) -> None:
    folder, seen, server = obeying
    silent = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(8)]
    for caller in silent:
        caller.connect(str(folder / SOCKET_NAME))
    reply = send_command(folder, Command("kill", "ann", "x"))
    assert (reply.ok, "try again" in reply.message, seen, server.refused) == (False, True, [], 1)
    for caller in silent:
        caller.close()


@pytest.mark.parametrize(("answered", "raised"), [(ControlReply(False, "not you"), False), (None, True)])
def test_an_answer_that_comes_before_the_command_is_out_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answered: ControlReply | None, raised: bool
) -> None:
    closed = threading.Event()

    def serve() -> None:
        caller, _ = listener.accept()
        with caller:
            if answered is not None:
                caller.sendall(msgspec.json.encode(answered) + b"\n")
        closed.set()

    @contextmanager
    def once_it_is_closed(path: Path) -> Iterator[str]:
        yield str(path)
        assert closed.wait(5.0)

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / SOCKET_NAME))
        listener.listen(1)
        thread = threading.Thread(target=serve)
        thread.start()
        monkeypatch.setattr(control_socket, "_short", once_it_is_closed)
        if raised:
            with pytest.raises(ConfigError, match="gave no answer"):
                send_command(tmp_path, Command("kill", "eve", "x"))
        else:
            assert send_command(tmp_path, Command("kill", "eve", "x")) == answered
        thread.join()


def test_the_socket_of_an_engine_that_died_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(tmp_path / SOCKET_NAME))
    server = ControlServer(tmp_path, Controls())
    server.close()
    assert not (tmp_path / SOCKET_NAME).exists()
    with pytest.raises(ConfigError, match="no engine listens there"):
        send_command(tmp_path, Command("status"))


def test_a_second_engine_in_the_same_folder_is_refused(obeying: Obeying) -> None:
    folder, _, _ = obeying
    with pytest.raises(ConfigError, match="another engine listens"):
        ControlServer(folder, Controls())


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("/dev/null")])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / SOCKET_NAME)
    with pytest.raises(ConfigError, match="in the way"):
        ControlServer(tmp_path, Controls())
    assert (tmp_path / SOCKET_NAME).exists()


def test_a_folder_with_a_long_name_has_a_socket_too(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    controls = Controls()
    server = ControlServer(folder, controls)
    controls.close("over")
    assert send_command(folder, Command("status")).message == "the run is over: over"
    server.close()
