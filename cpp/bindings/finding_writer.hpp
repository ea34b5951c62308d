// Writes what the guards found in a packet's form: the decision that they changed, and the mismatch beside it.
#pragma once

#include <nanobind/nanobind.h>

#include <ami/guard_findings.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string_view>

#include "object_writer.hpp"

namespace packets {

namespace nb = nanobind;

// A text that packets hold, and its JSON once that is known.
struct Word {
    nb::object string;
    objects::KnownText last;
};

template <std::size_t N>
void read_words(nb::handle given, std::array<Word, N>& to) {
    const auto words = nb::cast<nb::sequence>(given);
    if (nb::len(words) != N) throw std::invalid_argument("a packet's words are not as many as the core knows");
    for (std::size_t i = 0; i < N; ++i) to[i].string = words[i];
}

// What is said of guards in words, and the types that it is said in.
struct FindingWords {
    enum Key : std::size_t { kGuards, kQuotes, kCode, kValue, kLimit, kAction, kAlso, kKeys };
    enum Quotes : std::size_t { kPull, kLeave, kQuoteWords };

    nb::object traced_type, mismatch_type;
    std::array<Word, ami::kGuardCount> flags;
    std::array<Word, ami::kGuardCount> flag_keys;
    std::array<Word, ami::kCodeCount> codes;
    std::array<Word, ami::kActionCount + 1> asked;  // the actions as findings name them, and a smaller size
    std::array<Word, kKeys> keys;
    std::array<Word, kQuoteWords> quotes;

    void read(const nb::dict& words) {
        traced_type = words["traced_type"];
        mismatch_type = words["mismatch_type"];
        read_words(words["flags"], flags);
        read_words(words["flags"], flag_keys);
        read_words(words["codes"], codes);
        read_words(words["asked"], asked);
        read_words(words["finding_keys"], keys);
        read_words(words["quotes"], quotes);
    }
};

// Spells words in a form; every method answers False for one that was not yet found to be clean.
template <class Form>
class WordWriter {
public:
    WordWriter(objects::ObjectWriter<Form>& writer, Form& form) : writer_(writer), form_(form) {}

    bool put(Word& word) { return put(writer_.spelled(word.string.ptr(), word.last)); }
    bool put_key(Word& word) { return put(writer_.spelled_key(word.string.ptr(), word.last)); }

private:
    bool put(std::string_view text) {
        if (text.data() == nullptr) return false;
        form_.text(text);
        return true;
    }

    objects::ObjectWriter<Form>& writer_;
    Form& form_;
};

// Milliseconds, or nothing when there are none.
template <class Form>
void put_pause(Form& form, std::int64_t ms) {
    if (ms != 0)
        form.whole(ms);
    else
        form.null();
    form.next();
}

template <class Form>
class FindingWriter {
public:
    FindingWriter(FindingWords& words, WordWriter<Form>& spell, Form& form, const ami::Findings& found)
        : words_(words), spell_(spell), form_(form), found_(found) {}

    const ami::Findings& found() const { return found_; }

    // As items of a list, the codes that asked for an action, each once; null for all of them.
    std::size_t count_codes(const ami::Action* asked) const {
        std::size_t count = 0;
        for (std::size_t i = 0; i < found_.count; ++i) count += is_told(i, asked) ? 1 : 0;
        return count;
    }
    bool put_codes(const ami::Action* asked) {
        for (std::size_t i = 0; i < found_.count; ++i) {
            if (!is_told(i, asked)) continue;
            if (!spell_.put(word_of(found_.list[i].code))) return false;
            form_.next();
        }
        return true;
    }

    bool mismatch(const char* layout, bool pulls) {
        form_.field("\"mismatch\":");
        form_.open_struct(layout, 4);
        form_.field("\"flags\":");
        if (!put_flags()) return false;
        form_.field("\"reason_codes\":");
        form_.open_list(count_codes(nullptr));
        if (!put_codes(nullptr)) return false;
        form_.close_list();
        form_.next();
        form_.field("\"throttle_refresh_ms\":");
        put_pause(form_, found_.throttle_ms);
        form_.field("\"metadata\":");
        form_.open_map(2);
        if (!key(FindingWords::kGuards) || !put_guards()) return false;
        form_.next();
        if (!key(FindingWords::kQuotes)) return false;
        if (!spell_.put(words_.quotes[pulls ? FindingWords::kPull : FindingWords::kLeave])) return false;
        form_.next();
        form_.close_map();
        form_.next();
        form_.close_struct();
        form_.next();
        return true;
    }

private:
    Word& word_of(ami::Code code) { return words_.codes[static_cast<std::size_t>(code)]; }
    static std::size_t place_of(ami::Guard guard) { return static_cast<std::size_t>(guard) - 1; }
    bool key(FindingWords::Key which) { return spell_.put_key(words_.keys[which]); }

    bool is_told(std::size_t i, const ami::Action* asked) const {
        const ami::Finding& finding = found_.list[i];
        if (i > 0 && found_.list[i - 1].code == finding.code) return false;
        return asked == nullptr || (!finding.is_clamp && finding.action == *asked);
    }

    // One past the last finding of the guard that found the `first`.
    std::size_t end_of(std::size_t first) const {
        std::size_t end = first + 1;
        while (end < found_.count && guard_of(end) == guard_of(first)) ++end;
        return end;
    }
    ami::Guard guard_of(std::size_t i) const { return ami::Findings::guard_of(found_.list[i]); }

    std::size_t count_guards() const {
        std::size_t count = 0;
        for (std::size_t i = 0; i < found_.count; i = end_of(i)) ++count;
        return count;
    }

    bool put_flags() {
        form_.open_list(count_guards());
        for (std::size_t i = 0; i < found_.count; i = end_of(i)) {
            if (!spell_.put(words_.flags[place_of(guard_of(i))])) return false;
            form_.next();
        }
        form_.close_list();
        form_.next();
        return true;
    }

    bool put_guards() {
        form_.open_map(count_guards());
        for (std::size_t i = 0, end; i < found_.count; i = end) {
            end = end_of(i);
            if (!spell_.put_key(words_.flag_keys[place_of(guard_of(i))]) || !put_guard(i, end)) return false;
            form_.next();
        }
        form_.close_map();
        return true;
    }

    // The most severe finding of one guard, the first of them where they are alike, and the others beside it.
    bool put_guard(std::size_t first, std::size_t end) {
        std::size_t lead = first;
        for (std::size_t i = first + 1; i < end; ++i)
            if (found_.list[i].rank() > found_.list[lead].rank()) lead = i;
        const std::size_t others = end - first - 1;
        form_.open_map(others == 0 ? 4 : 5);
        if (!put_finding(found_.list[lead])) return false;
        if (others != 0) {
            if (!key(FindingWords::kAlso)) return false;
            form_.open_list(others);
            for (std::size_t i = first; i < end; ++i) {
                if (i == lead) continue;
                form_.open_map(4);
                if (!put_finding(found_.list[i])) return false;
                form_.close_map();
                form_.next();
            }
            form_.close_list();
            form_.next();
        }
        form_.close_map();
        return true;
    }

    bool put_finding(const ami::Finding& finding) {
        if (!key(FindingWords::kCode) || !spell_.put(word_of(finding.code))) return false;
        form_.next();
        if (!key(FindingWords::kValue)) return false;
        put(finding.value);
        if (!key(FindingWords::kLimit)) return false;
        put(finding.limit);
        if (!key(FindingWords::kAction)) return false;
        const std::size_t asked = finding.is_clamp ? ami::kActionCount : static_cast<std::size_t>(finding.action);
        if (!spell_.put(words_.asked[asked])) return false;
        form_.next();
        return true;
    }

    void put(const ami::Quantity& quantity) {
        switch (quantity.kind) {
            case ami::Quantity::whole: form_.whole(quantity.number); break;
            case ami::Quantity::flag: form_.flag(quantity.number != 0); break;
            case ami::Quantity::real: form_.real(quantity.size); break;
        }
        form_.next();
    }

    FindingWords& words_;
    WordWriter<Form>& spell_;
    Form& form_;
    const ami::Findings& found_;
};

}  // namespace packets
