// Writes what the compiled step decided in a packet's form: the context, the proposal, the decision and the orders' counts.
//
// Steps in which something failed, or a STOP latched, say more than the core knows and are made in Python. So is a packet
// with a word in it that was not yet found to be clean.
#pragma once

#include <nanobind/nanobind.h>

#include <ami/decision_core.hpp>
#include <ami/guard_findings.hpp>

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "asked_model.hpp"
#include "finding_writer.hpp"
#include "object_writer.hpp"

namespace packets {

namespace nb = nanobind;

// One value of a context, as Python holds it.
struct ContextValue {
    enum Kind { none, whole, real, flag, latches };

    Kind kind = none;
    std::int64_t number = 0;  // of a whole number or a flag
    double size = 0.0;        // of a real one
};

namespace context_keys {

inline ContextValue of(std::int64_t number) { return {ContextValue::whole, number, 0.0}; }
inline ContextValue of(double number) { return {ContextValue::real, 0, number}; }
inline ContextValue of(bool is_true) { return {ContextValue::flag, is_true ? 1 : 0, 0.0}; }

using Read = ContextValue (*)(const ami::GuardContext&, const ami::RiskState&);

struct Key {
    const char* name;
    bool of_market;  // not known before the first book
    Read read;
};

#define AMI_PLAIN(NAME) {#NAME, false, [](const ami::GuardContext& c, const ami::RiskState&) { return of(c.NAME); }}
#define AMI_OF_MARKET(NAME) {#NAME, true, [](const ami::GuardContext& c, const ami::RiskState&) { return of(c.NAME); }}
#define AMI_OTHER(NAME, VALUE) \
    {#NAME, false, []([[maybe_unused]] const ami::GuardContext& c, [[maybe_unused]] const ami::RiskState& risk) { return VALUE; }}

// Every key of dmc/context.py that is known here; the others are None.
inline constexpr Key kKeys[] = {
    AMI_PLAIN(now_ms), AMI_OF_MARKET(last_event_ts_ms), AMI_OF_MARKET(mid), AMI_OF_MARKET(spread_bps),
    AMI_OF_MARKET(depth), AMI_OF_MARKET(depth_p10_5m), AMI_OF_MARKET(sigma_5m), AMI_OF_MARKET(spread_med_5m),
    AMI_OF_MARKET(sigma_spike_z), AMI_PLAIN(tp_ticks), AMI_OF_MARKET(cost_ticks), AMI_PLAIN(current_total_exposure_usd),
    AMI_PLAIN(abs_inventory), AMI_PLAIN(open_orders), AMI_PLAIN(active_markets), AMI_PLAIN(daily_pnl),
    AMI_OTHER(daily_realized_pnl_usd,
              of((risk.money().realized - risk.money().day_start_realized) * risk.usd_rate())),
    AMI_PLAIN(drawdown_usd), AMI_PLAIN(equity_usd), AMI_PLAIN(cancels_in_window), AMI_PLAIN(quotes_in_window),
    AMI_PLAIN(recent_failures), AMI_PLAIN(rate_limits_in_window), AMI_PLAIN(ws_reconnects_in_window),
    AMI_PLAIN(steps_in_window), AMI_PLAIN(errors_in_window), AMI_PLAIN(consecutive_losses),
    AMI_OTHER(adverse_15_ticks, of(c.adverse_ticks[0])), AMI_OTHER(adverse_60_ticks, of(c.adverse_ticks[1])),
    AMI_PLAIN(throttle_refresh_until_ms), AMI_PLAIN(cooldown_until_ms), AMI_PLAIN(ops_cooldown_until_ms),
    AMI_OTHER(adverse_15_cooldown_until_ms, of(c.adverse_until_ms[0])),
    AMI_OTHER(adverse_60_cooldown_until_ms, of(c.adverse_until_ms[1])), AMI_PLAIN(streak_cooldown_until_ms),
    AMI_PLAIN(quote_budget_until_ms), AMI_OTHER(ops_deny_actions, of(false)),
    AMI_OTHER(kill_switch, of((c.latched & ami::bit(ami::Code::kill_switch)) != 0)),
};

#undef AMI_PLAIN
#undef AMI_OF_MARKET
#undef AMI_OTHER

inline ContextValue value(const Key* key, const ami::GuardContext& context, const ami::RiskState& risk) {
    if (key == nullptr || (key->of_market && !context.has_market)) return {};
    return key->read(context, risk);
}

}  // namespace context_keys

// Whatever a packet of the compiled step says in words.
struct CoreWords {
    nb::object context_type, proposal_type, final_type;
    nb::object symbol, policy_hash;
    Word timer;  // the kind of a timer's event
    std::array<Word, ami::kReasonBits> reasons;
    std::array<Word, 3> exits;  // why a position is closed, in the order of `Exit`
    std::array<nb::object, ami::kActionCount> actions;
    std::array<Word, 4> params;    // the keys of an ACT's parameters
    std::array<Word, 5> external;  // the keys of what became of the orders
    FindingWords findings;
    Word state_key, state;  // what the operator or a latch lets leave; an empty text while it is everything

    // One for each field of the context's type, in its order.
    struct ContextField {
        const context_keys::Key* key = nullptr;  // null: always None, or the list of latches
        bool is_latches = false;
    };
    std::vector<ContextField> context;

    void learn_context(const nb::sequence& names) {
        for (const nb::handle name : names) {
            const std::string_view text(nb::borrow<nb::str>(name).c_str());
            ContextField field;
            for (const context_keys::Key& key : context_keys::kKeys)
                if (text == key.name) field.key = &key;
            field.is_latches = text == "latched";
            context.push_back(field);
        }
    }
};

// How many guards had latched before the step; those that it latched itself come after them.
inline std::size_t latched_before(const ami::DecisionCore& core) { return std::bitset<64>(core.context().latched).count(); }

// Whether a packet of the step can be written here at all.
inline bool is_plain(const ami::DecisionCore& core) {
    return (core.verdict().codes & ami::kContextMissing) == 0 && !core.actions().has_error &&
           core.risk().latches().size() == latched_before(core);
}

template <class Form>
class CoreWriter {
public:
    CoreWriter(objects::Known& known, CoreWords& words, objects::ObjectWriter<Form>& writer, Form& form)
        : known_(known), words_(words), writer_(writer), form_(form), spell_(writer, form) {}

    bool context(const ami::DecisionCore& core) {
        objects::Plan* const plan = plan_of(words_.context_type, words_.context.size());
        if (plan == nullptr) return false;
        form_.open_struct(plan->layout.data(), plan->fields.size());
        for (std::size_t i = 0; i < plan->fields.size(); ++i) {
            const CoreWords::ContextField& known = words_.context[i];
            ContextValue value = context_keys::value(known.key, core.context(), core.risk());
            if (known.is_latches) value = {ContextValue::latches, static_cast<std::int64_t>(latched_before(core)), 0.0};
            const objects::Field& field = plan->fields[i];
            if constexpr (Form::kIsJson) {
                if (field.omitted.is_valid() && is_omitted(value, field.omitted.ptr())) continue;
                put_key(field);
            }
            if (!put(value, core.risk())) return false;
            form_.next();
        }
        form_.close_struct();
        return true;
    }

    // The proposal, the decision, and where they differ. A proposal that a model in Python `gave` is written as it is.
    bool decision(const ami::DecisionCore& core, const AskedModel* gave) {
        if (!put_proposal(core, gave)) return false;
        const ami::Proposal& proposal = core.proposal();
        const ami::Verdict& verdict = core.verdict();
        if (verdict.codes == 0) return put_final(core, gave, nullptr);
        // What guards make of its parameters, and a size that is no float where they speak of it, is for Python to say.
        if (gave != nullptr && (verdict.action == ami::Action::ACT || !gave->has_float_size())) return false;
        ami::Findings found;
        ami::FindingTeller(core.settings().policy, core.context(), proposal.has_size, proposal.size_usd).tell(verdict, found);
        FindingWriter<Form> findings(words_.findings, spell_, form_, found);
        objects::Plan* const mismatch = plan_of(words_.findings.mismatch_type, kMismatchFields);
        if (mismatch == nullptr || !put_final(core, gave, &findings)) return false;
        const bool leaves = verdict.action == ami::Action::ACT || (verdict.action == ami::Action::HOLD && !verdict.pulls);
        return findings.mismatch(mismatch->layout.data(), !leaves);
    }

    // What became of the step's orders, up to where the chain's own keys go on.
    bool external(const ami::Actions& done) {
        const bool is_empty = (done.submitted | done.canceled | done.rejected | done.skipped) == 0;
        const std::array<std::int64_t, 5> counts = {done.submitted, done.submitted - done.rejected, 0, done.rejected,
                                                    done.skipped};
        const bool is_restrained = PyUnicode_GET_LENGTH(words_.state.string.ptr()) > 0;
        form_.field("\"external\":");
        form_.open_map((is_empty ? 0 : counts.size()) + (is_restrained ? 1 : 0));
        for (std::size_t i = 0; !is_empty && i < counts.size(); ++i) {
            if (!spell_.put_key(words_.external[i])) return false;
            form_.whole(counts[i]);
            form_.next();
        }
        if (is_restrained) {
            if (!spell_.put_key(words_.state_key) || !spell_.put(words_.state)) return false;
            form_.next();
        }
        return true;
    }

private:
    static constexpr std::size_t kProposalFields = 6, kFinalFields = 7, kTracedFields = 6, kMismatchFields = 4;

    bool put_proposal(const ami::DecisionCore& core, const AskedModel* gave) {
        const ami::Proposal& proposal = core.proposal();
        objects::Plan* const made = plan_of(words_.proposal_type, kProposalFields);
        if (made == nullptr) return false;
        form_.field("\"mdm\":");
        if (gave != nullptr) {
            if (!writer_.record(gave->given().ptr(), *made, 0, made->layout.data())) return false;
            form_.next();
            return true;
        }
        form_.open_struct(made->layout.data(), kProposalFields);
        form_.field("\"action\":");
        if (!put_action(proposal.action)) return false;
        form_.field("\"confidence\":");
        form_.real(core.confidence());
        form_.next();
        if (!put_reasons(core)) return false;
        form_.field("\"params\":");
        if (!put_params(proposal, proposal.size_usd)) return false;
        form_.field("\"run_id\":");
        form_.null();
        form_.next();
        form_.field("\"features_summary\":");
        form_.open_map(0);
        form_.close_map();
        form_.next();
        form_.close_struct();
        form_.next();
        return true;
    }

    // The decision: what was proposed when nothing was found, else what the guards made of it, with the mismatch beside it.
    bool put_final(const ami::DecisionCore& core, const AskedModel* gave, FindingWriter<Form>* findings) {
        const ami::Proposal& proposal = core.proposal();
        const ami::Action action = core.verdict().action;
        const bool is_allowed = action == proposal.action;
        const ami::Findings* const found = findings == nullptr ? nullptr : &findings->found();
        const objects::Plan* const final = findings == nullptr ? plan_of(words_.final_type, kFinalFields)
                                                               : plan_of(words_.findings.traced_type, kTracedFields);
        if (final == nullptr) return false;
        form_.field("\"final_action\":");
        form_.open_struct(final->layout.data(), final->fields.size());
        form_.field("\"action\":");
        if (!put_action(action)) return false;
        form_.field("\"allowed\":");
        form_.flag(is_allowed);
        form_.next();
        if (!is_allowed) {
            if (!put_codes(*findings, action)) return false;
        } else if (gave != nullptr) {
            form_.field("\"reasons\":");
            if (!put_given(gave->reasons())) return false;
        } else if (!put_reasons(core, action == ami::Action::ACT ? findings : nullptr)) {
            return false;
        }
        if (findings == nullptr) {
            form_.field("\"mismatch\":");
            form_.null();
            form_.next();
        }
        form_.field("\"throttle_ms\":");
        put_pause(form_, found == nullptr ? 0 : found->throttle_ms);
        form_.field("\"cooldown_ms\":");
        put_pause(form_, found == nullptr ? 0 : found->cooldown_ms);
        form_.field("\"params\":");
        if (!is_allowed) {
            form_.null();
            form_.next();
        } else if (gave != nullptr) {
            if (!put_given(gave->params())) return false;
        } else if (!put_params(proposal, action == ami::Action::ACT ? core.verdict().size_usd : proposal.size_usd)) {
            return false;
        }
        form_.close_struct();
        form_.next();
        if (findings == nullptr) {
            form_.field("\"mismatch\":");
            form_.null();
            form_.next();
        }
        return true;
    }

    // Null when the type was not announced, or has no layout yet where one is needed.
    objects::Plan* plan_of(const nb::object& type, std::size_t fields) {
        objects::Plan* const plan = known_.plan_of(reinterpret_cast<PyTypeObject*>(type.ptr()));
        if (plan == nullptr || plan->fields.size() != fields || (!Form::kIsJson && plan->layout.empty())) return nullptr;
        return plan;
    }

    // Defaults that are left out: what Python would hold is this very object.
    static bool is_omitted(const ContextValue& value, PyObject* omitted) {
        switch (value.kind) {
            case ContextValue::none: return omitted == Py_None;
            case ContextValue::whole: return PyLong_CheckExact(omitted) && PyLong_AsLongLong(omitted) == value.number;
            case ContextValue::flag: return omitted == (value.number != 0 ? Py_True : Py_False);
            case ContextValue::latches:
                return value.number == 0 && PyTuple_CheckExact(omitted) && PyTuple_GET_SIZE(omitted) == 0;
            case ContextValue::real: break;
        }
        return false;
    }

    bool put(const ContextValue& value, const ami::RiskState& risk) {
        switch (value.kind) {
            case ContextValue::none: form_.null(); break;
            case ContextValue::whole: form_.whole(value.number); break;
            case ContextValue::flag: form_.flag(value.number != 0); break;
            case ContextValue::real: form_.real(value.size); break;
            case ContextValue::latches: return put_latches(risk, static_cast<std::size_t>(value.number));
        }
        return true;
    }

    bool put_latches(const ami::RiskState& risk, std::size_t count) {
        form_.open_list(count);
        for (std::size_t i = 0; i < count; ++i) {
            const auto guard = static_cast<std::size_t>(risk.latches()[i]) - 1;
            if (!spell_.put(words_.findings.flags[guard])) return false;
            form_.next();
        }
        form_.close_list();
        return true;
    }

    void put_key(const objects::Field& field) {
        if (field.key.size() <= ami::kPiece)
            form_.out.put_piece(field.key_piece.data(), field.key.size());
        else
            form_.out.put(field.key);
    }

    bool put_given(const nb::object& value) {
        if (!writer_.value(value.ptr(), 0)) return false;
        form_.next();
        return true;
    }

    bool put_action(ami::Action action) {
        if (!writer_.value(words_.actions[static_cast<std::size_t>(action)].ptr(), 0)) return false;
        form_.next();
        return true;
    }

    // Why something was proposed, and behind it the codes of what made it smaller.
    bool put_reasons(const ami::DecisionCore& core, FindingWriter<Form>* findings = nullptr) {
        const std::uint32_t reasons = core.proposal().reasons;
        std::size_t count = core.exit() != ami::Exit::none ? 1 : 0;
        for (std::size_t i = 0; i < words_.reasons.size(); ++i) count += reasons >> i & 1u;
        if (findings != nullptr) count += findings->count_codes(nullptr);
        form_.field("\"reasons\":");
        form_.open_list(count);
        if (core.exit() != ami::Exit::none) {
            if (!spell_.put(words_.exits[static_cast<std::size_t>(core.exit()) - 1])) return false;
            form_.next();
        }
        for (std::size_t i = 0; i < words_.reasons.size(); ++i) {
            if ((reasons >> i & 1u) == 0) continue;
            if (!spell_.put(words_.reasons[i])) return false;
            form_.next();
        }
        if (findings != nullptr && !findings->put_codes(nullptr)) return false;
        form_.close_list();
        form_.next();
        return true;
    }

    // The codes that asked for what is done.
    bool put_codes(FindingWriter<Form>& findings, ami::Action action) {
        form_.field("\"reasons\":");
        form_.open_list(findings.count_codes(&action));
        if (!findings.put_codes(&action)) return false;
        form_.close_list();
        form_.next();
        return true;
    }

    bool put_params(const ami::Proposal& proposal, double size_usd) {
        if (!proposal.has_size) {
            form_.null();
            form_.next();
            return true;
        }
        const double quotes[] = {proposal.bid_quote, proposal.ask_quote};
        form_.open_map(2u + (quotes[0] != 0.0 ? 1u : 0u) + (quotes[1] != 0.0 ? 1u : 0u));
        for (std::size_t i = 0; i < 2; ++i)
            if (quotes[i] != 0.0 && !put_param(i, quotes[i])) return false;
        if (!put_param(2, size_usd) || !spell_.put_key(words_.params[3])) return false;
        form_.flag(proposal.post_only);
        form_.next();
        form_.close_map();
        form_.next();
        return true;
    }

    bool put_param(std::size_t which, double number) {
        if (!spell_.put_key(words_.params[which])) return false;
        form_.real(number);
        form_.next();
        return true;
    }

    objects::Known& known_;
    CoreWords& words_;
    objects::ObjectWriter<Form>& writer_;
    Form& form_;
    WordWriter<Form> spell_;
};

}  // namespace packets
