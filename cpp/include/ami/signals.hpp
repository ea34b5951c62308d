// The signal features of one market: momentum, trend and reversion of its mids, and the rank of its spread.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <vector>

#include "ami/exact_moments.hpp"
#include "ami/feature_ids.hpp"
#include "ami/rolling_rank.hpp"
#include "ami/sample_ring.hpp"

namespace ami {

struct SignalParams {
    std::uint64_t momentum_steps;
    std::uint64_t ma_steps;
    std::uint64_t trend_lag_steps;
};

// In the order of the members; nothing where signals are off. Throws std::invalid_argument for what no config gives.
inline std::optional<SignalParams> read_signal_params(const std::vector<std::uint64_t>& steps) {
    if (steps.empty()) return std::nullopt;
    if (steps.size() != 3 || *std::min_element(steps.begin(), steps.end()) < 1) {
        throw std::invalid_argument("these steps of the signals must come from a FeatureConfig");
    }
    return SignalParams{steps[0], steps[1], steps[2]};
}

class Signals {
public:
    // `window_steps` and `expected_mids` are those of the regime window.
    Signals(const SignalParams& params, std::uint64_t window_steps, std::size_t expected_mids)
        : params_(params),
          ma_count_(as_double(params.ma_steps)),
          trend_count_(as_double(params.ma_steps) * as_double(params.trend_lag_steps)),
          mids_(power_above(std::max(params.momentum_steps, params.ma_steps))),
          sums_(power_above(params.trend_lag_steps)),
          mids_mask_(mids_.size() - 1),
          sums_mask_(sums_.size() - 1),
          spreads_(window_steps, expected_mids) {}

    // `number` mids came before it.
    void add_mid(std::uint64_t number, double mid) {
        mid_at(number) = mid;
        TripleSum sum = sum_;
        if (number >= params_.ma_steps) {
            // Prices are most often so near to each other that their difference is a double.
            const double oldest = mid_at(number - params_.ma_steps);
            double change = mid;
            const double rest = TripleSum::two_sum(change, -oldest);
            sum.add(change);
            if (rest != 0.0) sum.add(rest);
        } else {
            sum.add(mid);
        }
        if (!sum.is_exact()) sum = sum_anew(number);
        sum.settle();
        sum_ = sum;
        const Sum now{sum.high(), sum.mid(), sum.low()};
        sum_at(number) = now;
        // All of them most often: then one question is enough.
        const bool is_warm = number >= warm_;
        if (is_warm || number >= params_.momentum_steps) {
            const double before = mid_at(number - params_.momentum_steps);
            row_[kMomentum] = (mid - before) / before;
        }
        if (is_warm || number + 1 >= params_.ma_steps) row_[kReversion] = less_mids(now, mid) / (ma_count_ * mid);
        if (is_warm || number + 1 >= params_.ma_steps + params_.trend_lag_steps) {
            const Sum& then = sum_at(number - params_.trend_lag_steps);
            const double change = ((now.high - then.high) + (now.mid - then.mid)) + (now.low - then.low);
            row_[kTrend] = std::fabs(change) / (trend_count_ * mid);
        }
    }

    // The spreads of the regime window; the newest of them is the one whose rank is told.
    void add_spread(double spread) {
        spreads_.push(spread);
        take_rank(spreads_.rank(spread));
    }
    void replace_spread(double oldest, double spread) { take_rank(spreads_.replace(oldest, spread)); }
    void drop_spread(double oldest) {
        spreads_.pop(oldest);
        is_ranked_ = false;
    }
    // To be called when spreads were dropped.
    void rank_again(double newest) {
        if (!is_ranked_) take_rank(spreads_.rank(newest));
    }

    void write(double* row) const {
        for (int i = 0; i < kCount; ++i) row[kFirst + i] = row_[static_cast<std::size_t>(i)];
    }

    // `spreads`: the regime window's, of which the ranks are made anew. Checks nothing of what is in the window.
    template <class Archive>
    void archive(Archive& ar, const SampleRing& spreads) {
        for (double& mid : mids_) number(ar, mid);
        for (Sum& sum : sums_) {
            number(ar, sum.high);
            number(ar, sum.mid);
            number(ar, sum.low);
        }
        sum_.archive(ar);
        for (double& value : row_) number(ar, value);
        if (!Archive::kIsReading) return;
        spreads_.clear();
        for (std::size_t age = 0; age < spreads.size(); ++age) spreads_.push(spreads.at(spreads.slot_of(age)));
        is_ranked_ = true;
    }

private:
    // A sum of mids as three doubles, the first the nearest to it.
    struct Sum {
        double high = 0.0;
        double mid = 0.0;
        double low = 0.0;
    };

    static constexpr int kFirst = static_cast<int>(Feature::momentum);
    static constexpr int kMomentum = 0;
    static constexpr int kTrend = static_cast<int>(Feature::trend_strength) - kFirst;
    static constexpr int kReversion = static_cast<int>(Feature::mean_reversion) - kFirst;
    static constexpr int kSpread = static_cast<int>(Feature::spread_percentile) - kFirst;
    static constexpr int kCount = kFeatureCount - kBaseFeatureCount;
    static_assert(kFirst == kBaseFeatureCount && kCount == 4, "the signals are the last features of a row");

    template <class Archive>
    static void number(Archive& ar, double& value) {
        ar.value(value);
        ar.require(std::isfinite(value));
    }

    static std::size_t power_above(std::uint64_t lag) {
        std::size_t size = 1;
        while (size <= lag) size *= 2;
        return size;
    }

    double& mid_at(std::uint64_t number) { return mids_[number & mids_mask_]; }
    Sum& sum_at(std::uint64_t number) { return sums_[number & sums_mask_]; }

    // The sum less as many times the mid as it has mids. The mid is cut in two whose products are exact; from the halves
    // and the sum's parts the differences are, too, unless what is left is large.
    double less_mids(const Sum& sum, double mid) const {
        const double scaled = 134217729.0 * mid;
        const double upper = scaled - (scaled - mid);
        const double lower = mid - upper;
        return (((sum.high - ma_count_ * upper) - ma_count_ * lower) + sum.mid) + sum.low;
    }

    // Where the mids are too far apart for a sum of three doubles: from the window itself.
    [[gnu::noinline, gnu::cold]] TripleSum sum_anew(std::uint64_t number) {
        TripleSum sum;
        const std::uint64_t count = std::min(number + 1, params_.ma_steps);
        for (std::uint64_t at = number + 1 - count; at <= number; ++at) sum.add(mid_at(at));
        return sum;
    }

    void take_rank(const RollingRank::Rank& rank) {
        row_[kSpread] = as_double(2 * rank.less + rank.equal + 1) / as_double(2 * spreads_.size());
        is_ranked_ = true;
    }

    SignalParams params_;
    std::uint64_t warm_ = std::max(params_.momentum_steps, params_.ma_steps + params_.trend_lag_steps);
    double ma_count_;
    double trend_count_;
    std::vector<double> mids_;  // rings, by the mids' numbers
    std::vector<Sum> sums_;
    std::uint64_t mids_mask_;
    std::uint64_t sums_mask_;
    TripleSum sum_;
    RollingRank spreads_;
    bool is_ranked_ = true;
    std::array<double, kCount> row_{};
};

}  // namespace ami
