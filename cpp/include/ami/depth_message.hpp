// Binance depth messages as their bytes come: read straight into levels where they are spelled as the venue spells them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace ami {

// What a depth message says. The levels are (price, size) pairs, one after the other.
struct DepthMessage {
    const char* symbol = nullptr;  // within the message
    std::size_t symbol_length = 0;
    std::int64_t event_ms = 0;
    std::int64_t match_ms = 0;
    std::int64_t first_seq = 0;
    std::int64_t seq = 0;
    std::int64_t prev_seq = -1;  // -1: the message has none
    bool has_pair = false;
    std::vector<double> bids;
    std::vector<double> asks;
};

// Reads the usual spelling only: no blanks, no escapes, each key once, whole numbers plain, prices and sizes as strings
// of digits with at most one point. Whatever else JSON allows is for a complete decoder: `read` is false then, and says
// nothing of the message being wrong. A number that is read is the double nearest to it.
class DepthMessageReader {
public:
    // `text[size]` must be readable and 0, as it is behind the bytes of a Python object or a C string.
    bool read(const char* text, std::size_t size, DepthMessage& out) {
        at_ = text;
        end_ = text + size;
        out.symbol = nullptr;
        out.event_ms = out.match_ms = 0;
        out.prev_seq = -1;
        out.has_pair = false;
        seen_ = 0;
        if (!read_envelope(out)) return false;
        constexpr unsigned kNeeded = kSymbol | kFirst | kLast | kBids | kAsks;
        return at_ == end_ && (seen_ & kNeeded) == kNeeded;
    }

private:
    enum Seen : unsigned {
        kKind = 1u << 0,
        kEventTime = 1u << 1,
        kMatchTime = 1u << 2,
        kSymbol = 1u << 3,
        kPair = 1u << 4,
        kFirst = 1u << 5,
        kLast = 1u << 6,
        kPrevious = 1u << 7,
        kBids = 1u << 8,
        kAsks = 1u << 9,
    };

    bool read_envelope(DepthMessage& out) {
        const char* text = nullptr;
        std::size_t length = 0;
        return take("{\"stream\":") && read_text(text, length) && take(",\"data\":{") && read_fields(out) && take("}");
    }

    bool read_fields(DepthMessage& out) {
        do {
            if (!take("\"")) return false;
            const unsigned field = read_key();
            if (field == 0 || (seen_ & field) != 0 || !read_field(field, out)) return false;
            seen_ |= field;
        } while (take(","));
        return take("}");
    }

    // The key whose opening quote was read, with its closing quote and colon; 0 for one that is not known.
    unsigned read_key() {
        if (at_[0] == 'p' && (at_[1] == 'u' || at_[1] == 's') && at_[2] == '"' && at_[3] == ':') {
            const unsigned field = at_[1] == 'u' ? kPrevious : kPair;
            at_ += 4;
            return field;
        }
        if (at_[0] == 0 || at_[1] != '"' || at_[2] != ':') return 0;
        const char letter = at_[0];
        at_ += 3;
        switch (letter) {
            case 'e': return kKind;
            case 'E': return kEventTime;
            case 'T': return kMatchTime;
            case 's': return kSymbol;
            case 'U': return kFirst;
            case 'u': return kLast;
            case 'b': return kBids;
            case 'a': return kAsks;
            default: return 0;
        }
    }

    bool read_field(unsigned field, DepthMessage& out) {
        const char* text = nullptr;
        std::size_t length = 0;
        switch (field) {
            case kSymbol: return read_text(out.symbol, out.symbol_length);
            case kEventTime: return read_whole(out.event_ms);
            case kMatchTime: return read_whole(out.match_ms);
            case kFirst: return read_whole(out.first_seq);
            case kLast: return read_whole(out.seq);
            case kPrevious: return read_whole(out.prev_seq);
            case kBids: return read_levels(out.bids);
            case kAsks: return read_levels(out.asks);
            case kPair:
                if (!read_text(text, length)) return false;
                out.has_pair = length > 0;
                return true;
            default: return read_text(text, length);
        }
    }

    template <std::size_t N>
    bool take(const char (&expected)[N]) {
        // The character of the end is in no expected text, so nothing is read beyond it.
        for (std::size_t i = 0; i + 1 < N; ++i) {
            if (at_[i] != expected[i]) return false;
        }
        at_ += N - 1;
        return true;
    }

    bool read_text(const char*& text, std::size_t& length) {
        if (!take("\"")) return false;
        text = at_;
        while (*at_ >= 0x20 && *at_ < 0x7f && *at_ != '"' && *at_ != '\\') ++at_;
        length = static_cast<std::size_t>(at_ - text);
        return take("\"");
    }

    static unsigned digit(char c) { return static_cast<unsigned char>(c) - unsigned{'0'}; }

    bool read_whole(std::int64_t& value) {
        const char* const start = at_;
        std::int64_t number = 0;
        for (; digit(*at_) <= 9 && at_ - start < 18; ++at_) number = 10 * number + digit(*at_);
        value = number;
        const bool has_zeros = *start == '0' && at_ - start > 1;
        return at_ != start && !has_zeros && (*at_ == ',' || *at_ == '}');
    }

    bool read_levels(std::vector<double>& levels) {
        levels.clear();
        if (take("[]")) return true;
        if (!take("[")) return false;
        do {
            double price = 0.0;
            double size = 0.0;
            if (!take("[\"") || !read_decimal(price) || !take("\",\"") || !read_decimal(size) || !take("\"]")) return false;
            levels.push_back(price);
            levels.push_back(size);
        } while (take(","));
        return take("]");
    }

    // digits, or digits "." digits. Up to 2^53 the digits are an exact double, and so is a power of ten up to 22: their
    // quotient is rounded once.
    bool read_decimal(double& value) {
        const char* const start = at_;
        std::uint64_t digits = 0;
        read_digits(digits);
        const std::ptrdiff_t whole = at_ - start;
        if (whole == 0 || (*start == '0' && whole > 1)) return false;
        std::ptrdiff_t places = 0;
        if (*at_ == '.') {
            const char* const point = at_++;
            read_digits(digits);
            places = at_ - point - 1;
            if (places == 0) return false;
        }
        // Nineteen digits fit the sum; what has more of them, leading zeros aside, has overflowed it.
        if (whole + places > 19 || digits > (std::uint64_t{1} << 53)) return false;
        value = static_cast<double>(digits) / kPowers[static_cast<std::size_t>(places)];
        return true;
    }

    void read_digits(std::uint64_t& digits) {
        for (unsigned next = digit(*at_); next <= 9; next = digit(*++at_)) digits = 10 * digits + next;
    }

    static constexpr std::array<double, 20> kPowers = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,
                                                       1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19};

    const char* at_ = nullptr;
    const char* end_ = nullptr;
    unsigned seen_ = 0;
};

}  // namespace ami
