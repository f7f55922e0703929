// How does a tile become sub-bands? The transform in channels_last, and with `transpose` the gradient of its inverse.
#pragma once

#include "cuda_tiles.h"

namespace litevae {

// Level kLevel of the tile from what comes before it: the image, or L of the finer level.
template <int kLevel, typename Image, typename Result, int kLevels>
LITEVAE_DEVICE void analyse_level(Tile<Image, Result, kLevels>& tile, const TilePlace<kLevels>& place,
                                  Wider<Image, Result> factor, bool transpose, Wider<Image, Result>* low_copy) {
    using T = Wider<Image, Result>;
    const int rows = place.rows_at(kLevel - 1), columns = place.columns_at(kLevel - 1), channels = place.tile_channels;
    const bool hide_low = transpose && (kLevel < kLevels || low_copy != nullptr);
    Result* packed = tile.packed + 4 * tile.start(kLevel);
    place.for_each_value(kLevel, [&](int row, int column, int channel, int index) {
        const auto finer = [&](int at_row, int at_column) {
            const bool outside = at_row >= rows || at_column >= columns;
            if (outside && transpose) return T(0);
            at_row = at_row < rows ? at_row : rows - 1, at_column = at_column < columns ? at_column : columns - 1;
            const int at = (at_row * columns + at_column) * channels + channel;
            if constexpr (kLevel == 1) return load<T>(tile.image[at]);
            else return tile.low[tile.start(kLevel - 1) + at];
        };
        const Four<T> s = haar_block(finer(2 * row, 2 * column), finer(2 * row, 2 * column + 1),
                                     finer(2 * row + 1, 2 * column), finer(2 * row + 1, 2 * column + 1), factor);
        Result* to = packed + 4 * (index - channel) + channel;
        store(hide_low ? T(0) : s.first, to[0]);
        store(s.second, to[channels]);
        store(s.third, to[2 * channels]);
        store(s.fourth, to[3 * channels]);
        tile.low[tile.start(kLevel) + index] = s.first;
    });
    __syncthreads();
    if (kLevel == kLevels && low_copy != nullptr) {
        place.box(kLevel, 1).store(tile.low + tile.start(kLevel), low_copy + place.start(kLevel, 1));
    }
}

// As haar_dwt2d_fwd_kernel, with sub-bands and low_copy in channels_last. There is a block for each of
// B ceil(H / 2^kLevels) tiles_in_a_row parts tiles.
template <typename Image, typename Result, int kLevels>
__global__ void __launch_bounds__(kTileThreads)
    haar_dwt2d_fwd_channels_last_kernel(
        const Image* image, Result* level1, Result* level2, Result* level3, Result* level4,
        Wider<Image, Result>* low_copy, int64_t stride_b, int64_t stride_c, int64_t stride_h, int64_t stride_w,
        int64_t channels, int64_t height, int64_t width,
        int32_t tile_columns,    // of a tile at the coarsest level, of which it has one row
        int32_t tiles_in_a_row,  // that cover the coarsest level's width
        int32_t tile_channels,   // of a tile, at most
        int32_t parts,           // tiles that share the channels of a pixel
        double factor, int32_t transpose) {
    __shared__ Tile<Image, Result, kLevels> tile;
    const TilePlace<kLevels> place(channels, height, width, tile_columns, tiles_in_a_row, tile_channels, parts);
    const Wider<Image, Result> f(factor);
    place.load_image(image, {stride_b, stride_c, stride_h, stride_w}, tile.image);
    __syncthreads();
    // A level is copied out while the next one is made.
    analyse_level<1>(tile, place, f, transpose, low_copy);
    place.box(1, 4).store(tile.packed, level1 + place.start(1, 4));
    if constexpr (kLevels >= 2) {
        analyse_level<2>(tile, place, f, transpose, low_copy);
        place.box(2, 4).store(tile.packed + 4 * tile.start(2), level2 + place.start(2, 4));
    }
    if constexpr (kLevels >= 3) {
        analyse_level<3>(tile, place, f, transpose, low_copy);
        place.box(3, 4).store(tile.packed + 4 * tile.start(3), level3 + place.start(3, 4));
    }
    if constexpr (kLevels >= 4) {
        analyse_level<4>(tile, place, f, transpose, low_copy);
        place.box(4, 4).store(tile.packed + 4 * tile.start(4), level4 + place.start(4, 4));
    }
}

}  // namespace litevae
