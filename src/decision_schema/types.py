"""Actions, proposals and decisions."""

from enum import Enum


class Action(str, Enum):
    """What to do."""

    HOLD = "HOLD"
    ACT = "ACT"
    EXIT = "EXIT"
    CANCEL = "CANCEL"
    STOP = "STOP"
