"""Money: positions folded from fills, and the account that they make."""

from ami_engine.portfolio.pnl import Account
from ami_engine.portfolio.positions import FillResult, Positions

__all__ = ["Account", "FillResult", "Positions"]
