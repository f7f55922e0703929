// The level of vector instructions that the CPU kernels use. It is chosen at run time, so one build serves every CPU.
//
// Read first: dispatch. A kernel is a struct with `template <int Bytes> static void run(...)`; Bytes is the size of the
// vectors, as in Vector<T, Bytes> of cpu_vectors.h. dispatch<Kernel>(...) runs it at the level that was chosen.
#pragma once
#include <algorithm>

#include "inline.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define LITEVAE_X86 1
#endif

namespace litevae {

// Names and order as in litevae_kernels/native.py. avx512_bf16 is avx512 with an instruction that rounds to bfloat16.
enum class Level : int { baseline, avx2, avx512, avx512_bf16 };

// The highest level of this CPU.
inline Level best_level() {
#if LITEVAE_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) {
        return __builtin_cpu_supports("avx512bf16") ? Level::avx512_bf16 : Level::avx512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Level::avx2;
#endif
    return Level::baseline;
}

#if defined(LITEVAE_ONE_LEVEL)  // tests/csrc/sanitize.py builds one level, to save minutes
constexpr Level level = Level::LITEVAE_ONE_LEVEL;
inline void limit_level(Level) {}
#else
inline Level level = best_level();
inline void limit_level(Level most) { level = std::min(best_level(), most); }
#endif

// Each level is a function of its own, which is compiled for that level together with all that is inlined in it.
template <typename Kernel, typename... Args>
void run_on_baseline(Args... args) { Kernel::template run<16>(args...); }
#if LITEVAE_X86
template <typename Kernel, typename... Args>
__attribute__((target("avx2,fma"))) void run_on_avx2(Args... args) { Kernel::template run<32>(args...); }
template <typename Kernel, typename... Args>
__attribute__((target("avx512f"))) void run_on_avx512(Args... args) { Kernel::template run<64>(args...); }
#endif

template <typename Kernel, typename... Args>
void dispatch(Args... args) {
#if defined(LITEVAE_ONE_LEVEL)
    Kernel::template run<level == Level::baseline ? 16 : level == Level::avx2 ? 32 : 64>(args...);
#elif LITEVAE_X86
    static constexpr void (*by_level[])(Args...) = {run_on_baseline<Kernel, Args...>, run_on_avx2<Kernel, Args...>,
                                                    run_on_avx512<Kernel, Args...>, run_on_avx512<Kernel, Args...>};
    by_level[int(level)](args...);
#else
    run_on_baseline<Kernel>(args...);
#endif
}

}  // namespace litevae
