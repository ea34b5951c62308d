"""Where events come from and where orders go."""

from ami_engine.adapters.base import Broker, DataSource, MarketDataSource

__all__ = ["Broker", "DataSource", "MarketDataSource"]
