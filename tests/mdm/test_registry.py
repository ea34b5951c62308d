"""Models by name: the engine's own, entry points of distributions, and what is wrong with either."""

from __future__ import annotations

import importlib.metadata
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ami_engine.errors import ConfigError
from ami_engine.mdm import ModelParam, ModelRegistry, ModelSpec, ReferenceModel, compute_proposal_reference
from ami_engine.mdm.registry import GROUP, REFERENCE

Offer = Callable[..., None]


@pytest.fixture
def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Offer:
    """Install a distribution that offers models into a folder of its own on the path."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def install(distribution: str, points: dict[str, str], *, version: str = "1.2", **modules: str) -> None:
        folder = tmp_path / distribution
        info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        lines = [f"{name} = {place}" for name, place in points.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(text)
            monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.syspath_prepend(str(folder))

    return install


SPEC = """
from ami_engine.mdm import ModelParam, ModelSpec
SPEC = ModelSpec(lambda size: lambda features: size, "says a number", (ModelParam("size", 1.0, "the number"),))
"""


def faults(registry: ModelRegistry, *, load: bool) -> dict[str, str]:
    return {entry.name: entry.fault for entry in registry.entries(load=load) if entry.fault}


def test_the_reference_model_is_described_as_it_is() -> None:
    described = {param.name: param.default for param in REFERENCE.params}
    signature = inspect.signature(compute_proposal_reference).parameters
    assert described == {name: each.default for name, each in [*signature.items()][1:]}
    assert REFERENCE.make() == ReferenceModel()
    read: set[str] = set()

    class Watched(dict[str, float]):
        def get(self, name: str, default: object = None) -> object:
            read.add(name)
            return super().get(name, default)

    REFERENCE.make()(Watched(mid=1.0))
    assert read == set(REFERENCE.features)


def test_an_offered_model_is_listed_without_being_imported_and_made_when_asked_for(offer: Offer) -> None:
    offer("acme-models", {"acme": "acme_registry:SPEC"}, acme_registry=SPEC)
    registry = ModelRegistry()
    entry = next(entry for entry in registry.entries() if entry.name == "acme")
    assert (entry.distribution, entry.version, entry.place) == ("acme-models", "1.2", "acme_registry:SPEC")
    assert entry.spec is None
    assert "acme_registry" not in sys.modules
    got = registry.get("acme")
    assert got.label == "acme (acme-models 1.2)"
    assert got.spec is not None
    assert got.spec.make({"size": 3})({}) == 3.0


@pytest.mark.parametrize(
    ("place", "text", "fault"),
    [
        ("acme_broken:SPEC", "SPEC = 1 / 0", "ZeroDivisionError: division by zero"),
        ("acme_broken:SPEC", "import sys; sys.exit('bye')", "SystemExit: bye"),
        ("acme_broken:SPEC", "import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("acme_broken:OTHER", SPEC, "AttributeError: module 'acme_broken' has no attribute 'OTHER'"),
        ("acme_broken:SPEC", "SPEC = print", "acme_broken:SPEC must be a ModelSpec, was builtin_function_or_method"),
        (
            "acme_broken:SPEC",
            SPEC.replace('"the number"),)', '"the number"),), ("midd",)'),
            "ConfigError: reads the feature 'midd', which this version does not have (did you mean 'mid'?)",
        ),
    ],
)
def test_a_broken_model_is_listed_with_its_fault_and_stops_no_other(
    offer: Offer, place: str, text: str, fault: str
) -> None:
    offer("broken-models", {"broken": place}, acme_broken=text)
    offer("acme-models", {"sound": "acme_registry:SPEC"}, acme_registry=SPEC)
    registry = ModelRegistry()
    assert faults(registry, load=False) == {}
    assert faults(registry, load=True) == {"broken": fault}
    assert registry.get("sound").spec is not None
    with pytest.raises(ConfigError) as refused:
        registry.get("broken")
    assert str(refused.value) == f"the model 'broken' of broken-models cannot be used: {fault}"


def test_a_name_that_two_distributions_offer_belongs_to_neither(offer: Offer) -> None:
    offer("one-models", {"acme": "acme_one:SPEC"}, acme_one=SPEC)
    offer("two-models", {"acme": "acme_two:SPEC", "mine": "acme_two:SPEC"}, acme_two=SPEC)
    registry = ModelRegistry()
    assert faults(registry, load=True) == {
        "acme": "one-models and two-models offer a model of this name: uninstall all but one"
    }
    with pytest.raises(ConfigError, match="one-models and two-models offer"):
        registry.get("acme")
    assert "acme_one" not in sys.modules
    assert registry.get("mine").spec is not None


def test_a_name_of_the_engines_own_cannot_be_taken(offer: Offer) -> None:
    offer("acme-models", {"reference": "acme_registry:SPEC"}, acme_registry=SPEC)
    registry = ModelRegistry()
    assert registry.get("reference").spec is REFERENCE
    assert faults(registry, load=True) == {"reference": "the name is the engine's own"}
    assert registry.names() == ["reference"]


def test_a_program_adds_models_of_its_own_under_free_names() -> None:
    registry = ModelRegistry(entry_points=())
    registry.register("mine", ModelSpec(dict, "a mapping"))
    assert registry.get("mine").spec == ModelSpec(dict, "a mapping")
    for name in ("mine", "reference"):
        with pytest.raises(ConfigError, match=f"there is a model '{name}' already"):
            registry.register(name, REFERENCE)
    taken = [importlib.metadata.EntryPoint("other", "somewhere:SPEC", GROUP)]
    with pytest.raises(ConfigError, match="'other' already"):
        ModelRegistry(entry_points=taken).register("other", REFERENCE)


KINDS = ModelSpec(
    lambda **given: lambda features: given,
    "shows what it was given",
    (
        ModelParam("share", 0.5, "", low=0.0, high=1.0),
        ModelParam("count", 3, "", low=1),
        ModelParam("is_on", False, ""),
        ModelParam("word", "a", ""),
    ),
)


def test_texts_become_what_the_parameters_are() -> None:
    given = KINDS.make(KINDS.parse({"share": "1", "count": "7", "is_on": "True", "word": "5"}))({})
    assert given == {"share": 1.0, "count": 7, "is_on": True, "word": "5"}
    assert [type(value) for value in given.values()] == [float, int, bool, str]
    assert KINDS.make()({}) == {"share": 0.5, "count": 3, "is_on": False, "word": "a"}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"share": "much"}, r"share must be a number in \[0, 1\], was 'much'"),
        ({"share": "nan"}, r"share must be a number in \[0, 1\], was nan"),
        ({"share": "1.5"}, r"share must be a number in \[0, 1\], was 1.5"),
        ({"count": "2.5"}, r"count must be a whole number >= 1, was '2.5'"),
        ({"count": "0"}, r"count must be a whole number >= 1, was 0"),
        ({"is_on": "1"}, r"is_on must be true or false, was '1'"),
        (
            {"shares": "1"},
            r"'shares' is no argument of the model \(did you mean 'share'\?\); it takes share, count, .*",
        ),
    ],
)
def test_a_wrong_argument_is_named_with_its_rule(texts: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        KINDS.parse(texts)


@pytest.mark.parametrize(
    ("name", "value"), [("count", True), ("count", 2.0), ("is_on", 1), ("word", 5), ("share", "1")]
)
def test_a_value_of_another_kind_is_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} must be "):
        KINDS.make({name: value})


def test_what_a_factory_does_wrong_is_told() -> None:
    with pytest.raises(ConfigError, match=r"cannot be made: ZeroDivisionError: division by zero"):
        ModelSpec(lambda: 1 / 0, "").make()
    with pytest.raises(ConfigError, match=r"must be callable, as model\(features\), was 5"):
        ModelSpec(lambda: 5, "").make()
    with pytest.raises(ConfigError, match="said to run in the compiled step"):
        ModelSpec(lambda: lambda features: 0, "", step="compiled").make()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ((ModelParam("a", 2.0, "", high=1.0),), "a must be a number <= 1, was 2.0"),
        ((ModelParam("a", 1.0, ""), ModelParam("a", 2.0, "")), "has two parameters 'a'"),
        ((ModelParam("a", None, ""),), "the default of a must be float, int, bool or str, was None"),  # type: ignore[arg-type]
    ],
)
def test_a_description_that_contradicts_itself_is_refused(params: tuple[ModelParam, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelSpec(dict, "", params)
