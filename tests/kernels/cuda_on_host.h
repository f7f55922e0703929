// What does a .cu find when g++ compiles it for the tests? The words of CUDA C++, acted out by cuda_on_host.cpp.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__ static thread_local  // the library's thread-local block: one region, with nothing else in it

#pragma GCC visibility push(default)  // what follows is defined in another library
struct CudaIndex { unsigned x, y, z; };
extern CudaIndex threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_on_host {

void wait_for_block(unsigned line);
void wait_for_warp(unsigned line);
// Every lane of the warp hands in a value of `size` bytes and gets that of lane `partner`.
void exchange(const void* value, void* result, size_t size, unsigned partner, unsigned mask, unsigned line);
unsigned lane();

}  // namespace cuda_on_host
#pragma GCC visibility pop

namespace cuda_on_host {

static thread_local char shared_anchor;  // makes the thread-local block exist, and tells where

template <typename T>
T shuffle(T value, unsigned partner, unsigned mask, unsigned line) {
    T result;
    exchange(&value, &result, sizeof(T), partner, mask, line);
    return result;
}

// As Python's ctypes names the kind of a kernel's parameter; P: a pointer.
template <typename T>
constexpr char kind() {
    if (std::is_pointer_v<T>) return 'P';
    if (std::is_same_v<T, float>) return 'f';
    if (std::is_same_v<T, double>) return 'd';
    if (std::is_integral_v<T> && sizeof(T) == 4) return std::is_signed_v<T> ? 'i' : 'I';
    if (std::is_integral_v<T> && sizeof(T) == 8) return std::is_signed_v<T> ? 'l' : 'L';
    return '?';
}

template <typename... Parameters>
const char* kinds(void (*)(Parameters...)) {
    static const char text[] = {kind<std::remove_cv_t<Parameters>>()..., 0};
    return text;
}

// The array of arguments is Python's, not the kernel's to be checked.
template <typename... Parameters, size_t... kIndex>
__attribute__((no_sanitize_thread)) void call(void (*kernel)(Parameters...), void** arguments,
                                              std::index_sequence<kIndex...>) {
    kernel(*static_cast<std::remove_cv_t<Parameters>*>(arguments[kIndex])...);
}
template <typename... Parameters>
void call(void (*kernel)(Parameters...), void** arguments) {
    call(kernel, arguments, std::index_sequence_for<Parameters...>());
}

}  // namespace cuda_on_host

inline void __syncthreads(unsigned line = __builtin_LINE()) { cuda_on_host::wait_for_block(line); }
inline void __syncwarp(unsigned = ~0u, unsigned line = __builtin_LINE()) { cuda_on_host::wait_for_warp(line); }
template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int = 32, unsigned line = __builtin_LINE()) {
    return cuda_on_host::shuffle(value, unsigned(lane) % 32, mask, line);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int = 32, unsigned line = __builtin_LINE()) {
    return cuda_on_host::shuffle(value, cuda_on_host::lane() ^ unsigned(bits), mask, line);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int = 32, unsigned line = __builtin_LINE()) {
    const unsigned lane = cuda_on_host::lane(), from = lane + by;
    return cuda_on_host::shuffle(value, from < 32 ? from : lane, mask, line);
}
