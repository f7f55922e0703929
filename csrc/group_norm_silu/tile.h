// The formulas of GroupNorm then SiLU for one element, and for the statistics of parts of a group: the arithmetic that
// the CPU and CUDA kernels share.
//
//     z = (x - mean) scale + bias,  scale = weight rstd,  y = silu(z) = z / (1 + exp(-z))
//     dz = dy silu'(z);  for every channel S1 = sum dz, S2 = rstd sum dz (x - mean);
//     for every group of n elements c1 = sum weight S1 / n, c2 = sum weight S2 / n;
//     dx = scale dz - offset - (x - mean) slope,  offset = rstd c1,  slope = rstd^2 c2
//
// T is float, double or, on the CPU, Vectors of either.
#pragma once

#include "../inline.h"

#if !defined(__CUDACC_RTC__)
#include <cmath>
#endif

namespace litevae {

// The mean of `count` elements, and m2, the sum of (x - mean)^2.
template <typename T>
struct Moments {
    T count, mean, m2;
};

// From the sums of d and d^2, d = x - shift, where the shift is near the mean: with shift 0, m2 would be the difference
// of two large numbers.
template <typename T>
LITEVAE_INLINE Moments<T> moments_around(T shift, T count, T sum, T sum_of_squares) {
    const T step = sum / count, m2 = sum_of_squares - sum * step;
    return {count, shift + step, m2 > 0 ? m2 : T(0)};
}

// The moments of two parts together (Chan's formula); either may be empty.
template <typename T>
LITEVAE_INLINE Moments<T> combine(Moments<T> a, Moments<T> b) {
    const T count = a.count + b.count, share = count > 0 ? b.count / count : T(0), step = b.mean - a.mean;
    return {count, a.mean + step * share, a.m2 + b.m2 + step * step * (a.count * share)};
}

LITEVAE_INLINE float exponential(float x) { return ::expf(x); }
LITEVAE_INLINE double exponential(double x) { return ::exp(x); }

template <typename T>
LITEVAE_INLINE T normalise(T x, T mean, T scale, T bias) {
    return (x - mean) * scale + bias;
}

template <typename T>
LITEVAE_INLINE T silu(T z) {
    return z / (1 + exponential(-z));
}

template <typename T>
LITEVAE_INLINE T silu_derivative(T z) {
    const T s = 1 / (1 + exponential(-z));
    return s * (1 + z * (1 - s));
}

#if defined(__CUDA_ARCH__)  // the same by the GPU's own instructions: a few units in the last place off, a fifth as long
LITEVAE_INLINE float silu(float z) { return __fdividef(z, 1 + __expf(-z)); }
LITEVAE_INLINE float silu_derivative(float z) {
    const float s = __fdividef(1, 1 + __expf(-z));
    return s * (1 + z * (1 - s));
}
#endif

template <typename T>
LITEVAE_INLINE T input_gradient(T dz, T centred, T scale, T offset, T slope) {
    return scale * dz - offset - centred * slope;
}

}  // namespace litevae
