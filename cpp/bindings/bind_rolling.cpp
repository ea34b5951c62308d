// Rolling statistics as Python objects: the primitives under generic features.
#include <nanobind/nanobind.h>

#include <ami/rolling_stats.hpp>
#include <ami/state_archive.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

namespace nb = nanobind;

namespace {

// `window` 0 keeps everything until it is dropped.
std::uint64_t checked_window(std::int64_t window) {
    if (window < 0) throw std::invalid_argument("`window` must be at least 0, was " + std::to_string(window));
    return window == 0 ? std::numeric_limits<std::uint64_t>::max() : static_cast<std::uint64_t>(window);
}

void require_finite(double value) {
    if (!std::isfinite(value)) throw std::invalid_argument("a rolling statistic takes finite values only");
}

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

class Moments {
public:
    explicit Moments(std::int64_t window) : window_(checked_window(window)), values_(window_) {}

    void push(double value) {
        require_finite(value);
        values_.push(value);
    }
    void drop_oldest() {
        if (values_.size() == 0) throw std::invalid_argument("the window is empty");
        values_.pop();
    }
    std::uint64_t count() const { return values_.size(); }
    double mean() const { return count() == 0 ? kNan : values_.mean(); }
    double std_dev() const { return count() == 0 ? kNan : values_.std_dev(); }

    template <class Archive>
    void archive(Archive& ar) {
        values_.archive(ar);
        ar.require(values_.size() <= window_);
    }

private:
    std::uint64_t window_;
    ami::RollingMoments values_;
};

class Extrema {
public:
    explicit Extrema(std::int64_t window) : window_(checked_window(window)) {}

    void push(double value) {
        require_finite(value);
        low_.push(end_, value);
        high_.push(end_, value);
        ++end_;
        if (end_ - first_ > window_) drop_oldest();
    }
    void drop_oldest() {
        if (first_ == end_) throw std::invalid_argument("the window is empty");
        ++first_;
        low_.drop_before(first_);
        high_.drop_before(first_);
    }
    std::uint64_t count() const { return end_ - first_; }
    double min() const { return low_.empty() ? kNan : low_.value(); }
    double max() const { return high_.empty() ? kNan : high_.value(); }

    template <class Archive>
    void archive(Archive& ar) {
        ar.value(first_);
        ar.value(end_);
        low_.archive(ar);
        high_.archive(ar);
        ar.require(first_ <= end_ && low_.empty() == (first_ == end_) && high_.empty() == (first_ == end_));
    }

private:
    std::uint64_t window_;
    std::uint64_t first_ = 0;
    std::uint64_t end_ = 0;
    ami::RollingMin low_;
    ami::RollingMax high_;
};

template <class T>
nb::bytes save(T& self) {
    ami::StateWriter writer;
    self.archive(writer);
    return nb::bytes(writer.bytes().data(), writer.bytes().size());
}

template <class T>
void load(T& self, const nb::bytes& state) {
    T fresh = self;
    ami::StateReader reader(state.c_str(), state.size());
    fresh.archive(reader);
    reader.require(reader.is_at_end());
    self = std::move(fresh);
}

template <class T>
nb::class_<T> bind_window(nb::module_& m, const char* name, const char* doc) {
    return nb::class_<T>(m, name, doc)
        .def(nb::init<std::int64_t>(), nb::arg("window"))
        .def("push", &T::push, nb::arg("x"), nb::lock_self(), "Add a finite value; the oldest leaves a full window.")
        .def("drop_oldest", &T::drop_oldest, nb::lock_self(), "Take the oldest value out.")
        .def("snapshot", &save<T>, nb::lock_self(), "Return the state.")
        .def("restore", &load<T>, nb::arg("state"), nb::lock_self(), "Take a state back; ValueError when it is damaged.")
        .def_prop_ro("count", &T::count, "Number of values in the window.");
}

}  // namespace

void bind_rolling(nb::module_& m) {
    bind_window<Moments>(m, "RollingMoments",
                         "Mean and population standard deviation of the last `window` values (0: of all until dropped).")
        .def_prop_ro("mean", &Moments::mean, "Mean; NaN while the window is empty.")
        .def_prop_ro("std", &Moments::std_dev, "Population standard deviation; NaN while the window is empty.");
    bind_window<Extrema>(m, "RollingExtrema", "Minimum and maximum of the last `window` values (0: of all until dropped).")
        .def_prop_ro("min", &Extrema::min, "Smallest value; NaN while the window is empty.")
        .def_prop_ro("max", &Extrema::max, "Largest value; NaN while the window is empty.");
}
