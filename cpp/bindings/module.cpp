// The compiled core: a table of contents.
#include <nanobind/nanobind.h>

#include <ami/feature_ids.hpp>

namespace nb = nanobind;

void bind_bench(nb::module_& m);
void bind_build_info(nb::module_& m);
void bind_errors(nb::module_& m);
void bind_rolling(nb::module_& m);
void bind_feature_vector(nb::module_& m);
void bind_depth_message(nb::module_& m);
void bind_order_book(nb::module_& m);
void bind_features(nb::module_& m);
void bind_compiled_loop(nb::module_& m);
void bind_stepper(nb::module_& m);
void bind_trace(nb::module_& m);

NB_MODULE(_core, m) {
    m.doc() = "Compiled core of ami_engine: features, rolling statistics, order books, trace lines.";
    m.attr("SCHEMA_HASH") = ami::kSchemaHash;
#ifdef NDEBUG
    // Objects that are alive when the interpreter ends are its business, not something to tell a user about.
    nb::set_leak_warnings(false);
#endif
    bind_build_info(m);
    bind_errors(m);
    bind_rolling(m);
    bind_feature_vector(m);
    bind_depth_message(m);
    bind_order_book(m);
    bind_features(m);
    bind_compiled_loop(m);
    bind_stepper(m);
    bind_trace(m);
    bind_bench(m);
}
