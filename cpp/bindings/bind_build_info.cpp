// What this core was built with, for `ami doctor`.
#include <nanobind/nanobind.h>

#include <ami/feature_ids.hpp>

namespace nb = nanobind;

namespace {

const char* compiler() {
#if defined(__clang__)
    return "clang " __clang_version__;
#elif defined(__GNUC__)
    return "gcc " __VERSION__;
#elif defined(_MSC_VER)
    return "msvc";
#else
    return "unknown";
#endif
}

const char* architecture() {
#if defined(__x86_64__) || defined(_M_X64)
    return "x86-64";
#elif defined(__aarch64__) || defined(_M_ARM64)
    return "arm64";
#else
    return "other";
#endif
}

}  // namespace

void bind_build_info(nb::module_& m) {
    m.def(
        "build_info",
        [] {
            nb::dict info;
            info["compiler"] = compiler();
            info["architecture"] = architecture();
#ifdef NDEBUG
            info["assertions"] = "off";
#else
            info["assertions"] = "on";
#endif
#ifdef __FAST_MATH__
            info["fast_math"] = "on";
#else
            info["fast_math"] = "off";
#endif
#ifdef __FMA__
            info["fma_instructions"] = "allowed";
#else
            info["fma_instructions"] = "not used";
#endif
            info["schema"] = ami::kSchemaHash;
            return info;
        },
        "Compiler, target and floating-point flags of this build.");
}
