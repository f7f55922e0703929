// How does a row enter and leave the caches?
//
// A row is `width` pixels of `channels` values side by side; in NCHW a pixel has one channel. What is made lies in
// scratch, in the L1 cache, in the arithmetic's type; put_row hands it out.
#pragma once
#include <algorithm>

#include "../cpu_half_vectors.h"

namespace litevae {

constexpr int64_t kStreamBytes = 16 << 20;  // results above this have left the caches before anyone reads them

inline uintptr_t address(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

template <typename V>
LITEVAE_INLINE V read(const uint8_t* source) {
    typedef uint8_t Pixels __attribute__((vector_size(V::kLanes)));
    using Words = typename BitVectors<V::kBytes>::Words;
    Pixels pixels;
    std::memcpy(&pixels, source, sizeof pixels);
    Words words;
#if LITEVAE_X86 && !defined(__clang__)
    if constexpr (V::kBytes > 16) {  // GCC does this value by value
        asm("vpmovzxbd %1, %0" : "=v"(words) : "vm"(pixels));
        return pixel_value<float>(V{__builtin_convertvector(words, typename V::Type)});
    }
#endif
    words = __builtin_convertvector(pixels, Words);
    return pixel_value<float>(V{__builtin_convertvector(words, typename V::Type)});
}

// The two rows that are read next, asked for line by line, in the order of memory, while the two before them are worked
// on. Without this the rows, which are read in turns, come at half the speed: the CPU takes them for random accesses.
struct Ahead {
    uintptr_t top;
    int64_t bytes, jump;  // of each row; from the end of the top one to the start of the bottom one

    template <int Bytes>
    LITEVAE_INLINE void fetch(int64_t done) const {
        const uintptr_t next = top + uintptr_t(done < bytes ? done : done + jump);
        for (int at = 0; at < Bytes; at += 64) __builtin_prefetch(reinterpret_cast<const void*>(next + uintptr_t(at)));
    }
};

// `source` can be read a vector too far, here and in put_row.
template <typename Values, typename T, typename Stored>
LITEVAE_INLINE void put_through_the_caches(const T* source, int64_t size, Stored* result) {
    constexpr int lanes = Values::kLanes;
    int64_t i = 0;
    for (; i + lanes <= size; i += lanes) write(Values::load(source + i), result + i);
    if (i < size) write_first(size - i, Values::load(source + i), result + i);
}

// Past the caches (`stream`) where the result is too large for them to keep.
template <typename Values, typename T, typename Stored>
LITEVAE_INLINE void put_row(const T* source, int64_t size, Stored* result, bool stream) {
    constexpr int lanes = Values::kLanes, kResultBytes = lanes * int(sizeof(Stored)), kLine = 64 / int(sizeof(Stored));
    if constexpr (kResultBytes >= 16) {
        if (stream) {
            // Whole cache lines go past the caches, the row's ends do not: a line must not be written both ways.
            const int64_t first = std::min(size, int64_t(-address(result) % 64 / sizeof(Stored)));
            const int64_t last = first + (size - first) / kLine * kLine;
            put_through_the_caches<Values>(source, first, result);
            for (int64_t i = first; i < last; i += lanes) {
                using Word = std::conditional_t<sizeof(Stored) == 2, uint16_t, Stored>;
                Stored packed[lanes];
                write(Values::load(source + i), packed);
                Vector<Word, kResultBytes> bits;
                std::memcpy(&bits, packed, kResultBytes);
                bits.template put<true>(reinterpret_cast<Word*>(result + i));
            }
            return put_through_the_caches<Values>(source + last, size - last, result + last);
        }
    }
    put_through_the_caches<Values>(source, size, result);
}

// A row from pixels that lie further apart.
template <typename T, typename Stored>
void gather_row(const Stored* source, int64_t pitch, int64_t width, int64_t channels, T* result) {
    for (int64_t j = 0; j < width; j++) {
        for (int64_t k = 0; k < channels; k++) result[j * channels + k] = load<T>(source[j * pitch + k]);
    }
}

}  // namespace litevae
