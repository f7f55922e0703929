// The exponential of vectors, and several vectors that are worked on together.
//
// Read first: Vectors<V, kCount>, which is kCount vectors of type V, a Vector<T, Bytes>.
#pragma once
#include <cmath>

#include "cpu_vectors.h"

namespace litevae {

// Every operation is done for all kCount vectors before the next operation starts. The operations of one vector depend
// on each other and would wait for each other's results; those of several vectors overlap.
template <typename V, int kCount>
struct Vectors {
    using Scalar = typename V::Scalar;
    V part[kCount];

    static LITEVAE_INLINE Vectors all(V x) {
        Vectors result;
        for (V& part : result.part) part = x;
        return result;
    }
    static LITEVAE_INLINE Vectors all(Scalar x) { return all(V::all(x)); }

#define LITEVAE_VECTORS_OPERATOR(op)                                                     \
    friend LITEVAE_INLINE Vectors operator op(Vectors x, Vectors y) {                          \
        for (int k = 0; k < kCount; k++) x.part[k] = x.part[k] op y.part[k];          \
        return x;                                                                     \
    }                                                                                 \
    friend LITEVAE_INLINE Vectors operator op(Scalar x, Vectors y) {                        \
        for (V& part : y.part) part = x op part;                                      \
        return y;                                                                     \
    }
    LITEVAE_VECTORS_OPERATOR(+)
    LITEVAE_VECTORS_OPERATOR(-)
    LITEVAE_VECTORS_OPERATOR(*)
    LITEVAE_VECTORS_OPERATOR(/)
#undef LITEVAE_VECTORS_OPERATOR
    friend LITEVAE_INLINE Vectors operator-(Vectors x) {
        for (V& part : x.part) part = -part;
        return x;
    }
};

// Clamps x to [low, high]; NaN stays NaN.
template <int Bytes>
LITEVAE_INLINE Vector<float, Bytes> limited(Vector<float, Bytes> x, float low, float high) {
    const Vector<float, Bytes> least = Vector<float, Bytes>::all(low), most = Vector<float, Bytes>::all(high);
#if LITEVAE_X86 && !defined(__clang__)
    if constexpr (Bytes > 16) {  // GCC would use a comparison and a blend
        asm("vminps %1, %2, %0" : "=v"(x.value) : "v"(x.value), "v"(most.value));
        asm("vmaxps %1, %2, %0" : "=v"(x.value) : "v"(x.value), "v"(least.value));
        return x;
    }
#endif
    x.value = most.value < x.value ? most.value : x.value;
    x.value = least.value > x.value ? least.value : x.value;
    return x;
}

// exp(x), with an error of at most 2.5 units in the last place for |x| <= 10 and 6 elsewhere. Results above 2^127.5 are
// infinite, subnormal results are 0, and NaN stays NaN.
//
// exp(x) = 2^n exp(r), where n is the integer nearest to x / log(2). Adding 1.5 * 2^23 leaves n in the last bits of the
// sum. The polynomial for exp(r) starts with 1 + r and has, of those of degree 5, the least relative error, 1e-7.
// (Degree 6 and log(2) in two parts would halve the error and take 10 % longer.)
template <int Bytes, int kCount>
LITEVAE_INLINE Vectors<Vector<float, Bytes>, kCount> exponential(Vectors<Vector<float, Bytes>, kCount> x) {
    using Values = Vectors<Vector<float, Bytes>, kCount>;
    for (auto& part : x.part) part = limited(part, -88.f, 89.f);
    const Values shifted = Values::all(12582912.f) + 1.44269504f * x, n = -12582912.f + shifted;
    Values r = x - 0.693147182f * n;
    if constexpr (Bytes == 16) {  // may lack a fused multiply-add: log(2) in two parts, n times the first is exact
        r = (x - 0.693359375f * n) - -2.12194440e-4f * n;
    }
    Values power = 0x1.572a06p-5f + 0x1.10627ap-7f * r;
    power = 0x1.5557aep-3f + power * r;
    power = 0x1.fffdfcp-2f + power * r;
    power = 1.f + power * r;
    power = 1.f + power * r;
    typedef uint32_t Bits __attribute__((vector_size(Bytes)));
    Values scale;
    for (int k = 0; k < kCount; k++) {
        const Bits bits = (reinterpret_cast<Bits>(shifted.part[k].value) << 23) + 0x3f800000u;
        std::memcpy(&scale.part[k].value, &bits, Bytes);
    }
    return power * scale;
}

template <int Bytes, int kCount>
LITEVAE_INLINE Vectors<Vector<double, Bytes>, kCount> exponential(Vectors<Vector<double, Bytes>, kCount> x) {
    for (auto& part : x.part) {
        double lanes[Bytes / 8];
        part.store(lanes);
        for (double& lane : lanes) lane = std::exp(lane);
        part = Vector<double, Bytes>::load(lanes);
    }
    return x;
}

}  // namespace litevae
