"""Lines of files, plain or gzip, whole or damaged."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import pytest

from ami_engine.adapters.byte_stream import LineStream, file_identity
from ami_engine.errors import ConfigError, EventError


def read_lines(path: Path) -> tuple[list[bytes], list[EventError]]:
    stream, lines, errors = LineStream(path), [], []
    while True:
        try:
            line = stream.next_line()
        except EventError as error:
            errors.append(error)
            continue
        if line is None:
            assert stream.next_line() is None
            return lines, errors
        lines.append(line)


def numbered(count: int) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(count))


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("text", [b"", b"a\nb\n", b"a\nb", b"a\r\nb\r\n", b"\n\na\n", numbered(50_000)])
def test_gives_the_lines_of_a_whole_file(tmp_path: Path, compress: object, text: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(compress(text))  # type: ignore[operator]
    lines, errors = read_lines(path)
    assert (lines, errors) == (
        [line.removesuffix(b"\r") for line in text.split(b"\n")[: -1 if text[-1:] in b"\n" else None]],
        [],
    )


def test_tells_gzip_by_its_magic_bytes_whatever_the_name(tmp_path: Path) -> None:
    path = tmp_path / "capture.log"
    path.write_bytes(gzip.compress(b"a\nb\n"))
    assert read_lines(path)[0] == [b"a", b"b"]


def test_reads_concatenated_and_zero_padded_gzip_members(tmp_path: Path) -> None:
    path = tmp_path / "rotated.gz"
    parts = [numbered(3_000), b"half a", b" line\n", numbered(10)]
    path.write_bytes(b"".join(gzip.compress(part) for part in parts) + bytes(1_000))
    lines, errors = read_lines(path)
    assert lines == b"".join(parts).split(b"\n")[:-1]
    assert errors == []


def test_a_cut_gzip_gives_every_whole_line_then_one_error_then_the_end(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    whole = gzip.compress(numbered(100_000))
    path.write_bytes(whole[: len(whole) // 2])
    lines, errors = read_lines(path)
    assert 10_000 < len(lines) < 100_000
    assert lines == numbered(100_000).split(b"\n")[: len(lines)]
    assert [(error.reason, error.source, error.position) for error in errors] == [
        ("truncated", "cut.gz", len(lines) + 1)
    ]


def test_a_gzip_that_lacks_only_its_checksum_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(b"a\nb\n")[:-1])
    lines, errors = read_lines(path)
    assert lines == [b"a", b"b"]
    assert [error.reason for error in errors] == ["truncated"]


def test_a_damaged_gzip_ends_with_an_error(tmp_path: Path) -> None:
    path = tmp_path / "damaged.gz"
    data = bytearray(gzip.compress(numbered(100_000)))
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    _, errors = read_lines(path)
    assert [error.reason for error in errors] == ["malformed"]


def test_refuses_a_gz_name_without_gzip_inside(tmp_path: Path) -> None:
    path = tmp_path / "fake.gz"
    path.write_bytes(b"plain text\n")
    with pytest.raises(ConfigError, match=r"fake\.gz: is named \.gz but is not a gzip file"):
        LineStream(path)


@pytest.mark.parametrize("make", [lambda path: path / "absent", lambda path: path], ids=["absent", "folder"])
def test_refuses_what_cannot_be_read(tmp_path: Path, make: object) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        LineStream(make(tmp_path))  # type: ignore[operator]


def test_gives_up_on_a_line_without_end(tmp_path: Path) -> None:
    path = tmp_path / "endless"
    path.write_bytes(b"a\n" + bytes(17 << 20))
    lines, errors = read_lines(path)
    assert lines == [b"a"]
    assert [error.reason for error in errors] == ["malformed"]


def test_peeking_uses_nothing_up_and_keeps_the_damage_for_later(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(b"a\nb\nc\n")[:-1])
    stream = LineStream(path)
    assert stream.peek_lines(2) == [b"a", b"b"]
    assert stream.peek_lines(9) == [b"a", b"b", b"c"]
    assert [(stream.next_line(), stream.position) for _ in range(3)] == [(b"a", 1), (b"b", 2), (b"c", 3)]
    with pytest.raises(EventError, match="cut"):
        stream.next_line()
    assert stream.next_line() is None


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "long.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(400):
            file.write(b"a line of some length, like many others\n" * 1_000)
    stream = LineStream(path)
    tracemalloc.start()
    count = 0
    while stream.next_line() is not None:
        count += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 400_000
    assert peak < 4 << 20


def test_identity_is_of_the_content_and_not_of_the_folder(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "x.csv", tmp_path / "b" / "x.csv"
    for path in (first, second):
        path.parent.mkdir()
        path.write_bytes(b"1,2\n")
    assert file_identity(first) == file_identity(second)
    second.write_bytes(b"1,3\n")
    assert file_identity(first) != file_identity(second)
    assert str(tmp_path) not in file_identity(first)
