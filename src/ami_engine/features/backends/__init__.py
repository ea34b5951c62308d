"""The three spellings of the features: native (C++), numba and reference. Each engine is imported only when chosen."""
