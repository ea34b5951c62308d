// Proposals of the compiled loop: the reference model (mdm/reference_model.py), or a function of the user's own.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "ami/decision_tables.hpp"
#include "ami/feature_ids.hpp"
#include "ami/select.hpp"

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
        return std::fabs(raw - raw_threshold) > 1e-9 ? raw > raw_threshold : is_just_confident(raw);
    }
    [[gnu::noinline, gnu::cold]] bool is_just_confident(double raw) const {
        return 1.0 / (1.0 + std::exp(-5.0 * (raw - 0.5))) >= confidence_threshold;
    }

    double confidence_threshold;
    double imbalance_threshold;
    double max_size_usd;
    double raw_threshold;
    double whole = 1.0;
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

// With `kIsShown` false, quotes and size are of use in an ACT alone: they are not taken out of a HOLD that nobody sees.
template <bool kIsShown>
inline void propose_reference(const double* row, const ReferenceParams& params, Proposal& proposal) {
    const double mid = row[static_cast<int>(Feature::mid)];
    const double spread = row[static_cast<int>(Feature::spread)];
    const double spread_bps = row[static_cast<int>(Feature::spread_bps)];
    const double depth = row[static_cast<int>(Feature::depth)];
    const double imbalance = row[static_cast<int>(Feature::imbalance)];
    proposal = Proposal{};
    if (!std::isfinite(mid + spread + spread_bps + depth + imbalance)) {
        proposal.reasons = kLowConfidence;
        return;
    }
    const double part = depth / 100.0;
    // A whole that the compiler does not know as 1: else it makes a branch of this, which nobody can guess.
    const double d = part < params.whole ? part : params.whole;
    const double s = std::fabs(imbalance);
    const double w = std::min(1.0, std::max(0.0, 1.0 - spread_bps / 1000.0));
    const auto flag = [](bool is, ReasonBit reason) { return (std::uint32_t{0} - static_cast<std::uint32_t>(is)) & reason; };
    const std::uint32_t reasons = flag(d > 0.5, kSufficientDepth) | flag(s > params.imbalance_threshold, kImbalance) |
                                  flag(w > 0.7, kTightSpread);
    proposal.reasons = reasons | flag(reasons == 0, kLowConfidence);
    const bool is_act = !(s < params.imbalance_threshold) & params.is_confident(0.4 * d + 0.4 * s + 0.2 * w);
    const auto shown = [is_act](double value) { return kIsShown ? value_if(is_act, value) : value; };
    proposal.action = static_cast<Action>(static_cast<int>(Action::ACT) * static_cast<int>(is_act));
    proposal.has_size = is_act;
    const double wanted = 2.0 * d * params.max_size_usd;
    proposal.size_usd = shown(wanted < params.max_size_usd ? wanted : params.max_size_usd);
    if (!(mid > 0.0)) return;
    proposal.bid_quote = shown(mid - spread / 4.0);
    proposal.ask_quote = shown(mid + spread / 4.0);
}

// int32 f(const double* row, int64 n, const double* params, double* out): the place of an action in `Action`, and out =
// confidence, bid quote, ask quote, size in USD, post-only (0 or not). A quote of 0 withdraws its side.
using ModelFunction = std::int32_t (*)(const double*, std::int64_t, const double*, double*);
inline constexpr int kModelOutputs = 5;

inline void propose_by(ModelFunction model, const double* row, std::size_t row_size, const double* params,
                       Proposal& proposal) {
    std::array<double, kModelOutputs> out = {1.0, 0.0, 0.0, 0.0, 1.0};
    const std::int32_t action = model(row, static_cast<std::int64_t>(row_size), params, out.data());
    proposal = Proposal{};
    for (const double value : out) {
        if (std::isnan(value)) {
            proposal.reasons = kModelNan;
            return;
        }
    }
    const bool is_amount = out[1] >= 0.0 && out[2] >= 0.0 && out[3] >= 0.0 && std::isfinite(out[1] + out[2] + out[3]);
    if (action < 0 || action >= kActionCount || !(out[0] >= 0.0 && out[0] <= 1.0) || !is_amount) {
        proposal.reasons = kModelInvalid;
        return;
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
}

}  // namespace ami
