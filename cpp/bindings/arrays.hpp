// Array contracts as types: dtype, shape and order are checked by the binding, and named in the stub.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>

namespace arrays {

namespace nb = nanobind;

using Floats = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
// (n, 2): price and size, best first.
using Levels = nb::ndarray<const double, nb::shape<-1, 2>, nb::c_contig, nb::device::cpu>;
// (rows, N, 2): the levels of each row, padded with NaN.
using LevelTable = nb::ndarray<const double, nb::shape<-1, -1, 2>, nb::c_contig, nb::device::cpu>;
// (rows, F): where a batch is written. F is what the builder's rows hold.
using Rows = nb::ndarray<double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
// The live row as NumPy sees it: read-only.
using RowView = nb::ndarray<nb::numpy, const double, nb::ndim<1>, nb::c_contig>;

}  // namespace arrays
