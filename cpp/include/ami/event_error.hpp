// The one exception of the core for an event that is refused; bindings turn it into ami_engine.errors.EventError.
#pragma once

#include <stdexcept>
#include <string>

namespace ami {

// `reason` and `field` are string literals: the stable codes that summaries count, and the event field at fault
// ("" when the whole event is).
struct EventError : std::invalid_argument {
    EventError(const std::string& message, const char* reason_code, const char* field_name = "")
        : std::invalid_argument(message), reason(reason_code), field(field_name) {}

    const char* reason;
    const char* field;
};

}  // namespace ami
