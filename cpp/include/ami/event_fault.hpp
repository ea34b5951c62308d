// What a check found wrong with an event: cheap enough to return for every row of a batch.
#pragma once

#include <cstdio>
#include <string>

#include "ami/event_error.hpp"

namespace ami {

enum class Reason : int {
    none = 0,
    malformed,
    not_finite,
    negative_price,
    negative_size,
    non_positive_time,
    time_backwards,
    levels_unsorted,
    price_mismatch,
    empty_book,
    crossed_book,
    unknown_kind,
};

inline constexpr int kReasonCount = 12;
inline constexpr const char* kReasonNames[kReasonCount] = {
    "",
    "malformed",
    "not_finite",
    "negative_price",
    "negative_size",
    "non_positive_time",
    "time_backwards",
    "levels_unsorted",
    "price_mismatch",
    "empty_book",
    "crossed_book",
    "unknown_kind",
};

struct Fault {
    Reason reason = Reason::none;
    const char* field = "";  // a literal
    double value = 0.0;
    double other = 0.0;

    explicit operator bool() const { return reason != Reason::none; }

    EventError error() const { return {message(), kReasonNames[static_cast<int>(reason)], field}; }

private:
    static std::string number(double value) {
        char text[32];
        std::snprintf(text, sizeof text, "%.15g", value);
        return text;
    }

    std::string message() const {
        const std::string name = std::string("`") + field + "`";
        switch (reason) {
            case Reason::malformed:
                return name + " is out of its range, was " + number(value);
            case Reason::not_finite:
                return name + " must be finite and at most 1e150, was " + number(value);
            case Reason::negative_price:
                return name + (value < 0.0 ? " must not be negative, was " : " must be > 0, was ") + number(value);
            case Reason::negative_size:
                return name + " must not be negative, was " + number(value);
            case Reason::non_positive_time:
                return name + " must be > 0, was " + number(value);
            case Reason::time_backwards:
                return name + " must not be before the last accepted event, was " + number(value) + " ns before it";
            case Reason::levels_unsorted:
                return name + " must be sorted best first, was " + number(value) + " after " + number(other);
            case Reason::price_mismatch:
                return name + " must be the best level's price " + number(other) + ", was " + number(value);
            case Reason::empty_book:
                return "a book event must have a bid or an ask, both were missing";
            case Reason::crossed_book:
                return "`bid` must not be above `ask`, was " + number(value) + " above " + number(other);
            case Reason::unknown_kind:
                return name + " must be 0 (book) or 1 (trade), was " + number(value);
            case Reason::none:
                break;
        }
        return "";
    }
};

}  // namespace ami
