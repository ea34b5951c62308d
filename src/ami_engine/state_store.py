"""Durable state in one SQLite file: transactions, a versioned schema, one owner, and refusal rather than repair.

The file is written ahead (WAL). A transaction is there wholly or not at all, whatever is killed when. Nothing is ever
deleted to get a start going: a file that cannot be trusted is refused with the reason, and stays for a human to read.
"""

from __future__ import annotations

import ctypes
import os
import re
import sqlite3
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

import msgspec

from ami_engine.errors import ConfigError, StateError

__all__ = ["MIGRATIONS", "Durability", "StateStore"]

Durability = Literal["full", "normal", "off"]

_MEMORY = ":memory:"
# "AMIJ": tells our file from any other SQLite file.
_APPLICATION_ID = 0x414D494A
# Transactions after which the log is folded into the file once nothing is being sent, and after which it always is.
# One of the engine's writes some ten pages of 4 KiB.
_LOG_LONG = 100
_LOG_TOO_LONG = 1_000
# A reader (an operator's query) holds no lock that a writer waits for in WAL; a checkpoint of theirs may, for a moment.
_BUSY_S = 5.0

# The schema, a step a version. A released step is never edited: a change is a further step. -----------------------

_VERSION_1 = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE orders (
        client_order_id TEXT PRIMARY KEY, market_id TEXT NOT NULL, side TEXT NOT NULL, price REAL NOT NULL,
        qty REAL NOT NULL, size_usd REAL NOT NULL, post_only INTEGER NOT NULL, reduce_only INTEGER NOT NULL,
        tif TEXT NOT NULL, expires_ns INTEGER NOT NULL, step INTEGER NOT NULL, idem_key TEXT NOT NULL,
        ticks INTEGER NOT NULL, is_closing INTEGER NOT NULL, incarnation INTEGER NOT NULL, intended_ns INTEGER NOT NULL,
        status TEXT NOT NULL, request TEXT NOT NULL, is_ambiguous INTEGER NOT NULL, filled_qty REAL NOT NULL,
        avg_price REAL NOT NULL, venue_order_id TEXT NOT NULL, is_open INTEGER NOT NULL, updated_ns INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX orders_open ON orders (is_open, intended_ns)",
    """CREATE TABLE order_events (
        seq INTEGER PRIMARY KEY, client_order_id TEXT NOT NULL, kind TEXT NOT NULL, detail TEXT NOT NULL,
        ts_ns INTEGER NOT NULL
    )""",
    """CREATE TABLE fills (
        seq INTEGER PRIMARY KEY, market_id TEXT NOT NULL, trade_id TEXT NOT NULL, client_order_id TEXT NOT NULL,
        side TEXT NOT NULL, price REAL NOT NULL, qty REAL NOT NULL, fee REAL NOT NULL, fee_currency TEXT NOT NULL,
        liquidity TEXT NOT NULL, ts_ns INTEGER NOT NULL, heard_ns INTEGER NOT NULL, is_refused INTEGER NOT NULL,
        UNIQUE (market_id, trade_id, client_order_id)
    )""",
    "CREATE TABLE positions (market_id TEXT PRIMARY KEY, qty TEXT NOT NULL, opening_qty TEXT) WITHOUT ROWID",
    """CREATE TABLE latches (
        name TEXT PRIMARY KEY, since_ns INTEGER NOT NULL, reason TEXT NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE checkpoints (
        name TEXT PRIMARY KEY, step INTEGER NOT NULL, ts_ns INTEGER NOT NULL, data BLOB NOT NULL
    ) WITHOUT ROWID""",
)
_VERSION_2 = (
    """CREATE TABLE postings (
        seq INTEGER PRIMARY KEY, tx TEXT NOT NULL, account TEXT NOT NULL, currency TEXT NOT NULL, amount TEXT NOT NULL,
        kind TEXT NOT NULL, ts_ns INTEGER NOT NULL
    )""",
    "CREATE INDEX postings_tx ON postings (tx)",
    "CREATE INDEX fills_order ON fills (client_order_id)",
    "CREATE INDEX fills_time ON fills (ts_ns)",
)

# One row: the sum of the digests of all rows of all other tables, written with every transaction.
_VERSION_3 = ("CREATE TABLE seal (number INTEGER PRIMARY KEY, digest INTEGER NOT NULL)",)

# Digests that take a fifth of the time, and a checkpoint in one page: without a rowid a row of a quarter of a page lies
# in pages of its own, which every change gives back and takes anew.
_VERSION_4 = (
    "CREATE TEMP TABLE kept AS SELECT * FROM main.checkpoints",
    "DROP TABLE main.checkpoints",
    """CREATE TABLE checkpoints (
        name TEXT PRIMARY KEY NOT NULL, step INTEGER NOT NULL, ts_ns INTEGER NOT NULL, data BLOB NOT NULL
    )""",
    "INSERT INTO checkpoints SELECT * FROM temp.kept",
    "DROP TABLE temp.kept",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4)
"""The statements that lead from each schema version to the next; the version is how many were run."""

_SEAL = "seal"
# What the seal is over: a table that somebody makes beside them is no business of it.
_SEALED_TABLES = frozenset(re.findall(r"CREATE TABLE (\w+)", ";".join(map("".join, MIGRATIONS)))) - {_SEAL}
_SEALED_SINCE = 3
_PACKED_SINCE = 4
_DIGEST_BYTES = 7
_DIGESTS = 1 << 8 * _DIGEST_BYTES
_pack, _number = msgspec.msgpack.Encoder().encode, int.from_bytes

_SYNCHRONOUS = {"full": "FULL", "normal": "NORMAL", "off": "OFF"}


class StateStore:
    """An SQLite file that one process owns.

    Parameters
    ----------
    path : str or Path
        The file; made when absent, readable by its owner only. ":memory:" keeps nothing.
    durability : {"full", "normal", "off"}
        What a commit survives. "full": a power cut. "normal" and "off": a crash of the process; after a power cut the
        last transactions may be missing ("normal") or the file be damaged ("off").
    fault : callable or None
        Called with the name of a point before and after each commit (``store.commit.before``, ``store.commit.after``):
        tests raise there to see what a crash leaves.

    Attributes
    ----------
    transactions : int
        How many were committed since the file was opened.
    failure : str
        Why the store does not write any more, empty while all is well. After a failed write it is not known what the
        disk holds: only opening the file anew tells.

    Raises
    ------
    ConfigError
        When `durability` is none of the three, or another process (the message names it) owns the file.
    StateError
        When the file is damaged, no state store, of a newer version, or cannot be written. It is left as it is.

    Notes
    -----
    A forked child must not use the store; it raises there. The lock lies in ``<path>.lock``, beside the file: not on a
    network file system that does not pass on locks.

    Examples
    --------
    >>> store = StateStore(":memory:")
    >>> with store.transaction():
    ...     _ = store.execute("INSERT INTO meta VALUES (?, ?)", ("run_id", "r1"))
    >>> store.query("SELECT value FROM meta"), store.transactions
    ([('r1',)], 1)
    """

    def __init__(
        self,
        path: str | Path,
        *,
        durability: Durability = "full",
        fault: Callable[[str], None] | None = None,
    ) -> None:
        if durability not in _SYNCHRONOUS:
            raise ConfigError(f"`durability` must be 'full', 'normal' or 'off', was {durability!r}")
        self.path = str(path)
        self.durability: Durability = durability
        self.fault = fault
        self.transactions = 0
        self.failure = ""
        self._pid = os.getpid()
        self._lock_fd = -1
        self._depth = 0
        self._is_doomed = False
        self._is_synced = durability == "full"
        self._in_log = 0
        self._digest = self._sealed_digest = 0
        self._connection: sqlite3.Connection | None = None
        if self.path != _MEMORY:
            self.path = str(Path(path).resolve())
            self._lock_fd = _own(self.path)
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        _OPEN.add(self)

    # Transactions. ------------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self, *, sync: bool = True) -> Iterator[StateStore]:
        """Do everything inside wholly or not at all; inside another transaction, as a part of it.

        `sync=False` leaves it to a later commit to force this one to the disk, where `durability` is "full": for what
        can be asked of the venue again. An exception rolls back.

        Raises
        ------
        StateError
            When it could not be written. The store then refuses every further one.
        """
        self._check()
        if self._depth:
            self._depth += 1
            try:
                yield self
            except BaseException:
                self._is_doomed = True  # whoever catches it outside: half of a transaction is not committed
                raise
            finally:
                self._depth -= 1
            return
        if self.durability == "full" and sync is not self._is_synced:
            self._run("PRAGMA synchronous=FULL" if sync else "PRAGMA synchronous=NORMAL")
            self._is_synced = sync
        self._do("BEGIN IMMEDIATE")
        self._depth = 1
        try:
            yield self
            if self._is_doomed or self.failure:
                raise StateError(f"{self.path}: a part of the transaction failed, so that none of it is written")
            self._seal()
            if self.fault is not None:
                self.fault("store.commit.before")
            self._do("COMMIT")
            self._sealed_digest = self._digest
            self.transactions += 1
            self._in_log += 1
        except BaseException:
            self._roll_back()
            self._digest = self._sealed_digest
            raise
        finally:
            self._depth = 0
            self._is_doomed = False
        if self.fault is not None:
            self.fault("store.commit.after")
        if self._in_log >= _LOG_TOO_LONG:
            self.fold_log()

    @property
    def is_log_long(self) -> bool:
        """True when the log has grown so long that it is to be folded into the file, in a moment when nothing waits."""
        return self._in_log >= _LOG_LONG

    def fold_log(self) -> None:
        """Bring the file up to the log, which begins anew then; what a reader still needs of it stays.

        It costs two syncs, unless `durability` is "off": never between a decision and its orders.

        Raises
        ------
        StateError
            When it could not be written. The store then refuses every transaction.
        """
        self._check()
        self._run("PRAGMA wal_checkpoint(PASSIVE)")
        self._in_log = 0

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement inside a transaction; return how many rows it changed.

        Raises
        ------
        StateError
            When it fails, or no transaction is open.
        """
        if not self._depth:
            raise StateError(f"{self.path}: a write needs a transaction")
        return self._run(statement, parameters)[1]

    def execute_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement inside a transaction for each row of parameters, in their order.

        Raises
        ------
        StateError
            When it fails, or no transaction is open.
        """
        if not self._depth or self._connection is None:
            raise StateError(f"{self.path}: a write needs a transaction")
        try:
            self._connection.executemany(statement, rows)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def query(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a SELECT."""
        self._check_owner()
        return self._run(statement, parameters)[0]

    def close(self) -> None:
        """Close the file and give up the lock. May be called more than once; in a forked child it does nothing."""
        if os.getpid() != self._pid:
            return
        _OPEN.discard(self)
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._lock_fd >= 0:
            os.close(self._lock_fd)  # which releases the lock
            self._lock_fd = -1

    # Opening. -----------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        is_file = self.path != _MEMORY
        # SQLite fills up a last page that is cut short with zeros, and reads on. It may be short after a crash, when
        # the log still holds it; without a log something was taken away.
        size = _size(self.path) if is_file and not _size(self.path + "-wal") else 0
        if is_file:
            try:
                # Positions and orders are nobody else's business.
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            except OSError as error:
                raise StateError(f"{self.path}: cannot be opened: {error.strerror}") from error
        try:
            # A URI would give "?" and "%" in a file's name a meaning.
            self._connection = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None)
        except sqlite3.Error as error:
            raise StateError(f"{self.path}: cannot be opened: {error}") from error
        version = int(self._scalar("PRAGMA user_version"))
        is_new = int(self._scalar("SELECT count(*) FROM sqlite_master")) == 0 and version == 0
        if not is_new and int(self._scalar("PRAGMA application_id")) != _APPLICATION_ID:
            raise StateError(f"{self.path}: is an SQLite file of something else, not a state store")
        if version > len(MIGRATIONS):
            raise StateError(
                f"{self.path}: is of schema version {version}, this engine knows {len(MIGRATIONS)}: use a newer engine"
            )
        found = self._scalar("PRAGMA quick_check(1)")
        if size % int(self._scalar("PRAGMA page_size")):
            found = "its end is missing"
        if found != "ok":
            raise StateError(f"{self.path}: is damaged, and is left as it is: {found}")
        if is_file:
            mode = self._scalar("PRAGMA journal_mode=WAL")
            if mode != "wal":
                raise StateError(f"{self.path}: cannot be written ahead (journal mode is {mode!r}) on this file system")
        # SQLite would fold the log in whatever commit makes it long, such as the one that an order waits for.
        self._run("PRAGMA wal_autocheckpoint=0")
        self._run("PRAGMA recursive_triggers=ON")  # else a row that INSERT OR REPLACE takes away is not heard of
        self._run(f"PRAGMA synchronous={_SYNCHRONOUS[self.durability]}")
        if self.durability == "full":
            self._run("PRAGMA fullfsync=ON")  # macOS: fsync alone stops at the drive's cache
        if version >= _SEALED_SINCE:
            self._check_seal(version)
        self._migrate(version)
        self._watch()

    # The seal: SQLite's pages carry no checksums, and one that is half of yesterday often reads well. ---------------

    def _tables(self) -> list[tuple[str, str]]:
        """Return the tables under the seal, the store's own, as far as they are there: name, and what made it."""
        found = self.query("SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY name")
        return [(name, made_by) for name, made_by in found if name in _SEALED_TABLES]

    def _digest_of_all(self, version: int) -> int:
        """Return the sum of the digests of all rows, read one by one, as a schema version has them."""
        assert self._connection is not None
        digest_of = _digest_of if version >= _PACKED_SINCE else _digest_of_text
        total = 0
        try:
            for table, _ in self._tables():
                total += sum(map(digest_of, self._connection.execute(f"SELECT '{table}', * FROM {table}")))
        except sqlite3.Error as error:
            self.failure = f"{self.path}: {_meaning(error)}"
            raise StateError(self.failure) from error
        return total % _DIGESTS

    def _check_seal(self, version: int) -> None:
        self._digest = self._sealed_digest = self._digest_of_all(version)
        if self.query("SELECT digest FROM seal") != [(self._digest,)]:
            raise StateError(
                f"{self.path}: is damaged, and is left as it is: its rows are not those that were written last"
            )

    def _watch(self) -> None:
        """Hear of every row that changes."""
        assert self._connection is not None
        for verb, note in (
            ("INSERT", self._note_insert),
            ("DELETE", self._note_delete),
            ("UPDATE", self._note_update),
        ):
            self._connection.create_function(f"ami_{verb}", -1, note)
        self._do("BEGIN")  # one transaction, for two dozen triggers
        for table in self._tables():
            if table not in _WATCHERS:
                _WATCHERS[table] = _watchers(table[0], self.query(f"PRAGMA table_info({table[0]})"))
            for statement in _WATCHERS[table]:
                self._do(statement)
        self._do("COMMIT")

    def _note_insert(self, *row: Any) -> None:
        self._digest += _digest_of(row)

    def _note_delete(self, *row: Any) -> None:
        self._digest -= _digest_of(row)

    def _note_update(self, *rows: Any) -> None:
        half = len(rows) // 2  # the row as it was, and as it is
        self._digest += _digest_of(rows[half:]) - _digest_of(rows[:half])

    def _seal(self) -> None:
        self._digest %= _DIGESTS
        if self._digest != self._sealed_digest:
            self._do(
                "INSERT INTO seal VALUES (1, ?) ON CONFLICT (number) DO UPDATE SET digest = excluded.digest",
                (self._digest,),
            )

    def _migrate(self, version: int) -> None:
        now = len(MIGRATIONS)
        if version == now:
            return
        with self.transaction():
            if version == 0:
                self.execute(f"PRAGMA application_id={_APPLICATION_ID}")
            for statement in chain.from_iterable(MIGRATIONS[version:]):
                self.execute(statement)
            self.execute(f"PRAGMA user_version={now}")
            self._digest = self._digest_of_all(now)
            self._sealed_digest = -1
        self.transactions = 0

    def _scalar(self, statement: str) -> Any:
        return self._run(statement)[0][0][0]

    # Trouble. -----------------------------------------------------------------------------------------------------

    def _run(self, statement: str, parameters: Sequence[Any] = ()) -> tuple[list[tuple[Any, ...]], int]:
        """Run a statement to its end; return its rows, and how many it changed."""
        if self._connection is None:
            raise StateError(f"{self.path}: is closed")
        try:
            cursor = self._connection.execute(statement, parameters)
            # Rows are read here: a disk may fail at any of them.
            return cursor.fetchall(), cursor.rowcount
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _do(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement that has no rows."""
        if self._connection is None:
            raise StateError(f"{self.path}: is closed")
        try:
            self._connection.execute(statement, parameters)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: sqlite3.Error) -> StateError:
        # Invariant: nothing is written after a write failed. A disk that lost a sync may have lost older pages too, and
        # answers the next sync with success all the same.
        self.failure = self.failure or f"{self.path}: {_meaning(error)}"
        return StateError(self.failure)

    def _roll_back(self) -> None:
        try:
            if self._connection is not None and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            self.failure = self.failure or f"{self.path}: {_meaning(error)}"

    def _check(self) -> None:
        self._check_owner()
        if self.failure:
            raise StateError(self.failure)

    def _check_owner(self) -> None:
        if os.getpid() != self._pid:
            raise StateError(f"{self.path}: belongs to process {self._pid}: a forked child must open a file of its own")


# The triggers of each table, by its name and what made it: stores of one schema share them.
_WATCHERS: dict[tuple[str, str], list[str]] = {}


def _watchers(table: str, columns: Sequence[tuple[Any, ...]]) -> list[str]:
    """Return the statements that make a table tell of every row that changes."""
    # A REAL column gives 2.0 back for 2, and 0.0 for -0.0.
    values = [f"{name} + 0.0" if kind == "REAL" else name for _, name, kind, *_ in columns]
    old, new = (f"'{table}', " + ", ".join(f"{row}.{value}" for value in values) for row in ("old", "new"))
    return [
        f"CREATE TEMP TRIGGER seal_{table}_{verb} AFTER {verb} ON main.{table} BEGIN SELECT ami_{verb}({rows}); END"
        for verb, rows in (("INSERT", new), ("DELETE", old), ("UPDATE", f"{old}, {new}"))
    ]


def _digest_of(row: Sequence[Any]) -> int:
    """Return the digest of a row that begins with its table's name. MessagePack has one way to write it."""
    return _number(blake2b(_pack(row), digest_size=_DIGEST_BYTES).digest(), "big")


def _digest_of_text(row: Sequence[Any]) -> int:
    """Return it as files of version 3 have it."""
    text = f"{row[0]}{[_plain(value) for value in row[1:]]!r}"
    return _number(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest(), "big")


def _plain(value: Any) -> Any:
    if type(value) is float and value.is_integer():
        return int(value)
    return (len(value), crc32(value)) if type(value) is bytes else value


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0  # there is none; one that cannot be read fails where it is opened


def _meaning(error: sqlite3.Error) -> str:
    """Say what an error of SQLite is to an operator."""
    text = str(error)
    code = getattr(error, "sqlite_errorname", "")
    if "FULL" in code:
        return f"the disk is full ({text})"
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return f"is damaged, and is left as it is ({text})"
    if code.startswith("SQLITE_IOERR"):
        return f"the disk failed ({text}, {code})"
    if code.startswith("SQLITE_READONLY"):
        return f"cannot be written ({text})"
    return f"{text} ({code})" if code else text


# One owner. -------------------------------------------------------------------------------------------------------


def _own(path: str) -> int:
    """Take the lock beside `path` and return its descriptor: the lock goes when that closes, however a process ends.

    Raises
    ------
    ConfigError
        When somebody has it.
    """
    lock_path = path + ".lock"
    try:
        fd = os.open(lock_path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StateError(f"{lock_path}: cannot be opened: {error.strerror}") from error
    if not _try_lock(fd):
        holder = os.read(fd, 32).decode("ascii", "replace").strip()
        os.close(fd)
        who = f"process {holder}" if holder else "another process"
        who = "this process already" if holder == str(os.getpid()) else who
        raise ConfigError(f"{path}: is in use by {who}: two engines must not share one journal")
    try:
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
    except OSError:
        # A full disk: the lock holds without the note of who has it.
        return fd
    return fd


if sys.platform == "win32":
    import msvcrt

    # The first byte holds the note; Windows locks are of byte ranges, so that one far behind it is taken.
    _LOCKED_BYTE = 1 << 20

    def _try_lock(fd: int) -> bool:
        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(fd, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


# Forks. -----------------------------------------------------------------------------------------------------------

_OPEN: weakref.WeakSet[StateStore] = weakref.WeakSet()


def _keep_open_in_child() -> None:
    """Make the child's copies of open connections immortal: closing one there would write to the parent's file.

    Its copies of the locks go: a child that outlives its parent must not keep the next engine out.
    """
    for store in _OPEN:
        if store._connection is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(store._connection))
        if store._lock_fd >= 0:
            os.close(store._lock_fd)
            store._lock_fd = -1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_open_in_child)
