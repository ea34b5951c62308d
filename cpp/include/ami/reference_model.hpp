// Proposals of the compiled loop: the reference model (mdm/reference_model.py), or a function of the user's own.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "ami/decision_tables.hpp"
#include "ami/feature_ids.hpp"

namespace ami {

// Why something was proposed, a bit each.
enum ReasonBit : std::uint32_t {
    kSufficientDepth = 1u << 0,
    kImbalance = 1u << 1,
    kTightSpread = 1u << 2,
    kLowConfidence = 1u << 3,
    kNoBookYet = 1u << 4,
    kModel = 1u << 5,
    kModelNan = 1u << 6,
    kModelInvalid = 1u << 7,
};
inline constexpr int kReasonBits = 8;
inline constexpr const char* kReasonBitNames[kReasonBits] = {
    "sufficient_depth", "imbalance", "tight_spread", "low_confidence",
    "no_book_yet",      "model",     "model_nan",    "private_hook_error",
};

struct Proposal {
    Action action = Action::HOLD;
    std::uint32_t reasons = 0;
    bool has_size = false;  // an ACT with parameters
    double bid_quote = 0.0;  // 0: that side is withdrawn
    double ask_quote = 0.0;
    double size_usd = 0.0;
    bool post_only = true;
    double confidence = 0.0;  // of a function of the user's own; the reference model's is worked out when it is read
};

struct ReferenceParams {
    ReferenceParams(double confidence, double imbalance, double size_usd)
        : confidence_threshold(confidence),
          imbalance_threshold(imbalance),
          max_size_usd(size_usd),
          raw_threshold(0.5 - std::log(1.0 / confidence - 1.0) / 5.0) {}

    // Whether 1 / (1 + exp(−5 (raw − 0.5))) reaches its threshold. Away from where it does, no exponential is needed.
    bool is_confident(double raw) const {
        if (std::fabs(raw - raw_threshold) > 1e-9) return raw > raw_threshold;
        return 1.0 / (1.0 + std::exp(-5.0 * (raw - 0.5))) >= confidence_threshold;
    }

    double confidence_threshold;
    double imbalance_threshold;
    double max_size_usd;
    double raw_threshold;
};

// What the reference model's proposal was weighed by; not to be asked of a row with a feature that is not finite.
inline double reference_raw(const double* row) {
    const double d = std::min(1.0, row[static_cast<int>(Feature::depth)] / 100.0);
    const double s = std::fabs(row[static_cast<int>(Feature::imbalance)]);
    const double w = std::min(1.0, std::max(0.0, 1.0 - row[static_cast<int>(Feature::spread_bps)] / 1000.0));
    return 0.4 * d + 0.4 * s + 0.2 * w;
}

inline double reference_confidence(const double* row) {
    const double sum = row[static_cast<int>(Feature::mid)] + row[static_cast<int>(Feature::spread)] +
                       row[static_cast<int>(Feature::spread_bps)] + row[static_cast<int>(Feature::depth)] +
                       row[static_cast<int>(Feature::imbalance)];
    return std::isfinite(sum) ? 1.0 / (1.0 + std::exp(-5.0 * (reference_raw(row) - 0.5))) : 0.0;
}

inline Proposal propose_reference(const double* row, const ReferenceParams& params) {
    const double mid = row[static_cast<int>(Feature::mid)];
    const double spread = row[static_cast<int>(Feature::spread)];
    const double spread_bps = row[static_cast<int>(Feature::spread_bps)];
    const double depth = row[static_cast<int>(Feature::depth)];
    const double imbalance = row[static_cast<int>(Feature::imbalance)];
    Proposal proposal;
    if (!std::isfinite(mid + spread + spread_bps + depth + imbalance)) {
        proposal.reasons = kLowConfidence;
        return proposal;
    }
    const double d = std::min(1.0, depth / 100.0);
    const double s = std::fabs(imbalance);
    const double w = std::min(1.0, std::max(0.0, 1.0 - spread_bps / 1000.0));
    if (d > 0.5) proposal.reasons |= kSufficientDepth;
    if (s > params.imbalance_threshold) proposal.reasons |= kImbalance;
    if (w > 0.7) proposal.reasons |= kTightSpread;
    if (proposal.reasons == 0) proposal.reasons = kLowConfidence;
    if (s < params.imbalance_threshold) return proposal;
    if (!params.is_confident(reference_raw(row))) return proposal;
    proposal.action = Action::ACT;
    proposal.has_size = true;
    proposal.size_usd = std::min(params.max_size_usd, 2.0 * d * params.max_size_usd);
    if (mid > 0.0) {
        proposal.bid_quote = mid - spread / 4.0;
        proposal.ask_quote = mid + spread / 4.0;
    }
    return proposal;
}

// int32 f(const double* row, int64 n, const double* params, double* out): the place of an action in `Action`, and out =
// confidence, bid quote, ask quote, size in USD, post-only (0 or not). A quote of 0 withdraws its side.
using ModelFunction = std::int32_t (*)(const double*, std::int64_t, const double*, double*);
inline constexpr int kModelOutputs = 5;

inline Proposal propose_by(ModelFunction model, const double* row, std::size_t row_size, const double* params) {
    std::array<double, kModelOutputs> out = {1.0, 0.0, 0.0, 0.0, 1.0};
    const std::int32_t action = model(row, static_cast<std::int64_t>(row_size), params, out.data());
    Proposal proposal;
    for (const double value : out) {
        if (std::isnan(value)) {
            proposal.reasons = kModelNan;
            return proposal;
        }
    }
    const bool is_amount = out[1] >= 0.0 && out[2] >= 0.0 && out[3] >= 0.0 && std::isfinite(out[1] + out[2] + out[3]);
    if (action < 0 || action >= kActionCount || !(out[0] >= 0.0 && out[0] <= 1.0) || !is_amount) {
        proposal.reasons = kModelInvalid;
        return proposal;
    }
    proposal.action = static_cast<Action>(action);
    proposal.reasons = kModel;
    proposal.confidence = out[0];
    if (proposal.action == Action::ACT) {
        proposal.has_size = true;
        proposal.bid_quote = out[1];
        proposal.ask_quote = out[2];
        proposal.size_usd = out[3];
        proposal.post_only = out[4] != 0.0;
    }
    return proposal;
}

}  // namespace ami
