// What a stepper tells to be recorded, and its binding.
#include "stepper.hpp"

namespace stepping {

void Stepper::trace_into(nb::object writer, const nb::dict& words) {
    packets::CoreWords known;
    known.context_type = words["context_type"];
    known.proposal_type = words["proposal_type"];
    known.final_type = words["final_type"];
    known.symbol = symbol_;
    known.policy_hash = words["policy_hash"];
    known.timer.string = words["timer"];
    packets::read_words(words["reasons"], known.reasons);
    packets::read_words(words["exits"], known.exits);
    const auto actions = nb::cast<nb::sequence>(words["actions"]);
    for (std::size_t i = 0; i < known.actions.size(); ++i) known.actions[i] = actions[i];
    packets::read_words(words["params"], known.params);
    packets::read_words(words["external"], known.external);
    known.findings.read(words);
    known.state_key.string = words["state_key"];
    known.state.string = nb::str("");
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
    for (std::size_t i = 0; i < packets::latched_before(core_); ++i) {
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

// A fill: step, time, is it a buy, is it a maker's, price, size, fee, and position and equity after it. A change of quotes:
// step, time, bid and ask, None for a side without one.
nb::list Stepper::take_activity() {
    const auto price = [](double given) { return given != 0.0 ? nb::object(nb::float_(given)) : nb::object(nb::none()); };
    nb::list told;
    for (const ami::ActivityMark& m : core_.activity.marks) {
        if (m.is_fill) {
            told.append(nb::make_tuple(m.step, m.now_ns, m.fill.is_buy, m.fill.is_maker, m.fill.price, m.fill.qty,
                                       m.fill.fee, m.position, m.equity));
        } else {
            told.append(nb::make_tuple(m.step, m.now_ns, price(m.bid), price(m.ask)));
        }
    }
    core_.activity.marks.clear();
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

}  // namespace stepping

void bind_stepper(nanobind::module_& m) {
    using namespace stepping;
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
    m.attr("STEP_ACTIVITY") = static_cast<int>(kActivity);
    m.attr("STEP_FOREIGN") = static_cast<int>(kForeign);
    m.attr("STEP_FOLD") = static_cast<int>(kFold);
    m.attr("STEP_CRUMB") = static_cast<int>(kCrumb);
    m.attr("STEP_PROPOSED") = static_cast<int>(kProposed);
    nb::class_<Stepper>(m, "Stepper",
                        "Decisions of one market, one event at a time, over the features of an engine that Python shares.")
        .def(nb::init<nb::object, nb::str, const nb::dict&, std::vector<double>, std::vector<double>, bool,
                      const std::vector<bool>&, std::size_t>(),
             nb::arg("engine"), nb::arg("symbol"), nb::arg("settings"), nb::arg("draws"), nb::arg("model_params"),
             nb::arg("keeps_book"), nb::arg("unique_seq"), nb::arg("history"))
        .def("step", &Stepper::step, nb::arg("event").none(), "Take an event, timers before it included; return what is asked.")
        .def("step_folded", &Stepper::step_folded, nb::arg("event"), nb::arg("ts_ns"), nb::arg("started_ns"),
             "Decide on an event that was folded outside and told by `set_market`.")
        .def("is_timer_due", &Stepper::is_timer_due, nb::arg("before_ns"), "Whether a timer is due before a time.")
        .def("run_timers", &Stepper::run_timers, nb::arg("before_ns"), "Step the timers due before a time.")
        .def("ask_model", &Stepper::ask_model, nb::arg("ask"), nb::arg("type"), nb::arg("actions"), nb::arg("failure"),
             "Let a model in Python propose.")
        .def("release", &Stepper::release, "Decide on nothing more: the state was read out.")
        .def("trace_into", &Stepper::trace_into, nb::arg("writer"), nb::arg("words"),
             "Log every step from here on; `words` is what packets say besides numbers.")
        .def("say_state", &Stepper::say_state, nb::arg("state"), "Say in packets what a latch lets leave; empty: nothing.")
        .def("keep_notes", &Stepper::keep_notes, "Note what becomes of orders.")
        .def("take_notes", &Stepper::take_notes, "Return what became of orders since the last call.")
        .def("keep_activity", &Stepper::keep_activity, "Note every fill and every change of the own quotes.")
        .def("take_activity", &Stepper::take_activity, "Return what was noted of them since the last call.")
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
        .def("venue", &Stepper::venue, "The paper venue's state, but for the orders that ended.")
        .def("take_ended", &Stepper::take_ended, nb::arg("most"), "Return orders that ended, once, oldest first.")
        .def_prop_ro("steps", &Stepper::steps)
        .def_prop_ro("sequence", &Stepper::sequence)
        .def_prop_ro("now_ns", &Stepper::now_ns)
        .def_prop_ro("given", &Stepper::given)
        .def_prop_ro("is_asking", &Stepper::is_asking)
        .def_prop_ro("open_orders", &Stepper::open_orders)
        .def_prop_ro("is_throttled", &Stepper::is_throttled)
        .def_prop_ro("pending_timer_ns", &Stepper::pending_timer_ns)
        .def_prop_ro("is_last_error_the_models", &Stepper::is_last_error_the_models);
}
