"""Controls over a local socket in the run's directory: one JSON line asked, one JSON line answered.

Only the owner of the engine's process (or root) may speak: the socket's mode is 0600, and where the system says who is
calling, it is asked. Nothing that arrives can hurt the run: it is read on threads of its own, bounded in size, time and
number, and only a valid `Command` goes further.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from ami_engine.clock import perf_ns
from ami_engine.errors import ConfigError
from ami_engine.ops.controls import Command, ControlReply, Controls
from ami_engine.units import NS_PER_S

__all__ = ["SOCKET_NAME", "ControlServer", "has_control_sockets", "send_command"]

SOCKET_NAME = "control.sock"
_MOST_BYTES = 4_096
_MOST_CALLERS = 8
_ROOT = 0
_READ_S = 2.0
_ANSWER_S = 10.0
# A Unix socket's path has room for 107 bytes on Linux, 103 elsewhere.
_MOST_PATH_BYTES = 103


def has_control_sockets() -> bool:
    """Return whether this system has Unix sockets."""
    return hasattr(socket, "AF_UNIX")


class ControlServer:
    """Listens at ``<folder>/control.sock`` until `close`.

    Attributes
    ----------
    refused : int
        Callers turned away: not the owner, not a command, too many at once.

    Raises
    ------
    ConfigError
        When the system has no Unix sockets, or another process listens there.
    """

    def __init__(self, folder: Path, controls: Controls) -> None:
        self.path = folder / SOCKET_NAME
        self.refused = 0
        self._controls = controls
        self._slots = threading.BoundedSemaphore(_MOST_CALLERS)
        self._socket = _listen(self.path)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="ami-control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and remove the socket. Closing again does nothing."""
        if self._closed.is_set():
            return
        self._closed.set()
        # Closing alone does not wake the thread that waits in accept.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(timeout=1.0)
        self.path.unlink(missing_ok=True)

    def _serve(self) -> None:
        while not self._closed.is_set():
            try:
                caller, _ = self._socket.accept()
            except OSError:  # closed, or a caller that went away at once
                continue
            if not self._slots.acquire(blocking=False):
                self.refused += 1
                _turn_away(caller)
                continue
            try:
                threading.Thread(target=self._hear, args=(caller,), name="ami-control-call", daemon=True).start()
            except RuntimeError:  # no thread to be had: the caller may try again
                self._slots.release()
                _turn_away(caller)

    def _hear(self, caller: socket.socket) -> None:
        try:
            with caller:
                reply = self._reply_to(caller)
                caller.settimeout(_READ_S)
                caller.sendall(msgspec.json.encode(reply) + b"\n")
        except OSError:
            self.refused += 1  # went away, or said nothing in time
        finally:
            self._slots.release()

    def _reply_to(self, caller: socket.socket) -> ControlReply:
        if not _is_owner(caller):
            self.refused += 1
            return ControlReply(False, "only the owner of the engine's process may control it")
        try:
            command = msgspec.json.decode(_read_line(caller, _READ_S), type=Command)
        except (msgspec.MsgspecError, ConfigError, UnicodeDecodeError) as error:
            self.refused += 1
            return ControlReply(False, f"not a command: {error}")
        reply = self._controls.give(command).wait(_ANSWER_S)
        if reply is None:
            return ControlReply(False, f"not obeyed within {_ANSWER_S:g} s; it still waits for the loop's next step")
        return reply


def send_command(folder: Path, command: Command) -> ControlReply:
    """Give a command to the engine that runs in `folder`, and return its answer.

    Raises
    ------
    ConfigError
        When no engine listens there, or it gives no answer.
    """
    path = folder / SOCKET_NAME
    if not has_control_sockets():
        raise ConfigError("this system has no Unix sockets: use the Python API, `run_loop(controls=Controls())`")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(_READ_S)
        try:
            with _short(path) as name:
                caller.connect(name)
        except BlockingIOError as error:  # more callers wait than the system lets
            raise ConfigError(f"{path}: too many callers wait for the engine there: try again") from error
        except OSError as error:
            raise ConfigError(f"{path}: no engine listens there: {error.strerror or error}") from error
        try:
            # One who is turned away may be answered, and the line closed, before the command is out.
            with suppress(BrokenPipeError, ConnectionResetError):
                caller.sendall(msgspec.json.encode(command) + b"\n")
            return msgspec.json.decode(_read_line(caller, _ANSWER_S + _READ_S), type=ControlReply)
        except (OSError, msgspec.MsgspecError) as error:
            raise ConfigError(
                f"{path}: the engine gave no answer, `status` tells whether it obeyed: {error}"
            ) from error


def _listen(path: Path) -> socket.socket:
    if not has_control_sockets():
        raise ConfigError("`controls` over a socket needs Unix sockets, which this system does not have")
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(path) as name:
            listener.bind(name)
        # Nobody can connect before `listen`, so there is no moment at which another user could.
        path.chmod(stat.S_IRUSR | stat.S_IWUSR)
        listener.listen(_MOST_CALLERS)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"{path}: cannot listen, and `controls=False` runs without: {error.strerror or error}"
        ) from error
    return listener


def _turn_away(caller: socket.socket) -> None:
    """Tell a caller for whom there is no thread to come again, without waiting for one who does not listen."""
    busy = ControlReply(False, "the engine hears too many callers at once: try again")
    with caller, suppress(OSError):
        caller.setblocking(False)
        caller.sendall(msgspec.json.encode(busy) + b"\n")


def _remove_stale(path: Path) -> None:
    """Remove the socket of an engine that died; refuse when one still answers, or when it is something else."""
    if not path.exists() and not path.is_symlink():
        return
    if path.is_symlink() or not path.is_socket():
        raise ConfigError(f"{path}: is in the way of the control socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_READ_S)
        try:
            with _short(path) as name:
                probe.connect(name)
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise ConfigError(f"{path}: another engine listens there")


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Give a name of `path` that fits into a socket's address: through the open folder where it is too long."""
    name = str(path)
    if len(os.fsencode(name)) <= _MOST_PATH_BYTES:
        yield name
        return
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{handle}/{path.name}"
    finally:
        os.close(handle)


def _is_owner(caller: socket.socket) -> bool:
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:  # the socket's mode has to do
        return True
    layout = struct.Struct("3i")
    try:
        _, user, _ = layout.unpack(caller.getsockopt(socket.SOL_SOCKET, option, layout.size))
    except OSError:
        return False
    return user in (os.geteuid(), _ROOT)


def _read_line(caller: socket.socket, within_s: float) -> bytes:
    """Read one line within so much time in all, however slowly it comes; one that is too long is no line."""
    deadline_ns = perf_ns() + round(within_s * NS_PER_S)
    line = bytearray()
    while not line.endswith(b"\n") and len(line) <= _MOST_BYTES:
        caller.settimeout(max(1e-3, (deadline_ns - perf_ns()) / NS_PER_S))
        part = caller.recv(_MOST_BYTES + 1 - len(line))
        if not part:
            break
        line += part
        if perf_ns() > deadline_ns:
            raise TimeoutError("the line did not come in time")
    return bytes(line) if len(line) <= _MOST_BYTES else b""
