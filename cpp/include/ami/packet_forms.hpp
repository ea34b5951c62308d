// The two forms of a packet: JSON as msgspec spells it, and msgpack with the names of a struct's fields left to its layout.
//
// Both have the same methods, so that what a packet holds is said once. A value is followed by `next`. Texts come as the
// form needs them: JSON with its quotes, or UTF-8.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "ami/byte_buffer.hpp"
#include "ami/json_number.hpp"

namespace ami {

// What a binary packet says instead of the names of a struct's fields.
inline constexpr std::size_t kLayoutBytes = 8;
static_assert(kNumberChars <= ByteBuffer::kRoom, "a number is written straight into the buffer");

class JsonForm {
public:
    static constexpr bool kIsJson = true;

    JsonForm(ByteBuffer& to, NumberTexts& numbers) : out(to), numbers_(numbers) {}

    void open_struct(const char*, std::size_t) { out.put('{'); }
    void close_struct() { close('}'); }
    void open_map(std::size_t) { out.put('{'); }
    void close_map() { close('}'); }
    void open_list(std::size_t) { out.put('['); }
    void close_list() { close(']'); }
    void next() { out.put(','); }

    // A struct's field: `key` holds the quotes and the colon.
    template <std::size_t N>
    void field(const char (&key)[N]) {
        out.put(key);
    }
    void text(std::string_view json) { out.put(json); }
    void null() { out.put("null"); }
    void flag(bool is_true) { out.put(is_true ? std::string_view("true") : std::string_view("false")); }

    // Times come several times in a row: the last long number is remembered.
    void whole(std::int64_t number) {
        if (number >= 0 && number < 10) {
            out.put(static_cast<char>('0' + number));
            return;
        }
        if (number != last_whole_) {
            last_whole_ = number;
            last_length_ = write_int(number, last_text_);
        }
        out.put_piece(last_text_, last_length_);
    }

    // JSON has no NaN and no infinity: they become texts, which readers turn back.
    void real(double number) {
        if (std::isfinite(number)) {
            out.used(numbers_.write(number, out.room()));
        } else {
            out.put(std::isnan(number)  ? std::string_view("\"NaN\"")
                    : number > 0.0      ? std::string_view("\"Infinity\"")
                                        : std::string_view("\"-Infinity\""));
        }
    }

    ByteBuffer& out;

private:
    // The comma after the last item makes room for the bracket.
    void close(char bracket) {
        if (out.back() == ',')
            out.back() = bracket;
        else
            out.put(bracket);
    }

    NumberTexts& numbers_;
    std::int64_t last_whole_ = 0;
    std::size_t last_length_ = 0;
    char last_text_[kNumberChars];
};

class PackForm {
public:
    static constexpr bool kIsJson = false;

    explicit PackForm(ByteBuffer& to) : out(to) {}

    void open_struct(const char* layout, std::size_t fields) {
        open_list(fields + 1);
        out.put('\xc4');
        out.put(static_cast<char>(kLayoutBytes));
        out.put(std::string_view(layout, kLayoutBytes));
    }
    void close_struct() {}
    void open_map(std::size_t items) { open(items, 0x80, 0xde); }
    void close_map() {}
    void open_list(std::size_t items) { open(items, 0x90, 0xdc); }
    void close_list() {}
    void next() {}

    template <std::size_t N>
    void field(const char (&)[N]) {}
    void text(std::string_view utf8) {
        const std::size_t length = utf8.size();
        if (length < 32)
            out.put(static_cast<char>(0xa0 | length));
        else if (length < 0x100)
            tagged(0xd9, length, 1);
        else if (length < 0x10000)
            tagged(0xda, length, 2);
        else
            tagged(0xdb, length, 4);
        out.put(utf8);
    }
    void null() { out.put('\xc0'); }
    void flag(bool is_true) { out.put(is_true ? '\xc3' : '\xc2'); }

    void whole(std::int64_t number) {
        const auto bits = static_cast<std::uint64_t>(number);
        if (number >= -32 && number < 128)
            out.put(static_cast<char>(number));
        else if (number >= 0)
            number < 0x100 ? tagged(0xcc, bits, 1) : number < 0x10000 ? tagged(0xcd, bits, 2)
            : number < 0x100000000 ? tagged(0xce, bits, 4) : tagged(0xcf, bits, 8);
        else
            number >= -0x80 ? tagged(0xd0, bits, 1) : number >= -0x8000 ? tagged(0xd1, bits, 2)
            : number >= -0x80000000ll ? tagged(0xd2, bits, 4) : tagged(0xd3, bits, 8);
    }

    void real(double number) {
        std::uint64_t bits;
        std::memcpy(&bits, &number, sizeof bits);
        tagged(0xcb, bits, 8);
    }

    ByteBuffer& out;

private:
    // A mark, and the last `bytes` bytes of a number, highest first.
    void tagged(int mark, std::uint64_t number, int bytes) {
        char* to = out.room();
        *to++ = static_cast<char>(mark);
        for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) *to++ = static_cast<char>(number >> shift);
        out.used(static_cast<std::size_t>(bytes) + 1);
    }

    void open(std::size_t items, int small, int large) {
        if (items < 16)
            out.put(static_cast<char>(small | static_cast<int>(items)));
        else if (items < 0x10000)
            tagged(large, items, 2);
        else
            tagged(large + 1, items, 4);
    }
};

}  // namespace ami
