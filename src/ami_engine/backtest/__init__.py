"""Backtests: decisions over recorded tables, without a Python step."""

from ami_engine.backtest.compiled import CompiledResult, run_compiled
from ami_engine.backtest.compiled_model import CompiledModel
from ami_engine.backtest.event_table import EventTable, table_from_source

__all__ = ["CompiledModel", "CompiledResult", "EventTable", "run_compiled", "table_from_source"]
