"""Instrument files: TOML, one table or an array of them, by symbol."""

from __future__ import annotations

from pathlib import Path

from ami_engine.adapters.toml_file import load_toml, struct_of_toml
from ami_engine.errors import ConfigError
from ami_engine.units import Instrument

__all__ = ["instrument_from_toml"]


def instrument_from_toml(path: str | Path) -> dict[str, Instrument]:
    """Read instruments from a TOML file: flat keys, one ``[instrument]`` table, or several ``[[instrument]]``.

    Parameters
    ----------
    path : str or Path
        The file. Its keys are the fields of `ami_engine.units.Instrument`.

    Returns
    -------
    dict
        Instruments by symbol.

    Raises
    ------
    ConfigError
        Naming file and key: an unknown key, a wrong type or value, a symbol given twice, no instrument at all.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "es.toml")
    ...     _ = path.write_text('symbol = "ESH4"\\ntick_size = 0.25\\nmultiplier = 50\\n')
    ...     instrument_from_toml(path)["ESH4"].multiplier
    50.0
    """
    data = load_toml(path)
    tables = data.get("instrument", data)
    if tables is not data and len(data) > 1:
        others = ", ".join(f"`{key}`" for key in data if key != "instrument")
        raise ConfigError(f"{path}: unknown key {others} beside `instrument`")
    if "instruments" in data and "instrument" not in data:
        raise ConfigError(f"{path}: `instruments` must be called `instrument`: one table, or [[instrument]] for each")
    if isinstance(tables, dict):
        tables = [tables]
    if not isinstance(tables, list) or not tables or tables == [{}]:
        raise ConfigError(f"{path}: `instrument` must be a table or an array of tables, and not empty")
    instruments: dict[str, Instrument] = {}
    for place, table in enumerate(tables, start=1):
        instrument = struct_of_toml(table, Instrument, f"{path}: instrument {place}")
        if instrument.symbol in instruments:
            raise ConfigError(f"{path}: `symbol` {instrument.symbol!r} is given twice")
        instruments[instrument.symbol] = instrument
    return instruments
