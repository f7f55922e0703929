// How does a GPU compute the Haar transform and its inverse in channels_last? Tiles in shared memory.
//
// A block makes a tile of one sample: 2^kLevels rows by some columns by some (for images: all) channels. What a level
// has of it is a box of memory, with runs of many bytes; but the four values of a 2x2 block, and its four sub-bands,
// lie a few bytes apart. So boxes are copied between global and shared memory in packs of 16 bytes, and the
// arithmetic, of which every thread does single blocks, goes from shared memory to shared memory.
#pragma once

#include "../cuda_packs.h"
#include "cuda_levels.h"

namespace litevae {

constexpr int kTileThreads = 256;
template <typename T>
constexpr int kTileValues = sizeof(T) == 8 ? 2048 : 4096;  // of the image; keeps shared memory below 48 KiB

// index / divisor by one multiplication, exact where index * divisor < 2^32.
struct Divider {
    uint32_t divisor, reciprocal;
    LITEVAE_DEVICE explicit Divider(int divisor)
        : divisor(uint32_t(divisor)), reciprocal(0xffffffffu / uint32_t(divisor) + 1) {}
    LITEVAE_DEVICE void divide(int index, int& quotient, int& rest) const {
        quotient = divisor == 1 ? index : int((uint64_t(uint32_t(index)) * reciprocal) >> 32);
        rest = index - quotient * int(divisor);
    }
};

struct ImageStrides { int64_t batch, channel, row, column; };  // in elements

// rows x columns x length elements, dense in shared memory; in global memory rows and columns lie some steps apart.
struct Box {
    int rows, columns, length;
    int64_t row_step, column_step;

    LITEVAE_DEVICE Box(int rows, int columns, int length, int64_t row_step, int64_t column_step)
        : rows(rows), columns(columns), length(length), row_step(row_step), column_step(column_step) {
        if (length == column_step) this->length *= columns, this->columns = 1;
    }

    template <typename Stored>
    LITEVAE_DEVICE void load(const Stored* global, Stored* shared) const {
        constexpr int kPack = sizeof(Words) / sizeof(Stored);
        if (in_packs<kPack>(global)) load_all<Words, kPack>(global, shared);
        else load_all<Stored, 1>(global, shared);
    }

    template <typename Stored>
    LITEVAE_DEVICE void store(const Stored* shared, Stored* global) const {
        constexpr int kPack = sizeof(Words) / sizeof(Stored);
        if (in_packs<kPack>(global)) store_all<Words, kPack>(shared, global);
        else store_all<Stored, 1>(shared, global);
    }

   private:
    using Words = Pack<uint32_t, 4>;  // 16 bytes in 4 registers, whatever they are; single bytes would take 16

    template <int kPack, typename Stored>
    LITEVAE_DEVICE bool in_packs(const Stored* global) const {
        return length % kPack == 0 && is_aligned<Stored, kPack>(global) && row_step % kPack == 0 &&
               (columns == 1 || column_step % kPack == 0);
    }

    // Unit: what moves at once, kPack elements. Some of them a thread at a time, so that they are under way together.
    template <typename Unit, int kPack, typename Stored>
    LITEVAE_DEVICE void load_all(const Stored* global, Stored* shared) const {
        constexpr int kTogether = 4;
        const Places<kPack> places(*this);
#pragma unroll 1
        for (int first = threadIdx.x; first < places.count; first += kTogether * kTileThreads) {
            Unit units[kTogether];
#pragma unroll
            for (int k = 0; k < kTogether; k++) {
                const int index = first + k * kTileThreads;
                if (index < places.count) units[k] = *reinterpret_cast<const Unit*>(global + places.offset(index));
            }
#pragma unroll
            for (int k = 0; k < kTogether; k++) {
                const int index = first + k * kTileThreads;
                if (index < places.count) *reinterpret_cast<Unit*>(shared + index * kPack) = units[k];
            }
        }
    }

    template <typename Unit, int kPack, typename Stored>
    LITEVAE_DEVICE void store_all(const Stored* shared, Stored* global) const {
        const Places<kPack> places(*this);
#pragma unroll 1
        for (int index = threadIdx.x; index < places.count; index += kTileThreads) {
            const Unit unit = *reinterpret_cast<const Unit*>(shared + index * kPack);
            *reinterpret_cast<Unit*>(global + places.offset(index)) = unit;
        }
    }

    // Where the box's units lie in global memory.
    template <int kPack>
    struct Places {
        const Divider by_run, by_columns;
        const int64_t row_step, column_step;
        const int count;

        LITEVAE_DEVICE explicit Places(const Box& box)
            : by_run(box.length / kPack), by_columns(box.columns), row_step(box.row_step), column_step(box.column_step),
              count(box.rows * box.columns * (box.length / kPack)) {}
        LITEVAE_DEVICE int64_t offset(int index) const {
            int run, part, row, column;
            by_run.divide(index, run, part);
            by_columns.divide(run, row, column);
            return row * row_step + column * column_step + part * kPack;
        }
    };
};

// Which tile is this block's, and how much of it has each level?
template <int kLevels>
struct TilePlace {
    int64_t height, width, channels;
    uint32_t sample, row, column, channel;  // the first; row and column of the coarsest level
    int tile_columns, tile_channels;

    // What is divided here are factors of the number of blocks: they have 32 bits.
    LITEVAE_DEVICE TilePlace(int64_t channels, int64_t height, int64_t width, int32_t tile_columns,
                             int32_t tiles_in_a_row, int32_t tile_channels, int32_t parts)
        : height(height), width(width), channels(channels), tile_columns(tile_columns) {
        const uint32_t tile = blockIdx.x / uint32_t(parts), row_of_tiles = tile / uint32_t(tiles_in_a_row);
        const uint32_t rows = uint32_t(side_at(height, kLevels));
        channel = blockIdx.x % uint32_t(parts) * uint32_t(tile_channels);
        column = tile % uint32_t(tiles_in_a_row) * uint32_t(tile_columns);
        row = row_of_tiles % rows, sample = row_of_tiles / rows;
        this->tile_channels = int(channels - channel < tile_channels ? channels - channel : tile_channels);
    }

    LITEVAE_DEVICE int rows_at(int level) const {
        const int shift = kLevels - level;
        const int64_t left = side_at(height, level) - (int64_t(row) << shift);
        return int(left < 1 << shift ? left : 1 << shift);
    }
    LITEVAE_DEVICE int columns_at(int level) const {
        const int shift = kLevels - level;
        const int64_t left = side_at(width, level) - (int64_t(column) << shift);
        return int(left < tile_columns << shift ? left : tile_columns << shift);
    }

    // The tile's part of a dense tensor [B, level side, level side, copies * C]; copies is 4 for packed sub-bands.
    LITEVAE_DEVICE int64_t start(int level, int copies) const {
        const int shift = kLevels - level;
        const int64_t first_row = sample * side_at(height, level) + (int64_t(row) << shift);
        return (first_row * side_at(width, level) + (int64_t(column) << shift)) * copies * channels + channel;
    }
    // The tile's part of the image, which may have any strides, dense in shared memory: [row, column, channel].
    template <typename Stored>
    LITEVAE_DEVICE void load_image(const Stored* image, const ImageStrides& strides, Stored* shared) const {
        const int64_t first_row = int64_t(row) << kLevels, first_column = int64_t(column) << kLevels;
        image += sample * strides.batch + channel * strides.channel + first_row * strides.row;
        image += first_column * strides.column;
        constexpr int kPack = 4;
        const bool in_packs = strides.column == 1 && is_aligned<Stored, kPack>(image) && columns_at(0) % kPack == 0 &&
                              strides.row % kPack == 0 && strides.channel % kPack == 0;
        if (channels == 1 || strides.channel == 1) {
            Box(rows_at(0), columns_at(0), tile_channels, strides.row, strides.column).load(image, shared);
        } else if (in_packs) {
            interleave<kPack>(image, strides, shared);
        } else {
            interleave<1>(image, strides, shared);
        }
    }

    // Neighbouring threads read neighbouring columns of one channel, kPack each, some of them under way together.
    template <int kPack, typename Stored>
    LITEVAE_DEVICE void interleave(const Stored* image, const ImageStrides& strides, Stored* shared) const {
        constexpr int kTogether = 4;
        const int columns = columns_at(0), packs = columns / kPack, rows = rows_at(0);
        const int count = tile_channels * rows * packs;
        const Divider by_packs(packs), by_rows(rows);
        Pack<Stored, kPack> values[kTogether];
#pragma unroll 1
        for (int first = threadIdx.x; first < count; first += kTogether * kTileThreads) {
            int at_channel[kTogether], at_row[kTogether], at_pack[kTogether];
#pragma unroll
            for (int k = 0; k < kTogether; k++) {
                int channel_row;
                by_packs.divide(first + k * kTileThreads, channel_row, at_pack[k]);
                by_rows.divide(channel_row, at_channel[k], at_row[k]);
                if (first + k * kTileThreads >= count) continue;
                const Stored* from = image + at_channel[k] * strides.channel + at_row[k] * strides.row;
                values[k] = load_pack<kPack>(from + at_pack[k] * kPack * strides.column);
            }
#pragma unroll
            for (int k = 0; k < kTogether; k++) {
                if (first + k * kTileThreads >= count) continue;
                const int pixel = at_row[k] * columns + at_pack[k] * kPack;
                Stored* to = shared + pixel * tile_channels + at_channel[k];
#pragma unroll
                for (int j = 0; j < kPack; j++) to[j * tile_channels] = values[k].values[j];
            }
        }
    }

    LITEVAE_DEVICE Box box(int level, int copies) const {
        return {rows_at(level), columns_at(level) * copies, tile_channels, side_at(width, level) * copies * channels,
                channels};
    }

    // Calls body(row, column, channel, index) for what the tile has of a level, each thread for other values.
    template <typename Body>
    LITEVAE_DEVICE void for_each_value(int level, const Body& body) const {
        const int columns = columns_at(level), values = rows_at(level) * columns * tile_channels;
        const Divider by_channels(tile_channels), by_columns(columns);
#pragma unroll 1
        for (int index = threadIdx.x; index < values; index += kTileThreads) {
            int pixel, at_channel, at_row, at_column;
            by_channels.divide(index, pixel, at_channel);
            by_columns.divide(pixel, at_row, at_column);
            body(at_row, at_column, at_channel, index);
        }
    }
};

// Values a tile has of `levels` levels from level 1 on, for each value of the image in 4096: 1/4 + 1/16 + ...
LITEVAE_INLINE constexpr int values_below(int values, int levels) {
    int sum = 0;
    for (int level = 0; level < levels; level++) values /= 4, sum += values;
    return sum;
}

template <typename Image, typename Packed, int kLevels>
struct Tile {
    using T = Wider<Image, Packed>;
    static constexpr int kValues = kTileValues<T>;
    alignas(16) Image image[kValues];
    alignas(16) Packed packed[4 * values_below(kValues, kLevels)];  // of every level [row, column, band, channel]
    alignas(16) T low[values_below(kValues, kLevels)];              // of every level [row, column, channel]

    static LITEVAE_DEVICE constexpr int start(int level) { return values_below(kValues, level - 1); }
};

}  // namespace litevae
