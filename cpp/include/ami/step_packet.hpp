// What every packet of a step begins and ends with, in either form, and its place in the hash chain.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "ami/crc32.hpp"
#include "ami/feature_ids.hpp"
#include "ami/packet_forms.hpp"
#include "ami/sha256.hpp"

namespace ami {

// How long each stage of a step took, and the step, ns.
struct StepTimes {
    std::int64_t observe = 0;
    std::int64_t fills = 0;
    std::int64_t decide = 0;
    std::int64_t orders = 0;
    std::int64_t total = 0;
};

// What a step was made from. Texts are in the form's own spelling.
struct StepFacts {
    std::string_view schema_version;
    std::string_view run_id;
    std::int64_t step = 0;
    std::string_view kind;
    std::string_view symbol;
    std::int64_t ts_ns = 0;
    std::int64_t now_ns = 0;
    std::string_view policy_hash;  // empty: no guards
    std::int64_t exch_ts_ns = 0;
    std::int64_t seq = 0;
    const double* row = nullptr;  // null for a timer
    std::size_t row_size = kFeatureCount;
    bool has_context = false;
    bool has_mismatch = false;
};

// The layouts that a binary packet names; kLayoutBytes each.
struct StepLayouts {
    const char* input = nullptr;
    const char* row = nullptr;
};

namespace step_packet {

// Which parts of a binary packet are packed: trace/frame_codec.py.
inline constexpr std::int64_t kInput = 1, kMdm = 2, kFinal = 4, kMismatch = 8, kFirstField = 16;
inline constexpr int kFeaturesPlace = 8, kContextPlace = 9;
inline constexpr std::size_t kInputFields = 9, kParts = 9;

constexpr bool are_names_short() {
    for (const char* name : kFeatureNames)
        if (std::string_view(name).size() + 3 > kPiece) return false;
    return true;
}
static_assert(are_names_short(), "a feature's key is copied as one piece");

// The keys of a row, with their quotes and colons.
struct RowKeys {
    std::array<std::string_view, kFeatureCount> keys;
    std::array<char, kPiece * (kFeatureCount + 1)> text{};  // behind each key a whole piece can be read

    RowKeys() {
        char* to = text.data();
        for (std::size_t i = 0; i < keys.size(); ++i) {
            char* const start = to;
            *to++ = '"';
            const std::size_t length = std::strlen(kFeatureNames[i]);
            std::memcpy(to, kFeatureNames[i], length);
            to += length;
            *to++ = '"', *to++ = ':';
            keys[i] = std::string_view(start, static_cast<std::size_t>(to - start));
        }
    }
    RowKeys(const RowKeys&) = delete;
    RowKeys& operator=(const RowKeys&) = delete;
};

template <class Form>
void write_row(Form& form, const double* row, std::size_t size, const char* layout) {
    static const RowKeys names;
    form.open_struct(layout, size);
    for (std::size_t i = 0; i < size; ++i) {
        if constexpr (Form::kIsJson) form.out.put_piece(names.keys[i].data(), names.keys[i].size());
        form.real(row[i]);
        form.next();
    }
    form.close_struct();
}

// Up to where the context goes, which is written next; then `close_input`.
template <class Form>
void open_input(Form& form, const StepFacts& facts, const StepLayouts& layouts) {
    if constexpr (Form::kIsJson) {
        form.out.put('{');
    } else {
        form.open_list(kParts);
        form.whole(kInput | kMdm | kFinal | (facts.has_mismatch ? kMismatch : 0) |
                   (facts.row != nullptr ? kFirstField << (kFeaturesPlace - 1) : 0) |
                   (facts.has_context ? kFirstField << (kContextPlace - 1) : 0));
    }
    form.field("\"schema_version\":");
    form.text(facts.schema_version);
    form.next();
    form.field("\"run_id\":");
    form.text(facts.run_id);
    form.next();
    form.field("\"step\":");
    form.whole(facts.step);
    form.next();
    form.field("\"input\":");
    form.open_struct(layouts.input, kInputFields);
    form.field("\"kind\":");
    form.text(facts.kind);
    form.next();
    form.field("\"symbol\":");
    form.text(facts.symbol);
    form.next();
    form.field("\"ts_ns\":");
    form.whole(facts.ts_ns);
    form.next();
    form.field("\"now_ns\":");
    form.whole(facts.now_ns);
    form.next();
    // JSON leaves out what is at its default.
    if (!Form::kIsJson || !facts.policy_hash.empty()) {
        form.field("\"policy_hash\":");
        form.text(facts.policy_hash);
        form.next();
    }
    if (!Form::kIsJson || facts.exch_ts_ns != 0) {
        form.field("\"exch_ts_ns\":");
        form.whole(facts.exch_ts_ns);
        form.next();
    }
    if (!Form::kIsJson || facts.seq != 0) {
        form.field("\"seq\":");
        form.whole(facts.seq);
        form.next();
    }
    if (facts.row != nullptr) {
        form.field("\"features\":");
        write_row(form, facts.row, facts.row_size, layouts.row);
        form.next();
    } else if (!Form::kIsJson) {
        form.null();
    }
    if (facts.has_context) {
        form.field("\"context\":");
    } else if (!Form::kIsJson) {
        form.null();
    }
}

template <class Form>
void close_input(Form& form, const StepFacts& facts) {
    if (facts.has_context) form.next();
    form.close_struct();
    form.next();
}

}  // namespace step_packet

// The chain of JSON lines. A line is `open`ed, filled by a JsonForm, and `close`d.
class LineChain {
public:
    std::int64_t seq = 0;
    std::array<char, 64> prev{};  // SHA-256 of the last line's hashed part, hex

    std::size_t open(ByteBuffer& out) const { return out.size(); }

    // `out` holds a packet from `start` on, but for the bracket that closes `external` and its own.
    void close(ByteBuffer& out, std::size_t start, const StepTimes& times) {
        put(out, "\"ops.seq\":", seq);
        out.put(",\"ops.prev_sha256\":\"");
        out.put(std::string_view(prev.data(), prev.size()));
        out.put('"');
        const std::size_t size = out.size() - start;
        const std::uint32_t crc = crc32(out.data() + start, size);
        take(sha256(out.data() + start, size));
        ++seq;
        put(out, ",\"ops.crc32\":", crc);
        put(out, ",\"ops.latency_ns\":{\"observe\":", times.observe);
        put(out, ",\"fills\":", times.fills);
        put(out, ",\"decide\":", times.decide);
        put(out, ",\"orders\":", times.orders);
        out.put("}},\"latency_ms\":");
        // Hardly ever the same twice: remembering it would push out numbers that are.
        out.used(write_double(static_cast<double>(times.total) / 1e6, out.room()));
        out.put("}\n");
    }

private:
    template <std::size_t N>
    static void put(ByteBuffer& out, const char (&key)[N], std::int64_t number) {
        out.put(key);
        out.used(write_int(number, out.room()));
    }

    void take(const Digest& digest) {
        constexpr const char* kHex = "0123456789abcdef";
        for (std::size_t i = 0; i < digest.size(); ++i) {
            prev[2 * i] = kHex[digest[i] >> 4];
            prev[2 * i + 1] = kHex[digest[i] & 15];
        }
    }
};

// The chain of frames: trace/frames.py and frame_codec.py say what is in one.
class FrameChain {
public:
    static constexpr std::size_t kHeadBytes = 20;

    std::int64_t seq = 0;
    Digest prev{};  // SHA-256 of the last frame's hashed part

    std::size_t open(ByteBuffer& out) const {
        const std::size_t start = out.size();
        static constexpr char kNothing[kHeadBytes] = {};
        out.put(std::string_view(kNothing, kHeadBytes));
        put_little(out, static_cast<std::uint64_t>(seq), 8);
        out.put(std::string_view(reinterpret_cast<const char*>(prev.data()), prev.size()));
        return start;
    }

    void close(ByteBuffer& out, std::size_t start, const StepTimes& times) {
        const std::size_t hashed = start + kHeadBytes, size = out.size() - hashed;
        const std::uint32_t crc = crc32(out.data() + hashed, size);
        prev = sha256(out.data() + hashed, size);
        ++seq;
        const std::size_t tail = out.size();
        PackForm form(out);
        form.open_list(2);
        form.open_map(4);
        put(form, "observe", times.observe);
        put(form, "fills", times.fills);
        put(form, "decide", times.decide);
        put(form, "orders", times.orders);
        form.real(static_cast<double>(times.total) / 1e6);
        write_head(out.data() + start, size, out.size() - tail, crc);
    }

private:
    static void put(PackForm& form, std::string_view key, std::int64_t number) {
        form.text(key);
        form.whole(number);
    }

    static void put_little(ByteBuffer& out, std::uint64_t number, int bytes) {
        char* to = out.room();
        for (int i = 0; i < bytes; ++i) to[i] = static_cast<char>(number >> 8 * i);
        out.used(static_cast<std::size_t>(bytes));
    }

    static void write_little(char* to, std::uint64_t number) {
        for (int i = 0; i < 4; ++i) to[i] = static_cast<char>(number >> 8 * i);
    }

    static void write_head(char* head, std::size_t hashed, std::size_t tail, std::uint32_t crc) {
        constexpr char kMark[4] = {'\xae', 'T', 1, 1};  // of a packet, in version 1
        std::memcpy(head, kMark, sizeof kMark);
        write_little(head + 4, hashed);
        write_little(head + 8, tail);
        write_little(head + 12, crc);
        write_little(head + 16, crc32(head, 16));
    }
};

}  // namespace ami
