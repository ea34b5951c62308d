"""The compiled core's packet writer, and what it is told of packets before it may write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, Literal

import msgspec

from ami_engine.trace.clean_check import CleanCheck, fields_of
from decision_schema.packet_v2 import PacketV2
from decision_schema.types import Action, MismatchInfo

__all__ = ["Block", "Chain", "PacketWriter", "StepTypes", "new_block"]

try:
    _core: Any = import_module("ami_engine._core")
except ImportError:
    # Without the compiled core every packet is encoded in Python.
    _core = None

# The parts of a packet that are hashed, in the order of a line; the chain's own keys follow in `external`.
_HASHED = ("schema_version", "run_id", "step", "input", "mdm", "final_action", "mismatch", "external")

_NO_LAYOUTS: Mapping[type, bytes] = {}

_encode = msgspec.json.Encoder().encode


class Chain(msgspec.Struct):
    """Where a chain of packets has come to: the next packet's number, and the hash of the last one's hashed part."""

    seq: int
    prev: Any


class Block:
    """Packets that collect, and are taken or written all at once."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def __len__(self) -> int:
        return len(self._bytes)

    def append(self, data: bytes) -> None:
        """Add bytes at the end."""
        self._bytes += data

    def view(self) -> memoryview:
        """Return what has collected, where it is: to be released before the block changes."""
        return memoryview(self._bytes)

    def clear(self) -> None:
        """Be empty."""
        self._bytes.clear()

    def take(self) -> bytearray:
        """Return what has collected, and be empty."""
        taken, self._bytes = self._bytes, bytearray()
        return taken


def new_block() -> Any:
    """Return a block, the core's where it is there: it keeps its memory, and steps are written straight into it."""
    return _core.Block() if _core is not None else Block()


class StepTypes(msgspec.Struct, frozen=True):
    """The types that a loop's packets are made of, so that the core can write one without their being made.

    Attributes
    ----------
    decision : type
        With the fields `proposal`, `final`, `mismatch`, `context` and `policy_hash`.
    input, row : type
        What a packet's `input` and its `features` would be.
    traced : type
        What a final decision is written as whose mismatch stands beside it.
    """

    decision: type[msgspec.Struct]
    input: type[msgspec.Struct]
    row: type[msgspec.Struct]
    traced: type[msgspec.Struct]


class PacketWriter:
    """A compiled writer that shares what a `CleanCheck` knows of texts and keys; `core` is None where there is none.

    It takes a `PacketV2` only when every text and key in it is known to be clean, every number finite, and every struct
    of a type that was announced.
    """

    __slots__ = ("_announced", "_is_clean", "_laid_out", "core")

    def __init__(self, is_clean: CleanCheck, *, compiled: bool = True) -> None:
        self._is_clean = is_clean
        self._announced = self._laid_out = 0
        self.core: Any = None
        if compiled and _core is not None:
            self.core = _core.PacketWriter(is_clean.texts, is_clean.keys)
            self.core.add_struct(PacketV2, _HASHED, [f'"{name}":' for name in _HASHED], {})
            for action in Action:
                self.core.add_constant(action, _encode(action).decode())

    def chain(self, form: Literal["lines", "frames"], seq: int, prev: Any) -> Any:
        """Return a chain that has come to `seq` and `prev`: the core's own, which it carries on, or a plain one."""
        if self.core is None:
            return Chain(seq, prev)
        chain = _core.LineChain() if form == "lines" else _core.FrameChain()
        chain.seq, chain.prev = seq, prev
        return chain

    def begin_steps(self, chain: Any, types: StepTypes, run_id: str) -> Any:
        """Return the core, ready to log the steps of a run into a `chain` of its own; None when there is no core."""
        core = self.core
        if core is not None:
            begin = core.begin_lines if type(chain) is _core.LineChain else core.begin_frames
            version = PacketV2.__struct_defaults__[-1]
            begin(chain, types.decision, types.input, types.row, types.traced, MismatchInfo, version, run_id)
        return core

    def expect(self, types: Iterable[type], texts: Iterable[str], keys: Iterable[str]) -> None:
        """Look at what packets will be made of before the first one comes: see `CleanCheck.expect`."""
        self._is_clean.expect(types, texts, keys)
        self.announce()

    def announce(self, layouts: Mapping[type, bytes] = _NO_LAYOUTS) -> None:
        """Tell the core of the struct types that were found to have no secret field since the last time.

        `layouts` are the ids that the binary form has for types; a type may have one later than it is told.
        """
        structs = self._is_clean.structs
        if self.core is None or (self._announced, self._laid_out) == (len(structs), len(layouts)):
            return
        for kind in structs[self._announced :]:
            _announce(self.core, kind)
        for kind in structs if layouts else ():
            if layouts.get(kind):
                self.core.set_layout(kind, layouts[kind])
        self._announced, self._laid_out = len(structs), len(layouts)


def _announce(core: Any, kind: type[msgspec.Struct]) -> None:
    """Tell the core of a struct type, unless its JSON is more than its fields one after the other."""
    config, fields = kind.__struct_config__, fields_of(kind)
    if config.tag is not None or config.array_like or kind is PacketV2:
        return
    omitted: dict[str, Any] = {}
    if config.omit_defaults:
        if any(field.default_factory is not msgspec.NODEFAULT for field in fields):
            return
        omitted = {field.name: field.default for field in fields if field.default is not msgspec.NODEFAULT}
    keys = [_encode(field.encode_name).decode() + ":" for field in fields]
    core.add_struct(kind, [field.name for field in fields], keys, omitted)
