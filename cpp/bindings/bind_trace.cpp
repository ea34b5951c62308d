// Packets of a trace, in one pass that only writes what is known to be clean.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>

#include "packet_writer.hpp"

namespace nb = nanobind;

namespace {

using packets::Block;
using packets::PacketWriter;

template <class Hash>
void set(Hash& hash, std::string_view given) {
    if (given.size() != hash.size()) throw std::invalid_argument("the hash must have " + std::to_string(hash.size()) + " bytes");
    std::memcpy(hash.data(), given.data(), given.size());
}

nb::bytes as_bytes(const ami::Digest& digest) { return nb::bytes(digest.data(), digest.size()); }

}  // namespace

void bind_trace(nb::module_& m) {
    nb::class_<Block>(m, "Block", "Bytes that collect, and are taken all at once.")
        .def(nb::init<>())
        .def("__len__", [](const Block& block) { return block.bytes.size(); })
        .def(
            "append", [](Block& block, nb::bytes data) { block.bytes.put({data.c_str(), data.size()}); }, nb::arg("data"),
            "Add bytes at the end.")
        .def(
            "view", [](Block& block) {
                const auto size = static_cast<Py_ssize_t>(block.bytes.size());
                return nb::steal(PyMemoryView_FromMemory(block.bytes.data(), size, PyBUF_READ));
            }, nb::keep_alive<0, 1>(), nb::sig("def view(self) -> memoryview"),
            "Return what has collected, where it is: to be released before the block changes.")
        .def("clear", [](Block& block) { block.bytes.clear(); }, "Be empty.")
        .def(
            "take", [](Block& block) {
                nb::bytearray taken(block.bytes.data(), block.bytes.size());
                block.bytes.clear();
                return taken;
            }, "Return what has collected, and be empty.");
    nb::class_<ami::LineChain>(m, "LineChain", "Where a chain of lines has come to.")
        .def(nb::init<>())
        .def_rw("seq", &ami::LineChain::seq, "Number of the next line.")
        .def_prop_rw(
            "prev", [](const ami::LineChain& chain) { return nb::str(chain.prev.data(), chain.prev.size()); },
            [](ami::LineChain& chain, std::string_view hex) { set(chain.prev, hex); }, "Hash of the last line's hashed part, hex.");
    nb::class_<ami::FrameChain>(m, "FrameChain", "Where a chain of frames has come to.")
        .def(nb::init<>())
        .def_rw("seq", &ami::FrameChain::seq, "Number of the next frame.")
        .def_prop_rw(
            "prev", [](const ami::FrameChain& chain) { return as_bytes(chain.prev); },
            [](ami::FrameChain& chain, nb::bytes digest) { set(chain.prev, {digest.c_str(), digest.size()}); },
            "Hash of the last frame's hashed part.");
    nb::class_<PacketWriter>(m, "PacketWriter", "Writes packets, when everything in them is known to be clean.")
        .def(nb::init<nb::dict, nb::dict>(), nb::arg("texts"), nb::arg("keys"),
             "`texts` and `keys` hold the JSON of every string that is clean as a value and as a key, the key's with its "
             "colon; they are read at every call.")
        .def("add_struct", &PacketWriter::add_struct, nb::arg("type"), nb::arg("names"), nb::arg("keys"), nb::arg("omitted"),
             "Announce a struct type: its fields, their keys in JSON, and the defaults that are left out.")
        .def("set_layout", &PacketWriter::set_layout, nb::arg("type"), nb::arg("layout"),
             "Say the layout that stands for an announced type's field names in the binary form.")
        .def("add_constant", &PacketWriter::add_constant, nb::arg("constant"), nb::arg("text"),
             "Announce an object, such as an enum's member, and its JSON, a text.")
        .def("write", &PacketWriter::write, nb::arg("packet"), nb::arg("seq"), nb::arg("prev"),
             "Return the hashed part of the packet's line, or None.")
        .def("knows", &PacketWriter::knows, nb::arg("packet"), "Return whether `write` would write the packet.")
        .def("tail", &PacketWriter::tail, nb::arg("crc"), nb::arg("latency_ns").none(), nb::arg("latency_ms").none(),
             "Return what follows the hashed part, or None.")
        .def("begin_lines", &PacketWriter::begin_lines, nb::keep_alive<1, 2>(),
             "Log steps as lines of a LineChain: the types of a decision, its input, row, traced decision and mismatch, the "
             "schema's version and the run follow.")
        .def("begin_frames", &PacketWriter::begin_frames, nb::keep_alive<1, 2>(), "The same with frames of a FrameChain.")
        .def("aim", &PacketWriter::aim, nb::keep_alive<1, 2>(), nb::arg("block"), nb::arg("due_seq"), nb::arg("due_bytes"),
             "Say which block steps are appended to, and when it is due to be handed on.")
        .def("end_steps", &PacketWriter::end_steps, "Log no step from here on.")
        .def("log_step", &PacketWriter::log_step, nb::arg("step"), nb::arg("event"), nb::arg("symbol"), nb::arg("now_ns"),
             nb::arg("row").none(), nb::arg("decision"), nb::arg("external"), nb::arg("times"),
             "Append a step's packet to the block. Return 0 when its packet must be made and encoded as such, 1 when all is "
             "done, 2 when the block is to be handed on.");
    m.def(
        "json_of_double",
        [](double number) {
            char text[ami::kNumberChars];
            return std::string(text, std::isfinite(number) ? ami::write_double(number, text) : 0);
        },
        nb::arg("number"), "The shortest JSON text of a finite number; empty for any other.");
    m.def(
        "sha256", [](nb::bytes data, bool portable) {
            return as_bytes(portable ? ami::sha256_portable(data.c_str(), data.size()) : ami::sha256(data.c_str(), data.size()));
        },
        nb::arg("data"), nb::arg("portable") = false, "The digest of `data`; `portable` asks for no help of the processor.");
    m.def(
        "crc32", [](nb::bytes data, bool portable) {
            return portable ? ami::crc32_portable(data.c_str(), data.size()) : ami::crc32(data.c_str(), data.size());
        },
        nb::arg("data"), nb::arg("portable") = false, "The CRC-32 of `data`, as zlib counts it.");
}
