"""The state store: one owner, whole transactions, refusal of what cannot be trusted."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ami_engine.errors import ConfigError, StateError
from ami_engine.state_store import MIGRATIONS, StateStore


def put(store: StateStore, key: str, value: str = "v") -> None:
    with store.transaction():
        store.execute("INSERT INTO meta VALUES (?, ?)", (key, value))


def keys(store: StateStore) -> list[str]:
    return [key for (key,) in store.query("SELECT key FROM meta ORDER BY key")]


def test_what_was_committed_is_there_again(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "s.sqlite")
    put(store, "a")
    store.close()
    store.close()
    again = StateStore(tmp_path / "s.sqlite")
    assert keys(again) == ["a"]
    assert again.transactions == 0
    again.close()


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "s.sqlite")
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("s.sqlite", "s.sqlite.lock", "s.sqlite-wal")]
    store.close()
    assert modes == [0o600] * 3


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = StateStore(":memory:")
    with pytest.raises(KeyError), store.transaction():  # noqa: PT012
        store.execute("INSERT INTO meta VALUES ('a', 'v')")
        raise KeyError
    assert keys(store) == []
    put(store, "b")
    assert (keys(store), store.transactions) == (["b"], 1)


def test_a_part_that_failed_takes_the_whole_with_it(tmp_path: Path) -> None:
    store = StateStore(":memory:")
    with pytest.raises(StateError, match="none of it is written"), store.transaction():  # noqa: PT012
        store.execute("INSERT INTO meta VALUES ('a', 'v')")
        try:
            with store.transaction():
                raise KeyError
        except KeyError:
            pass
    assert keys(store) == []


def test_parts_of_a_transaction_are_one_commit() -> None:
    store = StateStore(":memory:")
    with store.transaction(), store.transaction():
        store.execute("INSERT INTO meta VALUES ('a', 'v')")
    assert store.transactions == 1


def test_a_write_needs_a_transaction() -> None:
    with pytest.raises(StateError, match="needs a transaction"):
        StateStore(":memory:").execute("INSERT INTO meta VALUES ('a', 'v')")


def test_after_a_failed_write_nothing_more_is_written() -> None:
    store = StateStore(":memory:")
    with pytest.raises(StateError), store.transaction():
        store.execute("INSERT INTO nowhere VALUES (1)")
    assert "nowhere" in store.failure
    with pytest.raises(StateError, match="nowhere"), store.transaction():
        raise AssertionError("not reached")


def test_a_closed_store_says_so() -> None:
    store = StateStore(":memory:")
    store.close()
    with pytest.raises(StateError, match="is closed"):
        keys(store)


def test_an_unknown_durability_is_refused() -> None:
    with pytest.raises(ConfigError, match="`durability` must be 'full', 'normal' or 'off', was 'some'"):
        StateStore(":memory:", durability="some")  # type: ignore[arg-type]


@pytest.mark.parametrize(("durability", "levels"), [("full", [1, 2, 2]), ("normal", [1, 1, 1]), ("off", [0, 0, 0])])
def test_only_what_asks_for_it_is_forced_to_the_disk(tmp_path: Path, durability: Any, levels: list[int]) -> None:
    store = StateStore(tmp_path / "s.sqlite", durability=durability)
    found = []
    for sync in (False, True, True):
        with store.transaction(sync=sync):
            found.append(store.query("PRAGMA synchronous")[0][0])
    store.close()
    assert found == levels


# One owner. -------------------------------------------------------------------------------------------------------


def test_a_second_opener_is_refused(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "s.sqlite")
    with pytest.raises(ConfigError, match="is in use by this process already"):
        StateStore(tmp_path / "s.sqlite")
    store.close()
    StateStore(tmp_path / "s.sqlite").close()


def test_another_name_of_the_file_is_the_same_file(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "s.sqlite")
    (tmp_path / "other").symlink_to(tmp_path / "s.sqlite")
    with pytest.raises(ConfigError, match="is in use"):
        StateStore(tmp_path / "other")
    store.close()


def test_another_process_is_refused_and_the_owner_named(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "s.sqlite")
    code = f"from ami_engine.state_store import StateStore; StateStore({str(tmp_path / 's.sqlite')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    store.close()
    assert done.returncode == 1
    assert f"is in use by process {os.getpid()}" in done.stderr


def test_the_lock_goes_with_a_killed_process(tmp_path: Path) -> None:
    code = (
        "import os, signal; from ami_engine.state_store import StateStore;"
        f"s = StateStore({str(tmp_path / 's.sqlite')!r});\n"
        "with s.transaction(): s.execute(\"INSERT INTO meta VALUES ('a', 'v')\")\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    store = StateStore(tmp_path / "s.sqlite")
    assert keys(store) == ["a"]
    store.close()


def _touch(store: StateStore, say: Any) -> None:
    found = []
    for touch in (lambda: put(store, "child"), lambda: keys(store), store.close):
        try:
            touch()
        except StateError as error:
            found.append(str(error))
    say.send(found)


def test_a_forked_child_cannot_touch_it_and_the_parent_goes_on(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "s.sqlite")
    put(store, "a")
    context = multiprocessing.get_context("fork")
    hear, say = context.Pipe()
    child = context.Process(target=_touch, args=(store, say))
    child.start()
    found = hear.recv()
    child.join()
    assert len(found) == 2
    assert all(f"belongs to process {os.getpid()}" in text for text in found)
    put(store, "b")
    with pytest.raises(ConfigError, match="is in use"):
        StateStore(tmp_path / "s.sqlite")
    store.close()
    again = StateStore(tmp_path / "s.sqlite")
    assert keys(again) == ["a", "b"]
    again.close()


def test_a_child_that_outlives_its_parent_does_not_keep_the_lock(tmp_path: Path) -> None:
    path = str(tmp_path / "s.sqlite")
    code = (
        "import os, sys, time; from ami_engine.state_store import StateStore\n"
        f"s = StateStore({path!r})\n"
        "pid = os.fork()\n"
        "if pid == 0:\n    os.close(1)\n    time.sleep(30)\n    os._exit(0)\n"
        "print(pid, flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    child = int(done.stdout)
    try:
        StateStore(path).close()
    finally:
        os.kill(child, 9)


# Files that are not to be trusted. --------------------------------------------------------------------------------


def test_a_file_of_something_else_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(StateError, match="of something else"):
        StateStore(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    path.write_bytes(b"orders: none\n" * 100)
    with pytest.raises(StateError, match="is damaged, and is left as it is"):
        StateStore(path)
    assert path.read_bytes() == b"orders: none\n" * 100


def test_a_damaged_page_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    store = StateStore(path, durability="off")
    for number in range(500):
        put(store, f"key-{number:04}", "x" * 50)
    store.close()
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 2, len(data), 97):
        data[at] ^= 0xA5
    path.write_bytes(bytes(data))
    with pytest.raises(StateError, match="is damaged, and is left as it is"):
        StateStore(path)
    assert path.read_bytes() == bytes(data)


def _journal_pages(path: Path, runs: int) -> list[bytes]:
    """Return the file of a journal after each of so many lives, in which orders came and went."""
    from ami_engine.events import Fill, Side, SubmitOrder
    from ami_engine.execution.journal import Intent, Journal
    from ami_engine.execution.order_state import Order, Trigger

    pages = []
    for life in range(runs):
        journal = Journal(StateStore(path, durability="off"), run_id="r1")
        for kept in journal.state.orders[::2]:
            journal.note(kept.order.after(Trigger.CANCEL_SENT).after(Trigger.CANCELED), "canceled", life)
        for number in range(40):
            name = f"order-{life:02}-{number:02}"
            request = SubmitOrder(client_order_id=name, market_id="X", side=Side.BUY, price=9.5, qty=2.0)
            journal.intend([Intent(request, step=journal.next_step)], now_ns=life)
            journal.note(
                Order.from_submit(request).after(Trigger.SUBMIT_SENT).after(Trigger.ACCEPTED), "accepted", life
            )
            if number % 4 == 0:
                fill = Fill(
                    trade_id=f"t{name}",
                    client_order_id=name,
                    market_id="X",
                    side=Side.BUY,
                    price=9.5,
                    qty=0.5,
                    ts_ns=life,
                )
                journal.fill(fill, life)
        journal.checkpoint("account", b"%d" % life, life)
        journal.close()
        pages.append(path.read_bytes())
    return pages


def test_a_page_that_is_half_of_an_older_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    *olds, new = _journal_pages(path, 4)
    whole = _rows(path)
    refused = unseen = 0
    for old in olds:
        for start in range(0, len(old), 4096):
            for cut in (0, 512, 2048, 3584):  # sectors: at 0 the whole page was not written
                torn = new[:start] + new[start : start + cut] + old[start + cut : start + 4096] + new[start + 4096 :]
                if torn == new:
                    continue
                path.write_bytes(torn)
                try:
                    StateStore(path, durability="off").close()
                except StateError:
                    refused += 1
                    assert path.read_bytes() == torn
                else:
                    # What differs is no part of any row: free bytes of a page.
                    assert _rows(path) == whole
                    unseen += 1
    assert refused > 100
    assert unseen < refused / 4


def _rows(path: Path) -> dict[str, list[tuple[object, ...]]]:
    raw = sqlite3.connect(path)
    names = [name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = {name: raw.execute(f"SELECT * FROM {name}").fetchall() for name in names}
    raw.close()
    return found


def test_a_digit_that_changed_in_a_row_is_found(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    (data,) = _journal_pages(path, 1)
    at = data.index(b"order-00-07")
    path.write_bytes(data[:at] + b"order-00-97" + data[at + 11 :])
    with pytest.raises(StateError, match="damaged"):
        StateStore(path)


def _fail(point: str) -> None:
    raise ZeroDivisionError(point)


def test_the_seal_holds_whatever_is_written(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    values = [0, 1, -3, 2**62, 0.1, 2.0, -0.0, 1e300, float("inf"), "", "2", "ä\u2028'\"", b"", b"\x00\xff", None]
    store = StateStore(path, durability="off")
    for number, value in enumerate(values):
        with store.transaction():
            store.execute("INSERT INTO checkpoints VALUES (?, ?, ?, ?)", (f"n{number}", 1, 2, value or b""))
            row = ("X", f"t{number}", "a", "BUY", 1, 2, number, "", "MAKER", 3, 4, 0)
            names = (
                "market_id, trade_id, client_order_id, side, price, qty, fee, fee_currency, liquidity, ts_ns, heard_ns"
            )
            for verb in ("INSERT", "INSERT OR IGNORE"):
                store.execute(f"{verb} INTO fills ({names}, is_refused) VALUES ({', '.join('?' * 12)})", row)
            if isinstance(value, float):
                store.execute("UPDATE fills SET price = ? WHERE trade_id = ?", (value, f"t{number}"))
    store.fault = _fail
    with pytest.raises(ZeroDivisionError), store.transaction():
        store.execute("DELETE FROM fills")
    store.fault = None
    with store.transaction():
        store.execute("DELETE FROM checkpoints WHERE name = 'n3'")
    rows = store.query("SELECT * FROM fills")
    store.close()
    again = StateStore(path, durability="off")
    assert again.query("SELECT * FROM fills") == rows
    assert len(rows) == len(values)
    again.close()


def test_a_torn_tail_of_the_log_loses_that_transaction_only(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    store = StateStore(path, durability="off")
    put(store, "a")
    first = (path.read_bytes(), (tmp_path / "s.sqlite-wal").read_bytes())
    put(store, "b")
    whole = (tmp_path / "s.sqlite-wal").read_bytes()
    store.close()
    assert len(whole) > len(first[1])
    for cut in range(len(first[1]), len(whole), 1021):
        other = tmp_path / f"cut-{cut}" / "s.sqlite"
        other.parent.mkdir()
        other.write_bytes(first[0])
        other.with_name("s.sqlite-wal").write_bytes(whole[:cut])
        torn = StateStore(other, durability="off")
        assert keys(torn) == ["a"], cut
        torn.close()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"nowhere.*No such file"):
        StateStore(tmp_path / "nowhere" / "s.sqlite")


# Versions. --------------------------------------------------------------------------------------------------------


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    StateStore(path).close()
    raw = sqlite3.connect(path)
    raw.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    raw.close()
    with pytest.raises(StateError, match=f"this engine knows {len(MIGRATIONS)}: use a newer engine"):
        StateStore(path)


# A file as version 1 of the schema made it: written by hand once, and not to be changed with the code.
_VERSION_1_FILE = """
PRAGMA application_id = 1095584074;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE orders (
    client_order_id TEXT PRIMARY KEY, market_id TEXT NOT NULL, side TEXT NOT NULL, price REAL NOT NULL,
    qty REAL NOT NULL, size_usd REAL NOT NULL, post_only INTEGER NOT NULL, reduce_only INTEGER NOT NULL,
    tif TEXT NOT NULL, expires_ns INTEGER NOT NULL, step INTEGER NOT NULL, idem_key TEXT NOT NULL,
    ticks INTEGER NOT NULL, is_closing INTEGER NOT NULL, incarnation INTEGER NOT NULL, intended_ns INTEGER NOT NULL,
    status TEXT NOT NULL, request TEXT NOT NULL, is_ambiguous INTEGER NOT NULL, filled_qty REAL NOT NULL,
    avg_price REAL NOT NULL, venue_order_id TEXT NOT NULL, is_open INTEGER NOT NULL, updated_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX orders_open ON orders (is_open, intended_ns);
CREATE TABLE order_events (
    seq INTEGER PRIMARY KEY, client_order_id TEXT NOT NULL, kind TEXT NOT NULL, detail TEXT NOT NULL,
    ts_ns INTEGER NOT NULL
);
CREATE TABLE fills (
    seq INTEGER PRIMARY KEY, market_id TEXT NOT NULL, trade_id TEXT NOT NULL, client_order_id TEXT NOT NULL,
    side TEXT NOT NULL, price REAL NOT NULL, qty REAL NOT NULL, fee REAL NOT NULL, fee_currency TEXT NOT NULL,
    liquidity TEXT NOT NULL, ts_ns INTEGER NOT NULL, heard_ns INTEGER NOT NULL, is_refused INTEGER NOT NULL,
    UNIQUE (market_id, trade_id, client_order_id)
);
CREATE TABLE positions (market_id TEXT PRIMARY KEY, qty TEXT NOT NULL, opening_qty TEXT) WITHOUT ROWID;
CREATE TABLE latches (name TEXT PRIMARY KEY, since_ns INTEGER NOT NULL, reason TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE checkpoints (
    name TEXT PRIMARY KEY, step INTEGER NOT NULL, ts_ns INTEGER NOT NULL, data BLOB NOT NULL
) WITHOUT ROWID;
INSERT INTO meta VALUES ('run_id', 'old'), ('salt', '@7'), ('next_step', '12'), ('incarnation', '3');
INSERT INTO orders VALUES ('a', 'X', 'BUY', 9.5, 2.0, 19.0, 1, 0, 'GTC', 0, 11, '0', 950, 0, 3, 5,
    'PARTIALLY_FILLED', 'NONE', 0, 0.5, 9.5, 'v1', 1, 6);
INSERT INTO fills VALUES (1, 'X', 't1', 'a', 'BUY', 9.5, 0.5, 0.01, '', 'MAKER', 6, 6, 0);
INSERT INTO positions VALUES ('X', '0.5', '0');
INSERT INTO latches VALUES ('kill_switch', 4, 'by hand');
PRAGMA user_version = 1;
"""


def test_a_file_of_version_1_is_brought_up_and_keeps_all(tmp_path: Path) -> None:
    from ami_engine.execution.journal import Journal

    path = tmp_path / "s.sqlite"
    raw = sqlite3.connect(path)
    raw.executescript(_VERSION_1_FILE)
    raw.close()
    store = StateStore(path)
    assert store.query("PRAGMA user_version") == [(len(MIGRATIONS),)]
    assert store.query("SELECT count(*) FROM postings") == [(0,)]
    journal = Journal(store)
    assert (journal.id_seed, journal.next_step, journal.incarnation) == ("old@7", 12, 4)
    assert [(kept.order.filled_qty, kept.trade_ids) for kept in journal.state.orders] == [(0.5, ("t1",))]
    assert journal.latches() == [("kill_switch", 4, "by hand")]
    fresh = StateStore(tmp_path / "fresh.sqlite")
    schema = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    plain = [(name, " ".join(sql.split()).replace("( ", "(").replace(" )", ")")) for name, sql in store.query(schema)]
    anew = [(name, " ".join(sql.split()).replace("( ", "(").replace(" )", ")")) for name, sql in fresh.query(schema)]
    assert plain == anew
    store.close()
    fresh.close()


def _file_of_version_3(path: Path, seal: int) -> None:
    raw = sqlite3.connect(path)
    for statement in itertools.chain(*MIGRATIONS[:3]):
        raw.execute(statement)
    raw.executescript(f"""
        INSERT INTO meta VALUES ('run_id', 'old');
        INSERT INTO orders VALUES ('a', 'X', 'BUY', 9.5, 2.0, 19.0, 1, 0, 'GTC', 0, 11, '0', 950, 0, 3, 5,
            'NEW', 'NONE', 0, 0.0, 0.0, 'v1', 1, 6);
        INSERT INTO checkpoints VALUES ('risk:X', 4, 5, x'00ff10');
        INSERT INTO seal VALUES (1, {seal});
        PRAGMA application_id = {0x414D494A};
        PRAGMA user_version = 3;
    """)
    raw.close()


# What an engine wrote whose schema was of version 3.
_SEAL_OF_VERSION_3 = 8_073_522_114_398_416


def test_a_file_of_version_3_is_checked_by_its_own_seal_and_sealed_anew(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    _file_of_version_3(path, _SEAL_OF_VERSION_3)
    with contextlib.closing(StateStore(path)) as store:
        assert store.query("SELECT * FROM checkpoints") == [("risk:X", 4, 5, b"\x00\xff\x10")]
        assert store.query("SELECT digest FROM seal") != [(_SEAL_OF_VERSION_3,)]
        put(store, "b")
    with contextlib.closing(StateStore(path)) as store:
        assert keys(store) == ["b", "run_id"]


def test_a_file_of_version_3_that_is_damaged_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    _file_of_version_3(path, _SEAL_OF_VERSION_3 + 1)
    with pytest.raises(StateError, match="its rows are not those that were written last"):
        StateStore(path)
    raw = sqlite3.connect(path)
    assert raw.execute("PRAGMA user_version").fetchone() == (3,)
    raw.close()


@pytest.mark.parametrize("kill", [1, 2])
def test_a_start_that_is_killed_while_it_brings_a_file_up_can_be_repeated(tmp_path: Path, kill: int) -> None:
    path = tmp_path / "s.sqlite"
    raw = sqlite3.connect(path)
    raw.executescript(_VERSION_1_FILE)
    raw.close()
    left = [kill]

    def die(name: str) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt(name)

    with pytest.raises(KeyboardInterrupt):
        StateStore(path, fault=die)
    with contextlib.closing(StateStore(path)) as store:
        assert store.query("PRAGMA user_version") == [(len(MIGRATIONS),)]
        assert store.query("SELECT client_order_id FROM orders") == [("a",)]


def test_a_number_that_a_column_gives_back_in_another_form_does_not_break_the_seal(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    insert = "INSERT INTO fills VALUES (?, 'X', ?, 'a', 'BUY', ?, ?, ?, 0, 'MAKER', ?, 6, 0)"
    rows = [
        (1, "t1", 2, -0.0, 0.1, "5"),
        (2, "t2", "2.5", 1e300, -3, 5.0),
        (3, 7, float("inf"), 5e-324, 0.0, 2**62),
    ]
    with contextlib.closing(StateStore(path)) as store:
        with store.transaction():
            store.execute_many(insert, rows)
        with store.transaction():
            store.execute("UPDATE fills SET price = qty, qty = 3, fee = -0.0 WHERE seq < 3")
    with contextlib.closing(StateStore(path)) as store, store.transaction():
        store.execute("DELETE FROM fills WHERE seq = 1")
    with contextlib.closing(StateStore(path)) as store:
        assert store.query("SELECT seq FROM fills") == [(2,), (3,)]


def test_a_migration_that_fails_leaves_the_old_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.sqlite"
    StateStore(path).close()
    bad = (*MIGRATIONS, ("CREATE TABLE more (x)", "CREATE TABLE meta (x)"))
    with monkeypatch.context() as patched:
        patched.setattr("ami_engine.state_store.MIGRATIONS", bad)
        with pytest.raises(StateError, match="already exists"):
            StateStore(path)
    store = StateStore(path)
    assert store.query("PRAGMA user_version") == [(len(MIGRATIONS),)]
    assert store.query("SELECT count(*) FROM sqlite_master WHERE name = 'more'") == [(0,)]
    store.close()


@pytest.mark.parametrize("missing", [1, 100, 4_095])
def test_a_file_whose_end_is_missing_is_refused_and_left(tmp_path: Path, missing: int) -> None:
    path = tmp_path / "s.sqlite"
    store = StateStore(path)
    put(store, "a")
    store.close()
    cut = path.read_bytes()[:-missing]
    path.write_bytes(cut)
    with pytest.raises(StateError, match="damaged"):
        StateStore(path)
    assert path.read_bytes() == cut


def test_a_last_page_that_the_log_still_holds_is_no_damage(tmp_path: Path) -> None:
    path, crashed = tmp_path / "s.sqlite", tmp_path / "crashed.sqlite"
    StateStore(path).close()
    store = StateStore(path)
    put(store, "a", "v" * 9_000)
    # As a crash amid a checkpoint leaves it: the log is whole, and the file has got half a page.
    crashed.write_bytes(path.read_bytes() + bytes(700))
    Path(f"{crashed}-wal").write_bytes(Path(f"{path}-wal").read_bytes())
    store.close()
    again = StateStore(crashed)
    assert keys(again) == ["a"]
    again.close()


def test_what_a_user_of_the_store_may_do_does_not_break_the_seal(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with contextlib.closing(StateStore(path)) as store:
        with store.transaction():
            store.execute("CREATE TABLE mine (a INTEGER)")
        with store.transaction():
            store.execute("INSERT INTO mine VALUES (1)")
            store.execute("INSERT INTO meta VALUES ('a', '1')")
        with store.transaction():
            store.execute("INSERT OR REPLACE INTO meta VALUES ('a', '2')")
    with contextlib.closing(StateStore(path)) as store:
        assert store.query("SELECT value FROM meta WHERE key = 'a'") == [("2",)]


def test_a_statement_that_failed_and_was_caught_takes_the_transaction_with_it(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"

    def catch(store: StateStore) -> None:
        with store.transaction():
            store.execute("INSERT INTO meta VALUES ('a', '1')")
            with contextlib.suppress(StateError):
                store.execute("INSERT INTO meta VALUES ('b', '1'), ('a', '2')")

    with contextlib.closing(StateStore(path)) as store, pytest.raises(StateError):
        catch(store)
    with contextlib.closing(StateStore(path)) as store:
        assert store.query("SELECT * FROM meta WHERE key IN ('a', 'b')") == []
