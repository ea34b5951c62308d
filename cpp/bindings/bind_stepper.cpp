// A run's decisions one event at a time: what loop/native_step.py drives, and reads out when the run goes on in Python.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <ami/decision_core.hpp>
#include <ami/event_error.hpp>
#include <ami/order_log.hpp>

#include <array>
#include <bitset>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "feature_engine.hpp"
#include "loop_settings.hpp"
#include "packet_writer.hpp"

namespace nb = nanobind;

namespace {

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
    // Nothing was stepped:
    kForeign = -1,  // not of this symbol, or of a kind that is not known here
    kFold = -2,     // to be folded in Python: `step_folded` does the rest
    // The venue saw the event, and nothing was decided on it: only Python can go on from here.
    kCrumb = -3,
};

constexpr std::int64_t kProgressEvery = 1'000;
constexpr std::size_t kTimes = 6;  // start, and the end of each stage
constexpr std::size_t kTimesKept = 4'096;
constexpr std::size_t kFillsKept = 10'000;
constexpr std::size_t kClosedKept = 1'024;
constexpr std::size_t kDrawsAStep = 4;
// The last time that is stepped here, in the year 2116: timers and cooldowns are added to it in 64 bits.
constexpr std::int64_t kLastNs = std::int64_t{1} << 62;

enum Kind : int { kBook, kTrade, kBar, kGap, kOther };
enum Seq : int { kBookSeq, kTradeSeq, kBarSeq, kSeqs };

std::int64_t clock_ns() {
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
std::int64_t whole(const nb::object& value) {
    const nb::object index = nb::steal(PyNumber_Index(value.ptr()));
    const long long given = index.is_valid() ? PyLong_AsLongLong(index.ptr()) : -1;
    if (given == -1 && PyErr_Occurred() != nullptr) throw nb::python_error();
    return given;
}
double number(const nb::object& value) {
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
        if (timer_entry_ns_ != 0 && timer_entry_ns_ < ts) {
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

    // Step the timers that are due before `before_ns`, up to one that asks for something.
    int run_timers(std::int64_t before_ns) {
        while (timer_entry_ns_ != 0 && timer_entry_ns_ < before_ns) {
            const std::int64_t due_ns = timer_entry_ns_;
            timer_entry_ns_ = 0;
            if (timer_due_ns_ > due_ns) timer_entry_ns_ = timer_due_ns_;
            if (timer_entry_ns_ != 0 || timer_due_ns_ == 0) continue;
            const std::int64_t started = clock_ns();
            pending_timer_ns_ = due_ns;
            if (!core_.keeper().can_fold()) return kCrumb;
            const int told = decide(nb::handle(), due_ns, true, started, started);
            if (told == kCrumb) return told;
            pending_timer_ns_ = timer_due_ns_ = 0;
            // The guard's own arithmetic, to the millisecond: a timer that has found the symbol stale is the last.
            if (due_ns / ami::kNsPerMs - core_.last_book_ms <= core_.settings().policy.staleness_ms) {
                timer_due_ns_ = timer_entry_ns_ = due_ns + core_.settings().timer_ns;
            }
            if (told != 0) return told;
        }
        return 0;
    }

    // Log every step from here on; `words` is what packets say besides numbers.
    void trace_into(nb::object writer, const nb::dict& words);

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

    nb::dict counts();
    nb::dict account() const;
    nb::dict risk() const;
    nb::object held() const;
    nb::dict orders() const;
    nb::dict venue();

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
        core_.judge();
        if (!core_.can_act()) return kCrumb;
        const std::int64_t decided = clock_ns();
        core_.act(is_timer);
        const std::int64_t acted = clock_ns();
        int told = writer_ != nullptr || log_.keeps_notes ? record(event, now_ns, is_timer, {started, observed, booked, decided, acted}) : 0;
        core_.count(is_timer);
        for (const std::int64_t time : {started, observed, booked, decided, acted, clock_ns()}) times_.push_back(time);
        if (core_.risk().latches().size() != latched) told |= kLatched;
        if (core_.actions().has_error) told |= kFailed;
        if (!is_timer && core_.counts.steps % kProgressEvery == 0) told |= kProgress;
        if (times_.size() == kTimes * kTimesKept) told |= kTimesFull;
        if (is_drawing_ && core_.venue().draws_left() < kDrawsAStep) told |= kMoreDraws;
        if (core_.fills.size() >= 2 * kFillsKept) {
            core_.fills.erase(core_.fills.begin(), core_.fills.begin() + kFillsKept);
            fills_dropped_ += kFillsKept;
        }
        return told;
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
        switch (writer_->log_core(core_, is_timer ? now_ns : 0, event, spent)) {
            case packets::kNotWritten: return told | kPacket;
            case packets::kFlushIsDue: return told | kFlush;
            default: return told;
        }
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
    std::vector<packets::CoreWords::ContextField> context_fields_;
    nb::object writer_object_;
    packets::PacketWriter* writer_ = nullptr;

    std::array<nb::object, 4> types_;
    Name symbol_name_{"symbol"}, recv_{"recv_ts_ns"}, exch_{"exch_ts_ns"}, seq_{"seq"}, price_{"price"}, size_{"size"},
        aggressor_{"aggressor"}, open_{"open"}, high_{"high"}, low_{"low"}, close_{"close"}, volume_{"volume"},
        bids_{"bids"}, asks_{"asks"};
};

nb::tuple order_tuple(const ami::OrderRecord& r) {
    return nb::make_tuple(static_cast<int>(r.place), r.is_buy, r.post_only, static_cast<int>(r.end), r.price, r.qty,
                          r.filled_qty, r.avg_price, r.ticks, r.placed_ms, r.step, r.venue_number);
}

// What is recorded. ---------------------------------------------------------------------------------------------------

template <std::size_t N>
void read_words(nb::handle given, std::array<packets::Word, N>& to) {
    const auto words = nb::cast<nb::sequence>(given);
    if (nb::len(words) != N) throw std::invalid_argument("a packet's words are not as many as the core knows");
    for (std::size_t i = 0; i < N; ++i) to[i].string = words[i];
}

void Stepper::trace_into(nb::object writer, const nb::dict& words) {
    packets::CoreWords known;
    known.context_type = words["context_type"];
    known.proposal_type = words["proposal_type"];
    known.final_type = words["final_type"];
    known.symbol = symbol_;
    known.policy_hash = words["policy_hash"];
    known.timer.string = words["timer"];
    read_words(words["reasons"], known.reasons);
    read_words(words["exits"], known.exits);
    const auto actions = nb::cast<nb::sequence>(words["actions"]);
    for (std::size_t i = 0; i < known.actions.size(); ++i) known.actions[i] = actions[i];
    read_words(words["params"], known.params);
    read_words(words["external"], known.external);
    known.learn_context(nb::cast<nb::sequence>(words["context_keys"]));
    context_fields_ = known.context;
    writer_object_ = std::move(writer);
    writer_ = &nb::cast<packets::PacketWriter&>(writer_object_);
    writer_->begin_core(std::move(known));
    core_.be_exact();
}

nb::tuple Stepper::context() const {
    nb::list values;
    for (const packets::CoreWords::ContextField& field : context_fields_) {
        const packets::ContextValue value = packets::context_keys::value(field.key, core_.context(), core_.risk());
        if (field.is_latches) {
            values.append(latched_before());
        } else if (value.kind == packets::ContextValue::whole) {
            values.append(value.number);
        } else if (value.kind == packets::ContextValue::real) {
            values.append(value.size);
        } else if (value.kind == packets::ContextValue::flag) {
            values.append(value.number != 0);
        } else {
            values.append(nb::none());
        }
    }
    return nb::tuple(values);
}

// What the guards saw: those that this decision latched came after.
nb::tuple Stepper::latched_before() const {
    nb::list latched;
    const std::size_t seen = std::bitset<64>(core_.context().latched).count();
    for (std::size_t i = 0; i < seen; ++i) {
        latched.append(ami::kGuardFlags[static_cast<int>(core_.risk().latches()[i]) - 1]);
    }
    return nb::tuple(latched);
}

nb::list Stepper::take_notes() {
    nb::list told;
    for (const ami::OrderNote& note : log_.notes) {
        const ami::Refusal& refusal = note.refusal;
        told.append(nb::make_tuple(static_cast<int>(note.what), order_tuple(note.order),
                                   nb::make_tuple(static_cast<int>(refusal.why), refusal.held, refusal.own.price,
                                                  refusal.own.step, refusal.own.is_buy, refusal.best)));
    }
    log_.notes.clear();
    return told;
}

// Levels of the last book. --------------------------------------------------------------------------------------------

void Stepper::read_levels(nb::handle levels, bool is_bid, std::vector<double>& to) {
    to.clear();
    const nb::object sides = nb::module_::import_("builtins").attr("list")(levels);
    const std::size_t count = nb::len(sides);
    for (std::size_t i = 0; i < count; ++i) {
        const nb::object pair = sides[i];
        const double price = number(pair[0]);
        if (!std::isnan(price)) {
            to.push_back(price);
            to.push_back(number(pair[1]));
        } else if (i + 1 == count) {
            // Nothing is known of what lies behind a level without a price.
            to.push_back(is_bid ? std::numeric_limits<double>::infinity() : -std::numeric_limits<double>::infinity());
            to.push_back(0.0);
        }
    }
}

ami::BookLevels Stepper::load() {
    read_levels(bids_.of(last_book_), true, bid_levels_);
    read_levels(asks_.of(last_book_), false, ask_levels_);
    ami::BookLevels levels;
    levels.image = ami::BookImage::whole;
    levels.bids = bid_levels_.data();
    levels.asks = ask_levels_.data();
    levels.bid_count = bid_levels_.size() / 2;
    levels.ask_count = ask_levels_.size() / 2;
    return levels;
}

// Reading the state out. ----------------------------------------------------------------------------------------------

template <class List>
nb::list listed(const List& values) {
    nb::list list;
    for (const auto value : values) list.append(value);
    return list;
}

template <class Queue>
nb::list queued(const Queue& queue) {
    nb::list list;
    for (std::size_t i = 0; i < queue.size(); ++i) list.append(queue[i]);
    return list;
}

nb::tuple fill_tuple(const ami::VenueFill& f, std::size_t place) {
    return nb::make_tuple(place, static_cast<int>(f.place), f.is_buy, f.is_maker, f.price, f.qty, f.fee, f.ts_ns, f.step);
}

nb::dict Stepper::counts() {
    core_.count_codes();
    const ami::LoopCounts& counts = core_.counts;
    nb::dict d;
    d["steps"] = counts.steps;
    d["timers"] = counts.timers;
    d["fill_count"] = fills_dropped_ + core_.fills.size();
    d["submitted"] = counts.submitted;
    d["canceled"] = counts.canceled;
    d["rejected"] = counts.rejected;
    d["skipped"] = counts.skipped;
    d["errors"] = counts.errors;
    d["actions"] = listed(counts.actions);
    d["proposals"] = listed(counts.proposals);
    d["codes"] = listed(counts.codes);
    d["held_codes"] = listed(counts.held_codes);
    d["held_reasons"] = listed(counts.held_reasons);
    return d;
}

nb::dict Stepper::account() const {
    const ami::Account& account = core_.account();
    const ami::Position& position = account.position;
    nb::dict d;
    d["has_fills"] = fills_dropped_ + core_.fills.size() > 0;
    d["qty"] = position.exact_qty().text();
    d["cost"] = position.exact_cost().text();
    d["realized"] = position.exact_realized().text();
    d["fees"] = position.exact_fees().text();
    d["trip_pnl"] = position.exact_trip_pnl().text();
    d["mark"] = account.last_mark();
    d["equity"] = account.equity;
    d["peak"] = account.peak;
    d["unrealized"] = account.unrealized;
    d["exposure_usd"] = account.exposure_usd;
    d["max_drawdown"] = account.max_drawdown;
    d["open_count"] = account.open_count;
    d["close_count"] = account.close_count;
    return d;
}

nb::dict Stepper::risk() const {
    const ami::RiskState& risk = core_.risk();
    const ami::RiskState::Money& money = risk.money();
    const ami::RiskState::Timers& timers = risk.timers();
    nb::dict d;
    d["cancels"] = queued(risk.cancels().times());
    d["quotes"] = queued(risk.quotes().times());
    nb::list steps;
    for (std::size_t i = 0; i < risk.steps().size(); ++i) steps.append(risk.steps()[i] != 0);
    d["steps"] = steps;
    d["losses"] = risk.losses();
    d["usd_rate"] = risk.usd_rate();
    d["day"] = money.day_end_ns == 0 ? -1 : money.day_end_ns / ami::kNsPerDay - 1;
    d["realized"] = money.realized;
    d["total"] = money.total;
    d["day_start_realized"] = money.day_start_realized;
    d["day_start_total"] = money.day_start_total;
    d["equity"] = money.equity;
    d["peak_equity"] = money.peak_equity;
    d["timers"] = nb::make_tuple(timers.throttle, timers.post_fill, std::int64_t{0}, timers.adverse[0], timers.adverse[1],
                                 timers.streak, timers.quote_budget);
    const ami::Markouts& markouts = risk.markouts();
    nb::list fills;
    for (std::size_t i = 0; i < markouts.fills().size(); ++i) {
        const ami::Markouts::MarkedFill& fill = markouts.fills()[i];
        nb::list marks;
        for (int horizon = 0; horizon < 2; ++horizon) {
            if (i < markouts.settled(horizon)) {
                marks.append(fill.markouts[horizon]);
            } else {
                marks.append(nb::none());
            }
        }
        nb::list row;
        row.append(fill.ts_ns);
        row.append(fill.sign > 0.0 ? 1 : -1);
        row.append(fill.qty);
        row.append(fill.mid);
        row.append(marks);
        fills.append(row);
    }
    nb::dict marked;
    marked["mid"] = std::isnan(markouts.mid()) ? nb::object(nb::none()) : nb::object(nb::float_(markouts.mid()));
    marked["fills"] = fills;
    d["markouts"] = marked;
    nb::list latches;
    for (const ami::Guard guard : risk.latches()) latches.append(ami::kGuardFlags[static_cast<int>(guard) - 1]);
    d["latches"] = latches;
    return d;
}

nb::object Stepper::held() const {
    const ami::PositionManager& p = core_.positions();
    if (!p.is_open()) return nb::none();
    return nb::make_tuple(p.qty(), p.avg_price(), static_cast<std::int64_t>(p.opened_ms()), p.largest_qty());
}

nb::dict Stepper::orders() const {
    const ami::OrderKeeper& keeper = core_.keeper();
    const ami::OrderKeeper::Calm& calm = keeper.calm();
    const auto time = [](std::int64_t ms) {
        if (ms == std::numeric_limits<std::int64_t>::min()) return nb::object(nb::float_(-std::numeric_limits<double>::infinity()));
        if (ms == std::numeric_limits<std::int64_t>::max()) return nb::object(nb::float_(std::numeric_limits<double>::infinity()));
        return nb::object(nb::int_(ms));
    };
    nb::dict d;
    nb::list places;
    for (const ami::Place place : {ami::Place::bid, ami::Place::ask, ami::Place::exit}) {
        const ami::OrderKeeper::Working& working = keeper.working(place);
        places.append(nb::make_tuple(working.is_live, order_tuple(working.order), working.lookup_ms,
                                     time(working.blocked_until_ms)));
    }
    d["places"] = places;
    d["calm"] = nb::make_tuple(time(calm.until_ms), calm.is_bid_off, calm.is_ask_off, calm.post_only, calm.bid_low,
                               calm.bid_high, calm.ask_low, calm.ask_high);
    d["is_stopped"] = keeper.is_stopped();
    d["replaced_ms"] = queued(keeper.replaced_ms());
    d["last_sent"] = nb::make_tuple(log_.last_sent[0], log_.last_sent[1]);
    nb::list closed;
    for (const ami::OrderRecord& record : log_.closed) closed.append(order_tuple(record));
    d["closed"] = closed;
    return d;
}

nb::dict Stepper::venue() {
    ami::PaperVenue& venue = core_.venue();
    nb::dict d;
    d["now_ns"] = venue.now_ns();
    d["orders_seen"] = venue.orders_seen();
    d["has_orders"] = log_.last_sent[0] >= 0 || log_.last_sent[1] >= 0;
    d["fills_made"] = fills_dropped_ + core_.fills.size() + venue.fills.size();
    d["cash_flow"] = venue.cash_flow().text();
    d["position"] = venue.position().text();
    const ami::MarketView& view = venue.view();
    d["view"] = nb::make_tuple(view.bid, view.ask, view.bid_size, view.ask_size);
    d["bid_taken"] = venue.taken(false).text();
    d["ask_taken"] = venue.taken(true).text();
    d["book"] = last_book_;
    nb::list open;
    for (const bool is_buy : {true, false}) {
        ami::VenueOrder& o = venue.order(is_buy);
        if (!o.is_open) continue;
        ami::OrderRecord record;
        record.place = o.request.place;
        record.is_buy = o.request.is_buy;
        record.post_only = o.request.post_only;
        record.price = o.request.price;
        record.qty = o.request.qty;
        record.step = o.request.step;
        record.venue_number = o.number;
        open.append(nb::make_tuple(o.number, order_tuple(record), o.leaves().text(), o.ahead, o.shown, o.traded, o.takes));
    }
    d["open"] = open;
    nb::list ended;
    for (const ami::OrderRecord& record : log_.ended) ended.append(order_tuple(record));
    d["ended"] = ended;
    nb::list fills;
    const std::size_t first = core_.fills.size() > kFillsKept ? core_.fills.size() - kFillsKept : 0;
    for (std::size_t i = first; i < core_.fills.size(); ++i) fills.append(fill_tuple(core_.fills[i], fills_dropped_ + i + 1));
    d["fills"] = fills;
    nb::list unreported;
    for (std::size_t i = 0; i < venue.fills.size(); ++i) {
        unreported.append(fill_tuple(venue.fills[i], fills_dropped_ + core_.fills.size() + i + 1));
    }
    d["unreported"] = unreported;
    d["draws_used"] = draws_taken_ + venue.draws_used();
    return d;
}

}  // namespace

void bind_stepper(nb::module_& m) {
    m.attr("STEP_LATCHED") = static_cast<int>(kLatched);
    m.attr("STEP_FAILED") = static_cast<int>(kFailed);
    m.attr("STEP_PROGRESS") = static_cast<int>(kProgress);
    m.attr("STEP_TIMES_FULL") = static_cast<int>(kTimesFull);
    m.attr("STEP_MORE_DRAWS") = static_cast<int>(kMoreDraws);
    m.attr("STEP_AGAIN") = static_cast<int>(kAgain);
    m.attr("STEP_NOTES") = static_cast<int>(kNotes);
    m.attr("STEP_THROTTLED") = static_cast<int>(kThrottled);
    m.attr("STEP_PACKET") = static_cast<int>(kPacket);
    m.attr("STEP_FLUSH") = static_cast<int>(kFlush);
    m.attr("STEP_FOREIGN") = static_cast<int>(kForeign);
    m.attr("STEP_FOLD") = static_cast<int>(kFold);
    m.attr("STEP_CRUMB") = static_cast<int>(kCrumb);
    nb::class_<Stepper>(m, "Stepper",
                        "Decisions of one market, one event at a time, over the features of an engine that Python shares.")
        .def(nb::init<nb::object, nb::str, const nb::dict&, std::vector<double>, std::vector<double>, bool,
                      const std::vector<bool>&, std::size_t>(),
             nb::arg("engine"), nb::arg("symbol"), nb::arg("settings"), nb::arg("draws"), nb::arg("model_params"),
             nb::arg("keeps_book"), nb::arg("unique_seq"), nb::arg("history"))
        .def("step", &Stepper::step, nb::arg("event").none(), "Take an event, timers before it included; return what is asked.")
        .def("step_folded", &Stepper::step_folded, nb::arg("event"), nb::arg("ts_ns"), nb::arg("started_ns"),
             "Decide on an event that was folded outside and told by `set_market`.")
        .def("run_timers", &Stepper::run_timers, nb::arg("before_ns"), "Step the timers due before a time.")
        .def("trace_into", &Stepper::trace_into, nb::arg("writer"), nb::arg("words"),
             "Log every step from here on; `words` is what packets say besides numbers.")
        .def("keep_notes", &Stepper::keep_notes, "Note what becomes of orders.")
        .def("take_notes", &Stepper::take_notes, "Return what became of orders since the last call.")
        .def("context", &Stepper::context, "The context of the last decision, a value for each field of its type.")
        .def("proposal", &Stepper::proposal, "The numbers of the last proposal.")
        .def("done", &Stepper::done, "What the last decision did with orders.")
        .def("last_times", &Stepper::last_times, "When the last step began, and when each of its stages ended, ns.")
        .def("finish", &Stepper::finish, "Cancel every order and book the last fills.")
        .def("market", &Stepper::market, "The symbol's prices, times and sequence numbers.")
        .def("set_market", &Stepper::set_market, nb::arg("bid"), nb::arg("ask"), nb::arg("mid"), nb::arg("bid_size"),
             nb::arg("ask_size"), nb::arg("changed"), nb::arg("has_gap"), nb::arg("last_book_ts_ns"), nb::arg("last_seq"),
             "Take over what was folded outside.")
        .def("take_times", &Stepper::take_times, "Return the stage times of the steps since the last call.")
        .def("use_draws", &Stepper::use_draws, nb::arg("draws"), "Take more random numbers for the queue.")
        .def("decision", &Stepper::decision, "The last decision.")
        .def("quote_fault", &Stepper::quote_fault, "The last quotes that no order could be made of.")
        .def("counts", &Stepper::counts, "What was counted.")
        .def("account", &Stepper::account, "The money.")
        .def("risk", &Stepper::risk, "What the guards remember.")
        .def("held", &Stepper::held, "The position manager's entry, None when flat.")
        .def("orders", &Stepper::orders, "The order manager's state.")
        .def("venue", &Stepper::venue, "The paper venue's state.")
        .def_prop_ro("steps", &Stepper::steps)
        .def_prop_ro("sequence", &Stepper::sequence)
        .def_prop_ro("now_ns", &Stepper::now_ns)
        .def_prop_ro("is_throttled", &Stepper::is_throttled)
        .def_prop_ro("pending_timer_ns", &Stepper::pending_timer_ns)
        .def_prop_ro("is_last_error_the_models", &Stepper::is_last_error_the_models);
}
