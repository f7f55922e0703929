// torch's dtypes in C++, on the host and on the device: their codes, and conversions from and to float16 and bfloat16.
//
// Read first: load and store, one element each. Arithmetic is float or double; Stored is the dtype in memory.
#pragma once

#include "inline.h"

namespace litevae {

// Codes as in litevae_kernels/native.py. Only images can be uint8.
enum class Dtype : int { float32 = 0, float64 = 1, float16 = 2, bfloat16 = 3, uint8 = 4 };

struct float16 { uint16_t bits; };
struct bfloat16 { uint16_t bits; };

LITEVAE_INLINE uint32_t bits_of(float value) { uint32_t bits; memcpy(&bits, &value, 4); return bits; }
LITEVAE_INLINE float float_of(uint32_t bits) { float value; memcpy(&value, &bits, 4); return value; }

LITEVAE_INLINE float widen(bfloat16 x) { return float_of(uint32_t(x.bits) << 16); }

// Exponent and mantissa are shifted by 13 bits. The multiplication by 2^112 corrects the exponent's bias and normalises
// subnormal values.
LITEVAE_INLINE float widen(float16 x) {
#if defined(__CUDA_ARCH__)
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x.bits));
    return value;
#else
    const uint32_t magnitude = uint32_t(x.bits & 0x7fff) << 13, sign = uint32_t(x.bits & 0x8000) << 16;
    const uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0;  // infinity and NaN: all bits of the exponent
    return float_of(bits_of(float_of(magnitude) * 0x1p112f) | special | sign);
#endif
}

// Both `narrow` round to nearest, ties to even, and keep NaN, as the GPU's instructions do.
LITEVAE_INLINE void narrow(float x, bfloat16& result) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
#else
    const uint32_t bits = bits_of(x);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1)) >> 16;
    result.bits = uint16_t((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40 : rounded);
#endif
}

LITEVAE_INLINE void narrow(float x, float16& result) {
#if defined(__CUDA_ARCH__)
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
#else
    const uint32_t bits = bits_of(x), sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffffu;
    // Below 2^-14 the result is subnormal: the addition of 0.5 rounds to multiples of 2^-24, its last place.
    const uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u;
    const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1)) >> 13;
    uint32_t half = magnitude < 0x38800000u ? subnormal : normal;
    half = magnitude >= 0x477ff000u ? 0x7c00u : half;  // 65520 and above round to infinity
    half = magnitude > 0x7f800000u ? 0x7e00u : half;
    result.bits = uint16_t(half | sign);
#endif
}

LITEVAE_INLINE float widen(float x) { return x; }
LITEVAE_INLINE double widen(double x) { return x; }
template <typename Arithmetic, typename Stored>
LITEVAE_INLINE Arithmetic load(const Stored& x) { return Arithmetic(widen(x)); }

// The value of an 8-bit pixel, p / 127.5 - 1, without a division but with the same bits, for a number or a vector.
// 1 / 127.5 is 257 / 2^15 + 257 / 2^15 / 65535. p times the first term is exact, so the sum is rounded once.
template <typename Number, typename T> LITEVAE_INLINE T pixel_value(T p) {
    return Number(-1) + (Number(257.0 / 32768) * p + Number(257.0 / 32768 / 65535) * p);
}
template <typename Arithmetic> LITEVAE_INLINE Arithmetic load(const uint8_t& x) { return pixel_value<Arithmetic>(Arithmetic(x)); }

template <typename Arithmetic> LITEVAE_INLINE void store(Arithmetic x, float& result) { result = float(x); }
template <typename Arithmetic> LITEVAE_INLINE void store(Arithmetic x, double& result) { result = double(x); }
template <typename Arithmetic> LITEVAE_INLINE void store(Arithmetic x, float16& result) { narrow(float(x), result); }
template <typename Arithmetic> LITEVAE_INLINE void store(Arithmetic x, bfloat16& result) { narrow(float(x), result); }

#if !defined(__CUDACC_RTC__)  // NVRTC takes no host functions

// Calls body(data as a pointer to the dtype's type).
template <typename Body> inline void with_type(const void* data, Dtype dtype, Body&& body) {
    switch (dtype) {
        case Dtype::float32: return body(static_cast<const float*>(data));
        case Dtype::float64: return body(static_cast<const double*>(data));
        case Dtype::float16: return body(static_cast<const float16*>(data));
        case Dtype::bfloat16: return body(static_cast<const bfloat16*>(data));
        case Dtype::uint8: return;
    }
}
// The same for an image, which can be uint8.
template <typename Body> inline void with_pixel_type(const void* data, Dtype dtype, Body&& body) {
    if (dtype == Dtype::uint8) return body(static_cast<const uint8_t*>(data));
    with_type(data, dtype, body);
}
template <typename Body> inline void with_type(void* data, Dtype dtype, Body&& body) {
    switch (dtype) {
        case Dtype::float32: return body(static_cast<float*>(data));
        case Dtype::float64: return body(static_cast<double*>(data));
        case Dtype::float16: return body(static_cast<float16*>(data));
        case Dtype::bfloat16: return body(static_cast<bfloat16*>(data));
        case Dtype::uint8: return;
    }
}

inline int64_t size_of(Dtype dtype) {
    return dtype == Dtype::float64 ? 8 : dtype == Dtype::float32 ? 4 : dtype == Dtype::uint8 ? 1 : 2;
}

#endif

}  // namespace litevae
