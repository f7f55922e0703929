// Vectors of numbers with the operators of a number, for the CPU kernels.
//
// Read first: Vector<T, Bytes>. T is float or double; Bytes is 16 (baseline), 32 (AVX2) or 64 (AVX-512), as dispatch in
// cpu_level.h passes it to a kernel. The code is GCC's and clang's vector extension; assembly stands only where GCC
// does not find the instruction.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "cpu_level.h"

namespace litevae {

template <typename T, int Bytes>
struct Vector {
    typedef T Type __attribute__((vector_size(Bytes)));
    using Scalar = T;
    static constexpr int kBytes = Bytes, kLanes = Bytes / int(sizeof(T));
    Type value;

    static LITEVAE_INLINE Vector all(T x) {
#if defined(__clang__)
        return {x - Type{}};
#else  // GCC would make the expression above lane by lane
        typedef std::conditional_t<sizeof(T) == 8, int64_t, int32_t> Index __attribute__((vector_size(Bytes)));
        Type first = {};
        first[0] = x;
        return {__builtin_shuffle(first, Index{})};
#endif
    }
    static LITEVAE_INLINE Vector load(const T* source) {
        Vector result;
        std::memcpy(&result.value, source, Bytes);
        return result;
    }
    LITEVAE_INLINE void store(T* result) const { std::memcpy(result, &value, Bytes); }

    // kStream: a non-temporal store, for results too large for the caches. It spares reading a line before writing it.
    template <bool kStream>
    LITEVAE_INLINE void put(T* result) const {
        if constexpr (!kStream) {
            store(result);
        } else {
            auto* line = reinterpret_cast<Type*>(result);
#if defined(__clang__)
            __builtin_nontemporal_store(value, line);
#elif LITEVAE_X86
            if constexpr (Bytes == 16) {
                asm("movntps %1, %0" : "=m"(*line) : "x"(value));
            } else {
                asm("vmovntps %1, %0" : "=m"(*line) : "v"(value));
            }
#else
            *line = value;
#endif
        }
    }

    // The lanes of x followed by those of y, numbered from 0, in the order of Lane.
    template <int... Lane>
    static LITEVAE_INLINE Vector shuffled(Vector x, Vector y) {
#if defined(__clang__)
        return {__builtin_shufflevector(x.value, y.value, Lane...)};
#else  // GCC has __builtin_shufflevector only from version 12 on
        typedef std::conditional_t<sizeof(T) == 8, int64_t, int32_t> Index __attribute__((vector_size(Bytes)));
        return {__builtin_shuffle(x.value, y.value, Index{Lane...})};
#endif
    }

    friend LITEVAE_INLINE Vector operator+(Vector x, Vector y) { return {x.value + y.value}; }
    friend LITEVAE_INLINE Vector operator-(Vector x, Vector y) { return {x.value - y.value}; }
    friend LITEVAE_INLINE Vector operator*(Vector x, Vector y) { return {x.value * y.value}; }
    friend LITEVAE_INLINE Vector operator/(Vector x, Vector y) { return {x.value / y.value}; }
    friend LITEVAE_INLINE Vector operator+(T x, Vector y) { return {x + y.value}; }
    friend LITEVAE_INLINE Vector operator-(T x, Vector y) { return {x - y.value}; }
    friend LITEVAE_INLINE Vector operator*(T x, Vector y) { return {x * y.value}; }
    friend LITEVAE_INLINE Vector operator/(T x, Vector y) { return {x / y.value}; }
    friend LITEVAE_INLINE Vector operator-(Vector x) { return {-x.value}; }
};

// x and y hold a row of pairs; `firsts` (`seconds`) returns the first (second) element of each pair.
template <typename T, int Bytes, int... Lane>
LITEVAE_INLINE Vector<T, Bytes> firsts(Vector<T, Bytes> x, Vector<T, Bytes> y, std::integer_sequence<int, Lane...>) {
    return Vector<T, Bytes>::template shuffled<(2 * Lane)...>(x, y);
}
template <typename T, int Bytes, int... Lane>
LITEVAE_INLINE Vector<T, Bytes> seconds(Vector<T, Bytes> x, Vector<T, Bytes> y, std::integer_sequence<int, Lane...>) {
    return Vector<T, Bytes>::template shuffled<(2 * Lane + 1)...>(x, y);
}
// The inverse: the first (last) half of the row of pairs (x[0], y[0]), (x[1], y[1]), ...
template <typename T, int Bytes, int... Lane>
LITEVAE_INLINE Vector<T, Bytes> first_pairs(Vector<T, Bytes> x, Vector<T, Bytes> y, std::integer_sequence<int, Lane...>) {
    constexpr int lanes = sizeof...(Lane);
    return Vector<T, Bytes>::template shuffled<(Lane / 2 + Lane % 2 * lanes)...>(x, y);
}
template <typename T, int Bytes, int... Lane>
LITEVAE_INLINE Vector<T, Bytes> last_pairs(Vector<T, Bytes> x, Vector<T, Bytes> y, std::integer_sequence<int, Lane...>) {
    constexpr int lanes = sizeof...(Lane);
    return Vector<T, Bytes>::template shuffled<(lanes / 2 + Lane / 2 + Lane % 2 * lanes)...>(x, y);
}

// Prefetches `count` elements from `place + ahead` on, into the L1 cache (kNear) or the L2 cache. The address need not
// be valid.
template <int count, bool kNear, typename T>
LITEVAE_INLINE void prefetch(const T* place, int64_t ahead) {
    constexpr int line = 64 / int(sizeof(T));
    for (int i = 0; i < count; i += line) {
        const auto address = reinterpret_cast<uintptr_t>(place) + uintptr_t((ahead + i) * int64_t(sizeof(T)));
        __builtin_prefetch(reinterpret_cast<const void*>(address), 0, kNear ? 3 : 2);
    }
}

// Makes non-temporal stores visible to other threads.
inline void finish_streaming() {
#if LITEVAE_X86
    asm volatile("sfence" ::: "memory");
#endif
}

}  // namespace litevae
