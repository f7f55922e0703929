// What is the exponential of a vector, and how are several vectors kept in flight at once?
#pragma once
#include <cmath>

#include "cpu_vectors.h"

namespace litevae {

// Vectors side by side. Each step is taken for all of them before the next one: in a long chain of dependent steps
// that keeps the vector units busy, where one vector after the other would leave them waiting.
template <typename V, int kCount>
struct Pack {
    using Scalar = typename V::Scalar;
    V part[kCount];

    static LITEVAE_INLINE Pack all(V x) {
        Pack result;
        for (V& part : result.part) part = x;
        return result;
    }
    static LITEVAE_INLINE Pack all(Scalar x) { return all(V::all(x)); }

#define LITEVAE_PACK_OPERATOR(op)                                                     \
    friend LITEVAE_INLINE Pack operator op(Pack x, Pack y) {                          \
        for (int k = 0; k < kCount; k++) x.part[k] = x.part[k] op y.part[k];          \
        return x;                                                                     \
    }                                                                                 \
    friend LITEVAE_INLINE Pack operator op(Scalar x, Pack y) {                        \
        for (V& part : y.part) part = x op part;                                      \
        return y;                                                                     \
    }
    LITEVAE_PACK_OPERATOR(+)
    LITEVAE_PACK_OPERATOR(-)
    LITEVAE_PACK_OPERATOR(*)
    LITEVAE_PACK_OPERATOR(/)
#undef LITEVAE_PACK_OPERATOR
    friend LITEVAE_INLINE Pack operator-(Pack x) {
        for (V& part : x.part) part = -part;
        return x;
    }
};

// x where it is from low to high; NaN stays NaN.
template <int Bytes>
LITEVAE_INLINE Vector<float, Bytes> limited(Vector<float, Bytes> x, float low, float high) {
    const Vector<float, Bytes> least = Vector<float, Bytes>::all(low), most = Vector<float, Bytes>::all(high);
#if LITEVAE_X86 && !defined(__clang__)
    if constexpr (Bytes > 16) {  // GCC would compare and blend
        asm("vminps %1, %2, %0" : "=v"(x.value) : "v"(x.value), "v"(most.value));
        asm("vmaxps %1, %2, %0" : "=v"(x.value) : "v"(x.value), "v"(least.value));
        return x;
    }
#endif
    x.value = most.value < x.value ? most.value : x.value;
    x.value = least.value > x.value ? least.value : x.value;
    return x;
}

// Within 2.5 units in the last place for |x| up to 10, within 6 elsewhere; infinite from 2^127.5 on, 0 where the result
// would be subnormal, NaN of NaN. exp(x) = 2^n exp(r), n the integer nearest to x / log(2): adding 1.5 * 2^23 leaves it
// in the last bits of the sum. The polynomial is the one of degree 5 with the least relative error, 1e-7, that starts
// with 1 + r. (A sixth degree and a log(2) in two parts would halve the error, and take 10 % longer.)
template <int Bytes, int kCount>
LITEVAE_INLINE Pack<Vector<float, Bytes>, kCount> exponential(Pack<Vector<float, Bytes>, kCount> x) {
    using Values = Pack<Vector<float, Bytes>, kCount>;
    for (auto& part : x.part) part = limited(part, -88.f, 89.f);
    const Values shifted = Values::all(12582912.f) + 1.44269504f * x, n = -12582912.f + shifted;
    Values r = x - 0.693147182f * n;
    if constexpr (Bytes == 16) {  // without a fused multiply-add: log(2) in two parts, n times the first is exact
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
LITEVAE_INLINE Pack<Vector<double, Bytes>, kCount> exponential(Pack<Vector<double, Bytes>, kCount> x) {
    for (auto& part : x.part) {
        double lanes[Bytes / 8];
        part.store(lanes);
        for (double& lane : lanes) lane = std::exp(lane);
        part = Vector<double, Bytes>::load(lanes);
    }
    return x;
}

}  // namespace litevae
