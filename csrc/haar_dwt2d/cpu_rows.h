// Rows on their way between memory and the L1 cache: uint8 pixels, prefetching, and the stores of results.
//
// Read first: put_row, which stores a row of results, then Ahead. A row is `width` pixels of `channels` values side by
// side; in NCHW a pixel has one channel. T is the dtype of the arithmetic and of rows in scratch memory, Values (or V)
// a vector of it, and Stored the dtype of a tensor.
#pragma once
#include <algorithm>

#include "../cpu_half_vectors.h"

namespace litevae {

constexpr int64_t kStreamBytes = 16 << 20;  // a larger result does not stay in the caches until it is read

inline uintptr_t address(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

template <typename V>
LITEVAE_INLINE V read(const uint8_t* source) {
    typedef uint8_t Pixels __attribute__((vector_size(V::kLanes)));
    using Words = typename BitVectors<V::kBytes>::Words;
    Pixels pixels;
    std::memcpy(&pixels, source, sizeof pixels);
    Words words;
#if LITEVAE_X86 && !defined(__clang__)
    if constexpr (V::kBytes > 16) {  // GCC would convert one value after the other
        asm("vpmovzxbd %1, %0" : "=v"(words) : "vm"(pixels));
        return pixel_value<float>(V{__builtin_convertvector(words, typename V::Type)});
    }
#endif
    words = __builtin_convertvector(pixels, Words);
    return pixel_value<float>(V{__builtin_convertvector(words, typename V::Type)});
}

// Prefetches the next two rows, in the order of memory, while the current two are transformed. Two interleaved streams
// defeat the hardware prefetcher: without this, reading takes twice as long.
struct Ahead {
    uintptr_t top;  // address of the next top row
    int64_t bytes;  // in each row
    int64_t jump;   // bytes from the end of the top row to the start of the bottom row

    template <int Bytes>
    LITEVAE_INLINE void fetch(int64_t done) const {
        const uintptr_t next = top + uintptr_t(done < bytes ? done : done + jump);
        for (int at = 0; at < Bytes; at += 64) __builtin_prefetch(reinterpret_cast<const void*>(next + uintptr_t(at)));
    }
};

// Here and in put_row, up to one vector beyond the end of `source` is read.
template <typename Values, typename T, typename Stored>
LITEVAE_INLINE void put_through_the_caches(const T* source, int64_t size, Stored* result) {
    constexpr int lanes = Values::kLanes;
    int64_t i = 0;
    for (; i + lanes <= size; i += lanes) write(Values::load(source + i), result + i);
    if (i < size) write_first(size - i, Values::load(source + i), result + i);
}

// Stores a row; `stream`: with non-temporal stores, since the result is too large for the caches.
template <typename Values, typename T, typename Stored>
LITEVAE_INLINE void put_row(const T* source, int64_t size, Stored* result, bool stream) {
    constexpr int lanes = Values::kLanes, kResultBytes = lanes * int(sizeof(Stored)), kLine = 64 / int(sizeof(Stored));
    if constexpr (kResultBytes >= 16) {
        if (stream) {
            // Non-temporal stores fill whole cache lines; plain stores write the row's ends. No line gets both kinds.
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

// Stores the sub-bands of a row that AnalysisRow has computed.
template <typename T, typename Packed, bool kChannelsLast>
struct PutSubBands {
    template <int Bytes>
    static LITEVAE_INLINE void run(const T* low, const T* packed, int64_t width, int64_t channels, Packed* result,
                                   int64_t band, bool stream) {
        using Values = Vector<T, Bytes>;
        if (kChannelsLast) return put_row<Values>(packed, 4 * channels * width, result, stream);
        for (int k = 0; k < 4; k++) put_row<Values>(k > 0 ? packed + k * width : low, width, result + k * band, stream);
    }
};

// Stores the two rows of the image that SynthesisRow has computed.
template <typename T, typename Image>
struct PutPixels {
    template <int Bytes>
    static LITEVAE_INLINE void run(const T* top, const T* bottom, int64_t size, Image* result, bool inside,
                                   bool stream) {
        put_row<Vector<T, Bytes>>(top, size, result, stream);
        if (inside) put_row<Vector<T, Bytes>>(bottom, size, result + size, stream);
    }
};

// Reads a row of `width` pixels of `channels` values, which lie some elements apart: those of one pixel `channel_step`,
// those of one channel `pixel_step`.
template <typename T, typename Stored>
struct GatherRow {
    template <int>
    static LITEVAE_INLINE void run(const Stored* source, int64_t channel_step, int64_t pixel_step, int64_t width,
                                   int64_t channels, T* result) {
        if (channels == 3 && pixel_step == 1) {  // an image in NCHW, in a loop that the compiler vectorises
            const Stored *red = source, *green = source + channel_step, *blue = source + 2 * channel_step;
            for (int64_t j = 0; j < width; j++) {
                result[3 * j] = load<T>(red[j]), result[3 * j + 1] = load<T>(green[j]);
                result[3 * j + 2] = load<T>(blue[j]);
            }
            return;
        }
        for (int64_t j = 0; j < width; j++, result += channels) {
            for (int64_t k = 0; k < channels; k++) result[k] = load<T>(source[j * pixel_step + k * channel_step]);
        }
    }
};

}  // namespace litevae
