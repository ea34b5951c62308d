"""Rolling features of events: the schema, the builder and its interchangeable backends."""

from ami_engine.features.feature_builder import FeatureBuilder, available_backends, build_features
from ami_engine.features.feature_config import FeatureConfig
from ami_engine.features.feature_vector import FeatureVector
from ami_engine.features.many import ManyRun, run_many
from ami_engine.features.schema import FEATURE_NAMES

__all__ = [
    "FEATURE_NAMES",
    "FeatureBuilder",
    "FeatureConfig",
    "FeatureVector",
    "ManyRun",
    "available_backends",
    "build_features",
    "run_many",
]
