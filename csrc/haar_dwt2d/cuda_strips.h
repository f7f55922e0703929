// How does a GPU compute the Haar transform and its inverse in NCHW? Strips in registers.
//
// A thread makes a strip of one plane: 2^kLevels rows by a few columns, as many as 16 bytes of the image hold (4 or 8).
// All levels of the strip stay in its registers; where a pixel of a coarse level is wider than the strip, neighbouring
// lanes share it. Whatever the strip reads is asked for at once, in packs of up to 16 bytes where the addresses allow
// it, and no thread waits for another.
#pragma once

#include "../cuda_packs.h"
#include "cuda_levels.h"

namespace litevae {

constexpr int kStripThreads = 128;
constexpr unsigned kWholeWarp = 0xffffffff;

// Columns of a strip, and of its share of a level; lanes that share the one column of a coarse level.
template <typename Image>
constexpr int kStripColumns = sizeof(Image) >= 4 ? 4 : 8;
template <typename Image, int kLevel>
constexpr int kColumnsAt = (kStripColumns<Image> >> kLevel) > 0 ? kStripColumns<Image> >> kLevel : 1;
template <typename Image, int kLevel>
constexpr int kLanesAt = (1 << kLevel) > kStripColumns<Image> ? (1 << kLevel) / kStripColumns<Image> : 1;

// Which strip is this thread's? A row of strips covers the width of the coarsest level, rounded up to whole strips.
template <typename Image, int kLevels>
struct StripPlace {
    int64_t sample, channel, row, column;  // of the image
    bool exists;

    LITEVAE_DEVICE StripPlace(int64_t batch, int64_t channels, int64_t height, int64_t width) {
        constexpr int64_t columns = kStripColumns<Image>, side = 1 << kLevels;
        const int64_t strips = side_at(height, kLevels);
        const int64_t groups = (side_at(width, kLevels) * side + columns - 1) / columns;
        const int64_t all = batch * channels * strips * groups;
        int64_t index = int64_t(blockIdx.x) * kStripThreads + threadIdx.x;
        exists = index < all;
        index = exists ? index : all - 1;  // a thread without a strip goes along: its warp exchanges values
        const int64_t above = index / groups, plane = above / strips;
        row = above % strips * side, column = index % groups * columns;
        sample = plane / channels, channel = plane % channels;
    }
};

// A strip's share of one level: where it lies in a dense tensor, and how much of it exists.
template <typename Stored>
struct LevelShare {
    Stored* first;      // of L
    int64_t band, row;  // from one sub-band, one row to the next
    int rows, columns;
    bool aligned;       // all columns exist and move as one pack

    template <int kRows, int kCount>
    LITEVAE_DEVICE void place(Stored* packed, int64_t plane, int64_t band_planes, int64_t height, int64_t width,
                              int64_t first_row, int64_t first_column, bool exists) {
        const int64_t rows_left = exists ? height - first_row : 0, columns_left = width - first_column;
        row = width, band = band_planes * height * width;
        first = packed + (plane * height + first_row) * width + first_column;
        rows = int(rows_left < kRows ? rows_left : kRows);
        columns = int(columns_left < kCount ? columns_left : kCount);
        aligned = columns == kCount && width % kCount == 0 && is_aligned<Stored, kCount>(packed);
    }
};

template <typename Image, typename Stored, int kLevels>
struct LevelShares {
    LevelShare<Stored> at[kLevels];

    template <int kLevel = 1>
    LITEVAE_DEVICE void place(Stored* const* packed, const StripPlace<Image, kLevels>& strip, int64_t channels,
                              int64_t height, int64_t width) {
        at[kLevel - 1].template place<(1 << (kLevels - kLevel)), kColumnsAt<Image, kLevel>>(
            packed[kLevel - 1], strip.sample * 4 * channels + strip.channel, channels, side_at(height, kLevel),
            side_at(width, kLevel), strip.row >> kLevel, strip.column >> kLevel, strip.exists);
        if constexpr (kLevel < kLevels) place<kLevel + 1>(packed, strip, channels, height, width);
    }
};

// Stores what exists of a row of one level.
template <int kCount, typename T, typename Stored>
LITEVAE_DEVICE void store_row(const Pack<T, kCount>& row, Stored* to, int columns, bool aligned) {
    Pack<Stored, kCount> rounded;
#pragma unroll
    for (int j = 0; j < kCount; j++) store(row.values[j], rounded.values[j]);
    if (aligned) {
        store_pack(rounded, to);
        return;
    }
#pragma unroll
    for (int j = 0; j < kCount; j++) {
        if (j < columns) to[j] = rounded.values[j];
    }
}

// Loads what exists of a row of one level; the rest is zero.
template <int kCount, typename Stored>
LITEVAE_DEVICE Pack<Stored, kCount> load_row(const Stored* from, int columns, bool aligned) {
    if (aligned) return load_pack<kCount>(from);
    Pack<Stored, kCount> row;
#pragma unroll
    for (int j = 0; j < kCount; j++) row.values[j] = j < columns ? from[j] : Stored{};
    return row;
}

}  // namespace litevae
