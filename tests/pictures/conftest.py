"""Runs to draw: a plain one, and one whose markets have the worst of names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ami_engine.adapters.base import DataSource
from ami_engine.loop.run_loop import run_loop
from ami_engine.sim.microstructure_sim import MicrostructureSim
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.sim.synthetic_source import SyntheticSource
from ami_engine.units import Instrument

NASTY = (
    "</script><script>document.title='HACKED'</script>",
    "<img src=x onerror=\"document.title='HACKED'\"> $a$ $b$ &amp; <b>bold</b> %{x} \u2028 市",
)


class Renamed(DataSource):
    """Two synthetic markets under names of a foreigner's choice, in the order of their time."""

    is_live = False
    identity = "renamed <script>"

    def __init__(self, names: tuple[str, ...], steps: int) -> None:
        events: list[Any] = []
        self._instruments: dict[str, Instrument] = {}
        for seed, name in enumerate(names):
            source = SyntheticSource(MicrostructureSim(seed=seed), num_events=steps)
            self._instruments[name] = msgspec.structs.replace(source.instruments()["SYNTH"], symbol=name)
            events += [msgspec.structs.replace(event, symbol=name) for event in iter(source.next_event, None)]
        self._events = iter(sorted(events, key=lambda event: event.recv_ts_ns))

    def next_event(self) -> Any:
        return next(self._events, None)

    def instruments(self) -> Mapping[str, Instrument]:
        return self._instruments


def synthetic_run(folder: Path, steps: int = 1_500, **options: Any) -> dict[str, Any]:
    source = SyntheticSource(MicrostructureSim(seed=42), num_events=steps)
    options = {"activity": True, **options}
    return run_loop(source=source, broker=PaperBroker(), run_dir=folder, **options)


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run's folder and its summary."""
    folder = tmp_path_factory.mktemp("plain")
    return folder, synthetic_run(folder)


@pytest.fixture(scope="session")
def nasty_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run over two markets whose names are markup and script."""
    folder = tmp_path_factory.mktemp("nasty")
    source = Renamed(NASTY, 600)
    run_loop(source=source, broker=PaperBroker(instruments=source.instruments()), run_dir=folder, activity=True)
    return folder
