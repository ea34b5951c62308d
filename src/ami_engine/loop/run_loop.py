"""The loop: events in their order, one step each, and a clean end whatever happens.

It owns time, I/O and the order of work, and decides nothing itself: `loop.step.decide` does, and `loop.assemble` makes
the parts. Live, paper, replay and backtest differ only in the source, broker and clock that are handed in.
"""

from __future__ import annotations

from typing import Any

from ami_engine.adapters.base import Broker, DataSource
from ami_engine.errors import ConfigError, EventError, StateError, TraceError
from ami_engine.loop.assemble import assemble
from ami_engine.loop.feed import FeedEnd
from ami_engine.loop.shutdown import StopSignal
from ami_engine.security.redaction import redact_text

__all__ = ["run_loop"]


def run_loop(*, source: DataSource, broker: Broker, steps: int | None = None, **options: Any) -> dict[str, Any]:
    """Run the engine over a source until it ends, and return the summary.

    Parameters
    ----------
    source : DataSource
        Where events come from: structs or dicts, None when exhausted.
    broker : Broker
        Where orders go.
    steps : int, optional
        Bound on the number of events.
    **options
        Everything else has a default: see `loop.options.RunOptions`.

    Returns
    -------
    dict
        The summary: counts, profit and loss, latencies, why it stopped, and where the trace is.

    Raises
    ------
    ConfigError
        When an option is wrong: nothing was started.

    Examples
    --------
    >>> from ami_engine.sim.microstructure_sim import MicrostructureSim
    >>> from ami_engine.sim.synthetic_source import SyntheticSource
    >>> from ami_engine.sim.paper_broker import PaperBroker
    >>> source = SyntheticSource(MicrostructureSim(seed=42), num_events=100)
    >>> summary = run_loop(source=source, broker=PaperBroker(), trace=False)
    >>> summary["steps"], summary["stopped_reason"]
    (100, 'source_exhausted')
    """
    if steps is not None and (not isinstance(steps, int) or steps < 0):
        raise ConfigError(f"`steps` must be a whole number of at least 0, or None, was {steps!r}")
    stop = StopSignal()
    run = assemble(source, broker, should_stop=stop.is_set, **options)
    reason = "steps"
    with stop:
        try:
            reason = run.drive(steps, stop)
        except FeedEnd as end:
            reason = end.reason
        except (TraceError, EventError, StateError) as error:
            reason = f"{_kind_of(error)}_error: {error}"
        except KeyboardInterrupt:
            reason = "interrupted"
        except BaseException as error:
            reason = f"error: {type(error).__name__}"
            raise
        finally:
            summary = run.finish(redact_text(reason))  # a source's or a disk's own words
    return summary


def _kind_of(error: TraceError | EventError | StateError) -> str:
    if isinstance(error, TraceError):
        return "trace"
    return "state" if isinstance(error, StateError) else "event"
