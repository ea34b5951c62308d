#include <nanobind/nanobind.h>
namespace nb = nanobind;
void bind_rolling(nb::module_&) {}
