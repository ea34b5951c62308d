// One row of features, detached from the builder that made it.
#pragma once

#include <ami/feature_ids.hpp>

#include <array>

struct FeatureVector {
    std::array<double, ami::kFeatureCount> values;
};
