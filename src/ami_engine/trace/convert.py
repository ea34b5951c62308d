"""Turns a trace of either form into one file of JSON lines, without loss."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ami_engine.errors import ChainBroken, TraceError
from ami_engine.security.jsonl import AppendFile
from ami_engine.trace.clean_check import OWN_KEYS
from ami_engine.trace.line_codec import LineEncoder
from ami_engine.trace.reader import read_packets, verify
from ami_engine.trace.trace_files import is_binary

__all__ = ["Converted", "convert", "is_trace"]

_BLOCK_BYTES = 1 << 17
# What a packet's line begins with; no event has these names.
_PACKET_KEYS = (b'"schema_version":', b'"run_id":', b'"step":')
_BEGINNING_BYTES = 1 << 10


class Converted(msgspec.Struct, frozen=True):
    """What a conversion did: how many packets, and the chain heads of what was read and of what was written."""

    packets: int
    source_chain_head: str
    chain_head: str


def convert(source: str | Path, out: str | Path) -> Converted:
    """Write the packets of a trace as JSON lines, chained anew.

    The chain of a binary trace covers its own bytes, that of JSON lines theirs: the heads differ. What comes out is,
    in its hashed part, the very file that the run would have written as JSON lines, with the same chain head.

    Parameters
    ----------
    source : str or Path
        A run's folder, or a trace's first file. It is verified first.
    out : str or Path
        The file to write, which must not exist. Its name must not be that of a binary trace.

    Raises
    ------
    ChainBroken
        When the source is damaged. Nothing was written.
    TraceError
        When `out` exists or cannot be written.
    OSError
        When the source cannot be read.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from ami_engine.trace import TraceLogger
    >>> from decision_schema.packet_v2 import PacketV2
    >>> with TemporaryDirectory() as folder:
    ...     with TraceLogger("run_1", folder, format="binary") as logger:
    ...         logger.log_packet(PacketV2("run_1", 0, {"mid": 0.5}, {}, {}, {}, 0.1))
    ...     done = convert(logger.path, Path(folder) / "out.jsonl")
    ...     report = verify(Path(folder) / "out.jsonl")
    >>> report.ok, done.source_chain_head == logger.chain_head, done.chain_head == report.chain_head
    (True, True, True)
    """
    source, out = _source_file(Path(source)), Path(out)
    if is_binary(out):
        raise TraceError(f"{out}: JSON lines cannot be written under the name of a binary trace")
    report = verify(source)
    if report.first_damage is not None:
        damage = report.first_damage
        raise ChainBroken(f"{source}: {damage.file}:{damage.line}: {damage.reason}: {damage.detail}")
    try:
        file = AppendFile(out, "new")
    except FileExistsError:
        raise TraceError(f"{out}: exists already") from None
    except OSError as error:
        raise TraceError(f"{out}: cannot be opened: {error.strerror}") from error
    encoder = LineEncoder()
    try:
        for packet in read_packets(source):
            external = packet.external
            latency_ns = external["ops.latency_ns"]
            packet.external = {key: item for key, item in external.items() if key not in OWN_KEYS}
            file.pending += encoder.encode(packet, latency_ns)
            if len(file.pending) > _BLOCK_BYTES:
                file.flush()
    finally:
        file.close()
    return Converted(encoder.seq, report.chain_head, encoder.prev_sha256)


def is_trace(source: str | Path) -> bool:
    """Say whether `source` is a run's folder or a trace's file, by its name or by how it begins.

    >>> is_trace("runs/run-1/traces.bin"), is_trace("quotes.csv")
    (True, False)
    """
    source = Path(source)
    if source.is_dir() or is_binary(source):
        return True
    try:
        with source.open("rb") as file:
            beginning = file.read(_BEGINNING_BYTES)
    except OSError:
        return False
    return beginning[:1] == b"{" and all(key in beginning for key in _PACKET_KEYS)


def _source_file(source: Path) -> Path:
    """In a folder that holds both forms it is the binary one that is to be converted."""
    binary = source / "traces.bin"
    return binary if source.is_dir() and binary.is_file() else source
