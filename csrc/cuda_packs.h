// How does a GPU thread move several neighbouring elements at once? As one pack, up to 16 bytes an instruction.
#pragma once

#include "inline.h"

#define LITEVAE_DEVICE __device__ __forceinline__

namespace litevae {

// kCount elements side by side; kCount a power of two. Above 16 bytes it takes several instructions.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount < 16 ? sizeof(T) * kCount : 16) Pack {
    T values[kCount];
};

template <typename T, int kCount>
LITEVAE_INLINE bool is_aligned(const T* address) {
    return reinterpret_cast<uint64_t>(address) % alignof(Pack<T, kCount>) == 0;
}

template <int kCount, typename T>
LITEVAE_DEVICE Pack<T, kCount> load_pack(const T* address) {
    return *reinterpret_cast<const Pack<T, kCount>*>(address);
}

// What one instruction stores to global memory. Said to the compiler in its own words: an assignment it may take apart.
#if defined(__CUDA_ARCH__)
LITEVAE_DEVICE void store_words(uint8_t word, void* to) { *static_cast<uint8_t*>(to) = word; }
LITEVAE_DEVICE void store_words(uint16_t word, void* to) { *static_cast<uint16_t*>(to) = word; }
LITEVAE_DEVICE void store_words(uint32_t word, void* to) { *static_cast<uint32_t*>(to) = word; }
LITEVAE_DEVICE void store_words(Pack<uint32_t, 2> words, void* to) {
    asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(to), "r"(words.values[0]), "r"(words.values[1]) : "memory");
}
LITEVAE_DEVICE void store_words(Pack<uint32_t, 4> words, void* to) {
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(words.values[0]), "r"(words.values[1]),
                 "r"(words.values[2]), "r"(words.values[3])
                 : "memory");
}
#else
template <typename Words>
LITEVAE_DEVICE void store_words(Words words, void* to) { *static_cast<Words*>(to) = words; }
#endif

template <int kBytes> struct WordsOf { using Type = Pack<uint32_t, 4>; };
template <> struct WordsOf<1> { using Type = uint8_t; };
template <> struct WordsOf<2> { using Type = uint16_t; };
template <> struct WordsOf<4> { using Type = uint32_t; };
template <> struct WordsOf<8> { using Type = Pack<uint32_t, 2>; };

// `address`: in global memory.
template <int kCount, typename T>
LITEVAE_DEVICE void store_pack(const Pack<T, kCount>& pack, T* address) {
    using Words = typename WordsOf<sizeof(pack)>::Type;
    constexpr int kMoves = sizeof(pack) / sizeof(Words);
    Words words[kMoves];
    memcpy(words, &pack, sizeof(pack));
#pragma unroll
    for (int k = 0; k < kMoves; k++) store_words(words[k], reinterpret_cast<Words*>(address) + k);
}

}  // namespace litevae
