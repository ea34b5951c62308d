// A run's decisions one event at a time: what loop/native_run.py drives, and reads out when the run goes on in Python.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <ami/decision_core.hpp>
#include <ami/event_error.hpp>
#include <ami/order_log.hpp>

#include <array>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "asked_model.hpp"
#include "feature_engine.hpp"
#include "loop_settings.hpp"
#include "packet_writer.hpp"

namespace stepping {

namespace nb = nanobind;

// What a call asks of Python afterwards; 0 is nothing.
enum Told : int {
    kLatched = 1,    // a STOP latched
    kFailed = 2,     // the decision's orders or its model failed
    kProgress = 4,   // a round number of steps was made
    kTimesFull = 8,  // `take_times` is due
    kMoreDraws = 16, // `use_draws` is due
    kAgain = 32,     // only timers were stepped: the same call again goes on
    kNotes = 64,     // `take_notes` is due
    kThrottled = 128,  // the throttle on refreshing quotes came, or went
    kPacket = 256,   // the step's packet is to be made
    kFlush = 512,    // the trace's packets are to be handed on
    kActivity = 1024,  // `take_activity` is due
    // Nothing was stepped:
    kForeign = -1,  // not of this symbol, or of a kind that is not known here
    kFold = -2,     // to be folded in Python: `step_folded` does the rest
    // The venue saw the event, and nothing was decided on it: only Python can go on from here.
    kCrumb = -3,
    // The same of a model's proposal, which was asked for: `given` is to be decided on in Python.
    kProposed = -4,
};

constexpr std::int64_t kProgressEvery = 1'000;
constexpr std::size_t kTimes = 6;  // start, and the end of each stage
constexpr std::size_t kTimesKept = 4'096;
constexpr std::size_t kFillsKept = 10'000;
constexpr std::size_t kFillsHeld = kFillsKept + 2'048;  // the oldest are dropped many at a time
constexpr std::size_t kClosedKept = 1'024;
constexpr std::size_t kDrawsAStep = 4;
constexpr std::size_t kMarksKept = 512;
// The last time that is stepped here, in the year 2116: timers and cooldowns are added to it in 64 bits.
constexpr std::int64_t kLastNs = std::int64_t{1} << 62;

enum Kind : int { kBook, kTrade, kBar, kGap, kOther };
enum Seq : int { kBookSeq, kTradeSeq, kBarSeq, kSeqs };

inline std::int64_t clock_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class Name {
public:
    explicit Name(const char* text) : held_(nb::steal(PyUnicode_InternFromString(text))) {}
    nb::object of(nb::handle event) const {
        PyObject* value = PyObject_GetAttr(event.ptr(), held_.ptr());
        if (value == nullptr) throw nb::python_error();
        return nb::steal(value);
    }

private:
    nb::object held_;
};

// Whole numbers and numbers of any type that says it is one, such as NumPy's.
inline std::int64_t whole(const nb::object& value) {
    const nb::object index = nb::steal(PyNumber_Index(value.ptr()));
    const long long given = index.is_valid() ? PyLong_AsLongLong(index.ptr()) : -1;
    if (given == -1 && PyErr_Occurred() != nullptr) throw nb::python_error();
    return given;
}
inline double number(const nb::object& value) {
    const double given = PyFloat_AsDouble(value.ptr());
    if (given == -1.0 && PyErr_Occurred() != nullptr) throw nb::python_error();
    return given;
}

class Stepper final : public ami::LevelSource {
public:
    Stepper(nb::object engine, nb::str symbol, const nb::dict& settings, std::vector<double> draws,
            std::vector<double> params, bool keeps_book, const std::vector<bool>& unique_seq, std::size_t history)
        : engine_object_(std::move(engine)),
          engine_(nb::cast<FeatureEngine&>(engine_object_)),
          symbol_(std::move(symbol)),
          draws_(std::move(draws)),
          params_(std::move(params)),
          keeps_book_(keeps_book),
          is_drawing_(!draws_.empty()),
          log_(history, kClosedKept),
          core_(read_settings(settings, draws_.data(), draws_.size(), params_), engine_.builder().row(),
                engine_.builder().row_size()) {
        for (std::size_t i = 0; i < kSeqs; ++i) is_unique_[i] = unique_seq.at(i);
        core_.venue().keep_books(log_, *this);
        core_.keeper().keep_books(log_);
        const nb::module_ events = nb::module_::import_("ami_engine.events");
        const char* names[] = {"BookSnapshot", "Trade", "Bar", "FeedGap"};
        for (std::size_t i = 0; i < types_.size(); ++i) types_[i] = events.attr(names[i]);
        times_.reserve(kTimes * kTimesKept);
    }

    // Take one event, the timers before it included.
    int step(nb::handle event) {
        std::int64_t started = clock_ns();
        const Kind kind = kind_of(event);
        if (kind == kOther || !is_ours(event)) return kForeign;
        EventView seen;
        std::int64_t seq = 0;
        try {
            if (kind == kGap) {
                if (keeps_book_) return kFold;
                seen.ts_ns = whole(recv_.of(event));
                if (seen.ts_ns == 0) seen.ts_ns = whole(exch_.of(event));
            } else {
                seen = engine_.reader().read(event);
                if (seen.kind == EventKind::levels && keeps_book_) return kFold;
                if (is_unique_[kind]) seq = whole(seq_.of(event));
                if (kind == kBar && !read_bar(event)) return kForeign;
            }
        } catch (const ami::EventError&) {
            return kFold;
        } catch (const nb::python_error&) {
            return kFold;
        }
        const std::int64_t ts = seen.ts_ns;
        if (ts > kLastNs) return kForeign;
        if (ts <= 0 || ts < last_ts_ns_ || (seq != 0 && seq <= last_seq_[kind])) return kFold;
        if (is_timer_due(ts)) {
            if (kind != kGap && engine_.check(seen, ts)) return kFold;
            if (const int told = run_timers(ts)) return told < 0 ? told : told | kAgain;
            started = clock_ns();
        }
        // A side's levels may be the caller's own array: its size is read before the reader lets go of it.
        const double bid_size = seen.kind == EventKind::levels ? first_size(seen.bids, seen.bid_count) : seen.bid_depth;
        const double ask_size = seen.kind == EventKind::levels ? first_size(seen.asks, seen.ask_count) : seen.ask_depth;
        const bool is_refused = static_cast<bool>(push(seen, kind));
        engine_.reader().release();
        if (is_refused) return kFold;
        last_ts_ns_ = ts;
        if (seq != 0) last_seq_[kind] = seq;
        if (kind == kBook || kind == kBar) core_.take_book(ts, kind == kBook ? bid_size : 0.0, kind == kBook ? ask_size : 0.0);
        if (kind == kBook) core_.has_gap = false;
        if (kind == kGap) core_.has_gap = true;
        changed_ = kind != kGap;
        arm(kind, ts);
        return show_and_decide(event, kind, ts, started);
    }

    // Take over what Python has folded, and decide on it.
    int step_folded(nb::handle event, std::int64_t ts, std::int64_t started) {
        last_ts_ns_ = ts;
        const Kind kind = kind_of(event);
        arm(kind, ts);
        if (kind == kBar) (void)read_bar(event);
        return show_and_decide(event, kind, ts, started);
    }

    // Whether a timer is due before `before_ns`; an event only moved the end of the silence, not when to look at it.
    bool is_timer_due(std::int64_t before_ns) {
        while (timer_entry_ns_ != 0 && timer_entry_ns_ < before_ns) {
            if (timer_due_ns_ != 0 && timer_due_ns_ <= timer_entry_ns_) return true;
            timer_entry_ns_ = timer_due_ns_;
        }
        return false;
    }

    // Step the timers that are due before `before_ns`, up to one that asks for something.
    int run_timers(std::int64_t before_ns) {
        while (is_timer_due(before_ns)) {
            const std::int64_t due_ns = timer_entry_ns_;
            timer_entry_ns_ = 0;
            const std::int64_t started = clock_ns();
            pending_timer_ns_ = due_ns;
            if (!core_.keeper().can_fold()) return kCrumb;
            const int told = decide(nb::handle(), due_ns, true, started, started);
            if (told < 0) return told;
            pending_timer_ns_ = timer_due_ns_ = 0;
            // The guard's own arithmetic, to the millisecond: a timer that has found the symbol stale is the last.
            if (due_ns / ami::kNsPerMs - core_.last_book_ms <= core_.settings().policy.staleness_ms) {
                timer_due_ns_ = timer_entry_ns_ = due_ns + core_.settings().timer_ns;
            }
            if (told != 0) return told;
            // A model in Python may command, or stop, the run: that is looked at after each step.
            if (asked_.exists()) return kAgain;
        }
        return 0;
    }

    // Let a model in Python propose: see AskedModel.
    void ask_model(nb::object ask, nb::object type, const nb::sequence& actions, nb::object failure) {
        asked_ = AskedModel(std::move(ask), std::move(type), actions, std::move(failure));
    }
    // What it proposed at the last decision, None where it was not asked.
    nb::object given() const { return asked_.given().is_valid() ? asked_.given() : nb::object(nb::none()); }
    // The state was read out: whatever a model that is being asked proposes, nothing more is decided here.
    void release() {
        is_released_ = true;
        asked_.detach();
    }
    // In the middle of a step: its fills are booked, and the model's proposal is not decided on.
    bool is_asking() const { return is_asking_; }

    // Log every step from here on; `words` is what packets say besides numbers.
    void trace_into(nb::object writer, const nb::dict& words);

    // Packets say from here on what the operator or a latch lets leave; nothing while the text is empty.
    void say_state(nb::str state) {
        if (writer_ != nullptr) writer_->set_state(std::move(state));
    }

    // Note what becomes of orders, for an audit log.
    void keep_notes() { log_.keeps_notes = true; }

    void finish() {
        core_.count_codes();
        core_.finish();
    }

    // The state of the symbol, for Python to fold an event into, and back again.
    nb::tuple market() const {
        const ami::MarketView& view = core_.view;
        return nb::make_tuple(view.bid, view.ask, core_.mid, view.bid_size, view.ask_size, changed_, core_.has_gap,
                              last_ts_ns_, core_.last_book_ts_ns, timer_due_ns_, timer_entry_ns_,
                              nb::make_tuple(last_seq_[kBookSeq], last_seq_[kTradeSeq], last_seq_[kBarSeq]));
    }
    void set_market(double bid, double ask, double mid, double bid_size, double ask_size, bool changed, bool has_gap,
                    std::int64_t last_book_ts_ns, const std::vector<std::int64_t>& last_seq) {
        core_.view = {bid, ask, bid_size, ask_size};
        core_.mid = mid;
        core_.has_gap = has_gap;
        core_.last_book_ts_ns = last_book_ts_ns;
        core_.last_book_ms = last_book_ts_ns / ami::kNsPerMs;
        changed_ = changed;
        for (std::size_t i = 0; i < kSeqs; ++i) last_seq_[i] = last_seq.at(i);
    }

    // Six times a step, ns: its start and the end of each stage. They are forgotten here.
    nb::bytes take_times() {
        const nb::bytes told(reinterpret_cast<const char*>(times_.data()), times_.size() * sizeof(std::int64_t));
        times_.clear();
        return told;
    }

    // More numbers for the queue, those that are left over first.
    void use_draws(const std::vector<double>& more) {
        const std::size_t used = core_.venue().draws_used();
        draws_taken_ += used;
        draws_.erase(draws_.begin(), draws_.begin() + static_cast<std::ptrdiff_t>(used));
        draws_.insert(draws_.end(), more.begin(), more.end());
        core_.venue().use_draws(draws_.data(), draws_.size());
    }

    // The decision that was just made: time, proposed and final action, codes, reasons of the model, and why it exits.
    nb::tuple decision() const {
        return nb::make_tuple(core_.now_ns(), static_cast<int>(core_.proposal().action),
                              static_cast<int>(core_.verdict().action), core_.verdict().codes, core_.proposal().reasons,
                              static_cast<int>(core_.exit()));
    }
    nb::tuple quote_fault() const {
        const ami::QuoteFault& fault = core_.keeper().last_fault();
        const ami::Quotes& q = fault.quotes;
        return nb::make_tuple(q.bid_quote, q.ask_quote, q.size_usd, q.post_only, fault.bid, fault.ask);
    }
    bool is_last_error_the_models() const { return core_.counts.is_last_error_the_models; }
    std::int64_t steps() const { return core_.counts.steps; }
    std::int64_t pending_timer_ns() const { return pending_timer_ns_; }
    std::int64_t now_ns() const { return core_.now_ns(); }
    std::int64_t sequence() const { return core_.decisions_made(); }
    bool is_throttled() const { return is_throttled_; }
    std::int64_t open_orders() const { return core_.keeper().open_count(); }

    // The context of the last decision: its fields in the order of the type that `trace_into` was told.
    nb::tuple context() const;
    // Confidence, quotes, size, post-only, and whether there are parameters at all.
    nb::tuple proposal() const {
        const ami::Proposal& p = core_.proposal();
        return nb::make_tuple(core_.confidence(), p.bid_quote, p.ask_quote, p.size_usd, p.post_only, p.has_size);
    }
    // Orders submitted, canceled, rejected and skipped, and whether something failed.
    nb::tuple done() const {
        const ami::Actions& a = core_.actions();
        return nb::make_tuple(a.submitted, a.canceled, a.rejected, a.skipped, a.has_error);
    }
    // When the last step began, and when each of its stages ended, ns.
    nb::tuple last_times() const {
        return nb::make_tuple(last_times_[0], last_times_[1], last_times_[2], last_times_[3], last_times_[4]);
    }
    nb::list take_notes();

    // Note every fill and every change of the own quotes, for a picture.
    void keep_activity() { core_.activity.is_kept = true; }
    nb::list take_activity();

    nb::dict counts();
    nb::dict account() const;
    nb::dict risk() const;
    nb::object held() const;
    nb::dict orders() const;
    nb::dict venue();
    nb::list take_ended(std::size_t most);

    ami::BookLevels load() override;

private:
    Kind kind_of(nb::handle event) const {
        const auto* type = reinterpret_cast<PyObject*>(Py_TYPE(event.ptr()));
        for (std::size_t i = 0; i < types_.size(); ++i) {
            if (type == types_[i].ptr()) return static_cast<Kind>(i);
        }
        return kOther;
    }

    bool is_ours(nb::handle event) const {
        const nb::object symbol = symbol_name_.of(event);
        if (symbol.ptr() == symbol_.ptr()) return true;
        return PyUnicode_CheckExact(symbol.ptr()) && PyUnicode_Compare(symbol.ptr(), symbol_.ptr()) == 0;
    }

    // False for a bar of which more than the close is no number: the features read no more, the venue all of it.
    bool read_bar(nb::handle event) {
        try {
            bar_ = {number(open_.of(event)), number(high_.of(event)), number(low_.of(event)), number(close_.of(event)),
                    number(volume_.of(event))};
        } catch (const nb::python_error&) {
            return false;
        }
        return std::isfinite(bar_.open) && std::isfinite(bar_.high) && std::isfinite(bar_.low) &&
               std::isfinite(bar_.volume);
    }

    static double first_size(const double* levels, std::size_t count) { return count > 0 ? levels[1] : 0.0; }

    ami::Fault push(const EventView& e, Kind kind) {
        ami::FeatureBuilder& builder = engine_.builder();
        if (kind == kGap) return {};
        if (e.kind == EventKind::trade) return builder.push_trade(e.ts_ns, e.price, e.size, e.aggressor, 0);
        if (e.kind == EventKind::quote) return builder.push_quote(e.ts_ns, e.bid, e.ask, e.bid_depth, e.ask_depth, 0);
        return builder.push_book(e.ts_ns, e.bids, e.bid_count, e.asks, e.ask_count, 0, e.bid, e.ask);
    }

    void arm(Kind kind, std::int64_t ts) {
        const ami::LoopSettings& settings = core_.settings();
        // Bars are far apart by nature: silence after one says nothing, unless timers were asked for.
        if (settings.timer_ns == 0 || (kind == kBar && !settings.times_bars)) return;
        timer_due_ns_ = ts + settings.timer_ns;
        if (timer_entry_ns_ == 0) timer_entry_ns_ = timer_due_ns_;
    }

    int show_and_decide(nb::handle event, Kind kind, std::int64_t ts, std::int64_t started) {
        const std::int64_t observed = clock_ns();
        if (changed_) show(event, kind, ts);
        if (!core_.keeper().can_fold()) return kCrumb;
        return decide(event, ts, false, started, observed);
    }

    void show(nb::handle event, Kind kind, std::int64_t ts) {
        ami::PaperVenue& venue = core_.venue();
        if (kind == kTrade) {
            venue.on_trade(ts, core_.view, number(price_.of(event)), number(size_.of(event)), whole(aggressor_.of(event)));
            return;
        }
        last_book_ = nb::borrow(event);
        if (kind == kBar) {
            venue.on_bar(ts, core_.view, bar_);
            return;
        }
        ami::BookLevels levels;
        levels.image = kind == kBook ? ami::BookImage::on_call : ami::BookImage::none;
        venue.on_book(ts, core_.view, levels);
    }

    int decide(nb::handle event, std::int64_t now_ns, bool is_timer, std::int64_t started, std::int64_t observed) {
        const std::size_t latched = core_.risk().latches().size();
        core_.settle(now_ns);
        const std::int64_t booked = clock_ns();
        if (asked_.exists()) {
            asked_.forget();
            if (!core_.propose_unasked() && !take_proposal()) return kProposed;
            core_.weigh();
        } else {
            core_.judge<true>();
        }
        if (!core_.can_act()) return kCrumb;
        const std::int64_t decided = clock_ns();
        core_.act<true>(is_timer);
        const std::int64_t acted = clock_ns();
        int told = writer_ != nullptr || log_.keeps_notes ? record(event, now_ns, is_timer, {started, observed, booked, decided, acted}) : 0;
        core_.count(is_timer);
        if (is_held_as_given() && !is_timer) asked_.count_reasons();
        for (const std::int64_t time : {started, observed, booked, decided, acted, clock_ns()}) times_.push_back(time);
        if (core_.risk().latches().size() != latched) told |= kLatched;
        if (core_.actions().has_error) told |= kFailed;
        if (!is_timer && core_.counts.steps % kProgressEvery == 0) told |= kProgress;
        if (times_.size() == kTimes * kTimesKept) told |= kTimesFull;
        if (core_.activity.marks.size() >= kMarksKept) told |= kActivity;
        if (is_drawing_ && core_.venue().draws_left() < kDrawsAStep) told |= kMoreDraws;
        if (core_.fills.size() >= kFillsHeld) {
            const std::size_t dropped = core_.fills.size() - kFillsKept;
            core_.fills.erase(core_.fills.begin(), core_.fills.begin() + static_cast<std::ptrdiff_t>(dropped));
            fills_dropped_ += dropped;
        }
        return told;
    }

    // False when what the model proposes is to be decided on in Python.
    bool take_proposal() {
        is_asking_ = true;
        asked_.ask();
        ami::Proposal proposal;
        if (is_released_ || !asked_.read(proposal)) return false;
        core_.take(proposal);
        if (!core_.can_act()) return false;
        is_asking_ = false;
        return true;
    }

    // Write the step's packet, and say what is left to Python of what is to be recorded.
    int record(nb::handle event, std::int64_t now_ns, bool is_timer, const std::array<std::int64_t, 5>& times) {
        last_times_ = times;
        int told = log_.notes.empty() ? 0 : kNotes;
        const ami::RiskPolicy& policy = core_.settings().policy;
        const bool is_throttled = (core_.verdict().codes & ami::bit(ami::Code::cancel_rate_exceeded)) != 0 &&
                                  policy.throttle_refresh_ms > 0;
        if (is_throttled != is_throttled_) told |= kThrottled;
        is_throttled_ = is_throttled;
        if (log_.keeps_notes && core_.actions().has_error) told |= kNotes;
        if (writer_ == nullptr) return told;
        const ami::StepTimes spent = {times[1] - times[0], times[2] - times[1], times[3] - times[2], times[4] - times[3],
                                      times[4] - times[0]};
        const AskedModel* const gave = asked_.given().is_valid() ? &asked_ : nullptr;
        switch (writer_->log_core(core_, gave, is_timer ? now_ns : 0, event, spent)) {
            case packets::kNotWritten: return told | kPacket;
            case packets::kFlushIsDue: return told | kFlush;
            default: return told;
        }
    }

    // A HOLD of the model's own, for reasons that only it knows the names of.
    bool is_held_as_given() const {
        return asked_.given().is_valid() && core_.proposal().action == ami::Action::HOLD &&
               core_.verdict().action == ami::Action::HOLD && core_.proposal().reasons == 0;
    }

    nb::tuple latched_before() const;
    static void read_levels(nb::handle levels, bool is_bid, std::vector<double>& to);

    nb::object engine_object_;
    FeatureEngine& engine_;
    nb::str symbol_;
    std::vector<double> draws_;
    std::vector<double> params_;
    bool keeps_book_;
    bool is_drawing_;
    ami::OrderLog log_;
    ami::DecisionCore core_;

    std::array<bool, kSeqs> is_unique_{};
    std::array<std::int64_t, kSeqs + 1> last_seq_{};
    bool changed_ = false;
    ami::BarRange bar_{};
    std::int64_t last_ts_ns_ = 0;
    std::int64_t timer_due_ns_ = 0;    // when the silence would end; 0: no timer
    std::int64_t timer_entry_ns_ = 0;  // when that is to be looked at; 0: not at all
    std::int64_t pending_timer_ns_ = 0;
    std::size_t fills_dropped_ = 0;
    std::size_t draws_taken_ = 0;
    nb::object last_book_ = nb::none();
    std::vector<double> bid_levels_;
    std::vector<double> ask_levels_;
    std::vector<std::int64_t> times_;
    std::array<std::int64_t, 5> last_times_{};
    bool is_throttled_ = false;
    bool is_released_ = false;
    bool is_asking_ = false;
    AskedModel asked_;
    std::vector<packets::CoreWords::ContextField> context_fields_;
    nb::object writer_object_;
    packets::PacketWriter* writer_ = nullptr;

    std::array<nb::object, 4> types_;
    Name symbol_name_{"symbol"}, recv_{"recv_ts_ns"}, exch_{"exch_ts_ns"}, seq_{"seq"}, price_{"price"}, size_{"size"},
        aggressor_{"aggressor"}, open_{"open"}, high_{"high"}, low_{"low"}, close_{"close"}, volume_{"volume"},
        bids_{"bids"}, asks_{"asks"};
};

inline nb::tuple order_tuple(const ami::OrderRecord& r) {
    return nb::make_tuple(static_cast<int>(r.place), r.is_buy, r.post_only, static_cast<int>(r.end), r.price, r.qty,
                          r.filled_qty, r.avg_price, r.ticks, r.placed_ms, r.step, r.venue_number);
}

}  // namespace stepping
