// Integer types and LITEVAE_INLINE, for sources that a host compiler, nvcc and NVRTC compile.
//
// NVRTC has no standard headers. LITEVAE_INLINE functions are always inlined, on the host and on the device.
#pragma once

#if defined(__CUDACC_RTC__)
namespace litevae {
using int8_t = signed char;
using uint8_t = unsigned char;
using int16_t = short;
using uint16_t = unsigned short;
using int32_t = int;
using uint32_t = unsigned int;
using int64_t = long long;
using uint64_t = unsigned long long;
}  // namespace litevae
#else
#include <cmath>
#include <cstdint>
#include <cstring>
namespace litevae {
using ::uint8_t;  // litevae::uint8_t names a kernel's type to either compiler
}  // namespace litevae
#endif

#if defined(__CUDACC__)
#define LITEVAE_INLINE __host__ __device__ __forceinline__
#else
#define LITEVAE_INLINE inline __attribute__((always_inline))
#endif
