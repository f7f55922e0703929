// Vectors that are read from and written to memory of every floating dtype.
//
// Read first: read<V>(source) and write(vector, result). V is a Vector of float or double; the dtype in memory is the
// pointer's. float16 and bfloat16 are converted as in scalar_types.h, which explains the bits. Assembly stands where an
// instruction of AVX-512 or AVX2 does the conversion and GCC does not find it.
#pragma once
#include "scalar_types.h"
#include "cpu_vector_math.h"

namespace litevae {

// For as many values as Vector<float, Bytes> has lanes: Halves has their 16 bits each, Words 32 bits each. They are
// written out one by one, since GCC does not accept a vector_size that depends on a template parameter here.
template <int Bytes>
struct BitVectors;
template <>
struct BitVectors<16> {
    typedef uint16_t Halves __attribute__((vector_size(8)));
    typedef int32_t Words __attribute__((vector_size(16)));
};
template <>
struct BitVectors<32> {
    typedef uint16_t Halves __attribute__((vector_size(16)));
    typedef int32_t Words __attribute__((vector_size(32)));
};
template <>
struct BitVectors<64> {
    typedef uint16_t Halves __attribute__((vector_size(32)));
    typedef int32_t Words __attribute__((vector_size(64)));
};

template <int Bytes>
struct Bits {
    using Halves = typename BitVectors<Bytes>::Halves;
    using Words = typename BitVectors<Bytes>::Words;

    static LITEVAE_INLINE Vector<float, Bytes> floats(Words words) {
        Vector<float, Bytes> result;
        std::memcpy(&result.value, &words, Bytes);
        return result;
    }
    static LITEVAE_INLINE Words words(Vector<float, Bytes> x) {
        Words result;
        std::memcpy(&result, &x.value, Bytes);
        return result;
    }
    static LITEVAE_INLINE Halves load(const void* source) {
        Halves halves;
        std::memcpy(&halves, source, sizeof halves);
        return halves;
    }
    static LITEVAE_INLINE void store(Halves halves, void* result) { std::memcpy(result, &halves, sizeof halves); }

    static LITEVAE_INLINE Words widen(Halves halves) {
#if LITEVAE_X86 && !defined(__clang__)
        if constexpr (Bytes > 16) {
            Words words;
            asm("vpmovzxwd %1, %0" : "=v"(words) : "vm"(halves));
            return words;
        }
#endif
        return __builtin_convertvector(halves, Words);
    }
    static LITEVAE_INLINE Halves narrow(Words words) {  // words below 2^16
#if LITEVAE_X86 && !defined(__clang__)
        Halves halves;
        if constexpr (Bytes == 64) {
            asm("vpmovdw %1, %0" : "=v"(halves) : "v"(words));
            return halves;
        } else if constexpr (Bytes == 32) {
            asm("vextracti128 $1, %1, %x0\n\tvpackusdw %x0, %x1, %x0" : "=&x"(halves) : "x"(words));
            return halves;
        }
#endif
        return __builtin_convertvector(words, Halves);
    }
};

template <typename V>
LITEVAE_INLINE V read(const float* source) { return V::load(source); }
template <typename V>
LITEVAE_INLINE V read(const double* source) { return V::load(source); }
template <typename V>
LITEVAE_INLINE V read(const bfloat16* source) {
    using Bits = Bits<V::kBytes>;
    return Bits::floats(Bits::widen(Bits::load(source)) << 16);
}
template <typename V>
LITEVAE_INLINE V read(const float16* source) {
    using Bits = Bits<V::kBytes>;
#if LITEVAE_X86 && !defined(__clang__)
    if constexpr (V::kBytes == 64) {
        V result;
        asm("vcvtph2ps %1, %0" : "=v"(result.value) : "vm"(Bits::load(source)));
        return result;
    }
#endif
    const typename Bits::Words half = Bits::widen(Bits::load(source)), magnitude = (half & 0x7fff) << 13;
    const typename Bits::Words special = (magnitude >= 0x0f800000) & 0x7f800000, sign = (half & 0x8000) << 16;
    return Bits::floats(Bits::words(0x1p112f * Bits::floats(magnitude)) | special | sign);
}

template <typename V>
LITEVAE_INLINE void write(V x, float* result) { x.store(result); }
template <typename V>
LITEVAE_INLINE void write(V x, double* result) { x.store(result); }
template <typename V>
LITEVAE_INLINE void write(V x, bfloat16* result) {
    using Bits = Bits<V::kBytes>;
    const typename Bits::Words bits = Bits::words(x), upper = (bits >> 16) & 0xffff, not_a_number = x.value != x.value;
    typedef uint32_t Unsigned __attribute__((vector_size(V::kBytes)));  // the sum may overflow for NaN
    const typename Bits::Words rounded =
        (typename Bits::Words)(((Unsigned)bits + 0x7fff + ((Unsigned)upper & 1)) >> 16) & 0xffff;
    Bits::store(Bits::narrow((not_a_number & (upper | 0x40)) | (~not_a_number & rounded)), result);
}
template <typename V>
LITEVAE_INLINE void write(V x, float16* result) {
    using Bits = Bits<V::kBytes>;
    using Words = typename Bits::Words;
#if LITEVAE_X86 && !defined(__clang__)
    if constexpr (V::kBytes == 64) {
        typename Bits::Halves halves;
        asm("vcvtps2ph $0, %1, %0" : "=v"(halves) : "v"(x.value));
        return Bits::store(halves, result);
    }
#endif
    const Words bits = Bits::words(x), magnitude = bits & 0x7fffffff, sign = (bits >> 16) & 0x8000;
    const Words subnormal = Bits::words(0.5f + Bits::floats(magnitude)) - 0x3f000000;
    const Words normal = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
    const Words is_subnormal = magnitude < 0x38800000, is_large = magnitude >= 0x477ff000;
    Words half = (is_subnormal & subnormal) | (~is_subnormal & normal);
    half = (is_large & 0x7c00) | (~is_large & half);
    Bits::store(Bits::narrow(half | ((magnitude > 0x7f800000) & 0x200) | sign), result);
}

// kCount vectors whose first elements are `stride` elements apart in memory.
template <typename V, int kCount, typename Stored>
LITEVAE_INLINE Vectors<V, kCount> read_vectors(const Stored* source, int64_t stride) {
    Vectors<V, kCount> result;
    for (int k = 0; k < kCount; k++) result.part[k] = read<V>(source + k * stride);
    return result;
}
template <typename V, int kCount, typename Stored>
LITEVAE_INLINE void write_vectors(Vectors<V, kCount> x, Stored* result, int64_t stride) {
#if LITEVAE_X86 && !defined(__clang__)
    if constexpr (V::kBytes == 64 && std::is_same_v<Stored, bfloat16>) {
        if (level == Level::avx512_bf16) {  // takes a quarter of the time of `write`
            for (int k = 0; k < kCount; k++) {
                typename Bits<64>::Halves halves;
                asm("vcvtneps2bf16 %1, %0" : "=v"(halves) : "v"(x.part[k].value));
                Bits<64>::store(halves, result + k * stride);
            }
            return;
        }
    }
#endif
    for (int k = 0; k < kCount; k++) write(x.part[k], result + k * stride);
}

// The first `count` lanes of a vector: the other lanes are `fill` when read, and are not written.
template <typename V, typename Stored>
LITEVAE_INLINE V read_first(int64_t count, const Stored* source, typename V::Scalar fill) {
    Stored buffer[V::kLanes] = {};
    std::memcpy(buffer, source, size_t(count) * sizeof(Stored));
    typename V::Scalar lanes[V::kLanes];
    read<V>(static_cast<const Stored*>(buffer)).store(lanes);
    for (int lane = int(count); lane < V::kLanes; lane++) lanes[lane] = fill;
    return V::load(lanes);
}
template <typename V, typename Stored>
LITEVAE_INLINE void write_first(int64_t count, V x, Stored* result) {
    Stored buffer[V::kLanes];
    write(x, buffer);
    std::memcpy(result, buffer, size_t(count) * sizeof(Stored));
}

}  // namespace litevae
