// One row of features, detached from the builder that made it.
#pragma once

#include <ami/feature_ids.hpp>

#include <array>
#include <cstddef>

struct FeatureVector {
    std::size_t count;  // kFeatureCount, or kBaseFeatureCount of a row without signals
    std::array<double, ami::kFeatureCount> values;
};
