"""The decision engine: asks a model for a proposal, and answers for the model when it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any, Protocol

from ami_engine.errors import ConfigError
from ami_engine.mdm.reference_model import ReferenceModel
from ami_engine.private_hook import load_hook
from decision_schema.types import Action, Proposal

__all__ = ["Audit", "DecisionEngine", "ForeignEngine", "Model", "guarded_engine", "load_private_model"]

HOOK_MODULE = "ami_engine.mdm._private.model"
HOOK_NAME = "compute_proposal_private"
REASON = "private_hook_error"

Model = Callable[..., Any]


class Audit(Protocol):
    """Where failures of a model are written."""

    def record(self, kind: str, /, **fields: Any) -> Any:
        """Write one line."""
        ...


def load_private_model() -> Model | None:
    """Return the private hook, None when there is no such file.

    A hook file that exists and cannot be imported raises whatever it raises: that is not absence.
    """
    model: Model | None = load_hook(HOOK_MODULE, HOOK_NAME)
    return model


class DecisionEngine:
    """Proposals of one model: the private hook when there is one, else the reference model, or the one that is passed.

    The hook is looked up here, once. A model that raises, returns what is no proposal, or a confidence outside [0, 1]
    gives HOLD with confidence 0 and reason ``private_hook_error``, and an audit line that carries the exception's type
    and never its text, which may hold what is secret. A hook file that cannot be imported does so at every call.

    Parameters
    ----------
    confidence_threshold : float
        What the reference model's confidence must reach to act, in [0, 1]. A `ReferenceModel` that is passed has its
        own.
    model : callable or None
        ``model(features, **kwargs) -> Proposal``, used instead of hook and reference model.
    audit : Audit or None
        Where failures are written.
    reads : iterable of str
        Features that the model reads, as its `ModelSpec` names them. A run whose rows lack one refuses the model,
        which would fail, and hold, at every step.

    Raises
    ------
    ConfigError
        When the threshold is outside [0, 1].

    Examples
    --------
    >>> from decision_schema.types import Action, Proposal
    >>> engine = DecisionEngine(model=lambda features: Proposal(Action.ACT, 0.8, params={"value": features["mid"]}))
    >>> engine.propose({"mid": 0.5}).params
    {'value': 0.5}
    >>> DecisionEngine(model=lambda features: 1 / 0).propose({"mid": 0.5}).reasons
    ['private_hook_error']
    """

    def __init__(
        self,
        confidence_threshold: float = 0.5,
        model: Model | None = None,
        audit: Audit | None = None,
        reads: Iterable[str] = (),
    ) -> None:
        if not 0.0 <= confidence_threshold <= 1.0:
            raise ConfigError(f"`confidence_threshold` must be in [0, 1], was {confidence_threshold!r}")
        self.confidence_threshold = confidence_threshold
        self.reads = tuple(reads)
        self._audit = audit
        self._import_error: Exception | None = None
        self._model = model if model is not None else self._find_model()
        if type(self._model) is ReferenceModel:
            self.confidence_threshold = self._model.confidence_threshold

    @property
    def audit(self) -> Audit | None:
        """Where failures are written; one that came before there was a log is written when there is."""
        return self._audit

    @audit.setter
    def audit(self, audit: Audit | None) -> None:
        self._audit = audit
        if self._import_error is not None:
            self._report("import", self._import_error)

    @property
    def model_name(self) -> str:
        """Module and name of the model, for a run's record."""
        if self._model is None:
            return HOOK_MODULE
        model = getattr(self._model, "__func__", self._model)
        kind = model if hasattr(model, "__qualname__") else type(model)
        return f"{kind.__module__}.{kind.__qualname__}"

    @property
    def model(self) -> Model | None:
        """Who is asked; None for a hook that cannot be imported."""
        return self._model

    @property
    def is_reference(self) -> bool:
        """True when the reference model is asked."""
        return type(self._model) is ReferenceModel

    def propose(self, features: Any, **kwargs: Any) -> Proposal:
        """Return the model's proposal for the features. Never raises.

        Parameters
        ----------
        features : FeatureVector or mapping
            Handed to the model as it is.
        **kwargs
            Handed to the model; the reference model takes ``imbalance_threshold`` and ``max_size_usd`` of them.
        """
        if self._model is None:
            return _hold()
        try:
            return _as_proposal(self._model(features, **kwargs))
        except Exception as error:
            self._report("call", error)
            return _hold()

    def _find_model(self) -> Model | None:
        """Return the model to ask, None when the hook file is there and broken."""
        try:
            hook = load_private_model()
        except Exception as error:
            self._import_error = error
            self._report("import", error)
            return None
        return ReferenceModel(self.confidence_threshold) if hook is None else hook

    def _report(self, stage: str, error: Exception) -> None:
        _report(self._audit, stage, error)


class ForeignEngine:
    """An engine of the user's own: it is asked as a model is, and what it gives is read as a model's proposal is.

    Parameters
    ----------
    engine : object
        Has ``propose(features)``.
    audit : Audit or None
        Where failures are written.

    Examples
    --------
    >>> class Silent:
    ...     def propose(self, features):
    ...         return None
    >>> ForeignEngine(Silent(), None).propose({"mid": 0.5}).reasons
    ['private_hook_error']
    """

    def __init__(self, engine: Any, audit: Audit | None) -> None:
        self._propose = engine.propose
        self._audit = audit

    def propose(self, features: Any) -> Proposal:
        """Return the engine's proposal; HOLD with ``private_hook_error`` when it raises or gives none."""
        try:
            return _as_proposal(self._propose(features))
        except Exception as error:
            _report(self._audit, "call", error)
            return _hold()


def guarded_engine(engine: Any, audit: Audit | None) -> Any:
    """Return the engine that a run asks for `engine`: itself when it answers for its model, else one that does."""
    if type(engine) is DecisionEngine and "propose" not in vars(engine):
        return engine
    return ForeignEngine(engine, audit)


def _report(audit: Audit | None, stage: str, error: Exception) -> None:
    if audit is not None:
        audit.record(REASON, stage=stage, error=type(error).__name__)


def _as_proposal(given: Any) -> Proposal:
    if type(given) is Proposal and type(given.action) is Action and 0.0 <= given.confidence <= 1.0:
        return given
    return _read_proposal(given)


def _hold() -> Proposal:
    return Proposal(action=Action.HOLD, confidence=0.0, reasons=[REASON])


def _read_proposal(given: Any) -> Proposal:
    """Return our own proposal of what a model gave, read by its public attributes; raises when it is none."""
    params = getattr(given, "params", None)
    if params is not None and not isinstance(params, Mapping):
        raise TypeError("params")
    if params is None:
        # A proposal of contract 0.1 carries its quotes as fields.
        quotes = {name: getattr(given, name, None) for name in ("bid_quote", "ask_quote", "size_usd", "post_only")}
        if any(quotes[name] is not None for name in ("bid_quote", "ask_quote", "size_usd")):
            params = {name: value for name, value in quotes.items() if value is not None}
    if not isinstance(given.confidence, Real):
        raise TypeError("confidence")
    return Proposal(
        action=Action(getattr(given.action, "value", given.action)),
        confidence=float(given.confidence),
        reasons=[str(reason) for reason in getattr(given, "reasons", None) or ()],
        params=None if params is None else dict(params),
        run_id=getattr(given, "run_id", None),
        features_summary=dict(getattr(given, "features_summary", None) or {}),
    )
