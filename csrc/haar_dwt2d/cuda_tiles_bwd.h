// How do sub-bands become a tile? The inverse in channels_last, and with `transpose` the gradient of the transform.
#pragma once

#include "cuda_tiles.h"

namespace litevae {

// The image, or L of the finer level, from level kLevel of the tile.
template <int kLevel, typename Image, typename Pyramid, int kLevels>
LITEVAE_DEVICE void synthesise_level(Tile<Image, Pyramid, kLevels>& tile, const TilePlace<kLevels>& place,
                                     Wider<Image, Pyramid> factor, bool transpose, bool from_copy) {
    using T = Wider<Image, Pyramid>;
    const int rows = place.rows_at(kLevel - 1), columns = place.columns_at(kLevel - 1), channels = place.tile_channels;
    const bool has_low = kLevel < kLevels || from_copy, adds_low = transpose || !has_low;
    const Pyramid* packed = tile.packed + 4 * tile.start(kLevel);
    place.for_each_value(kLevel, [&](int row, int column, int channel, int index) {
        const Pyramid* from = packed + 4 * (index - channel) + channel;
        T low = has_low ? tile.low[tile.start(kLevel) + index] : T(0);
        if (adds_low) low += load<T>(from[0]);
        const T h = load<T>(from[channels]), v = load<T>(from[2 * channels]), d = load<T>(from[3 * channels]);
        Four<T> s = haar_block(low, h, v, d, factor);
        const bool past_column = 2 * column + 1 == columns, past_row = 2 * row + 1 == rows;
        if (transpose && past_column) s.first += s.second, s.third += s.fourth;
        if (transpose && past_row) s.first += s.third, s.second += s.fourth;
        const auto put = [&](int at_row, int at_column, T value) {
            const int at = (at_row * columns + at_column) * channels + channel;
            if constexpr (kLevel == 1) store(value, tile.image[at]);
            else tile.low[tile.start(kLevel - 1) + at] = value;
        };
        put(2 * row, 2 * column, s.first);
        if (!past_column) put(2 * row, 2 * column + 1, s.second);
        if (!past_row) put(2 * row + 1, 2 * column, s.third);
        if (!past_column && !past_row) put(2 * row + 1, 2 * column + 1, s.fourth);
    });
    __syncthreads();
}

// As haar_dwt2d_bwd_kernel, with sub-bands, low_copy and image in channels_last. The blocks and the parameters of tiles
// are those of haar_dwt2d_fwd_channels_last_kernel.
template <typename Image, typename Pyramid, int kLevels>
__global__ void __launch_bounds__(kTileThreads)
    haar_dwt2d_bwd_channels_last_kernel(
        const Pyramid* level1, const Pyramid* level2, const Pyramid* level3, const Pyramid* level4,
        const Wider<Image, Pyramid>* low_copy, Image* image, int64_t channels, int64_t height, int64_t width,
        int32_t tile_columns, int32_t tiles_in_a_row, int32_t tile_channels, int32_t parts, double factor,
        int32_t transpose) {
    __shared__ Tile<Image, Pyramid, kLevels> tile;
    const TilePlace<kLevels> place(channels, height, width, tile_columns, tiles_in_a_row, tile_channels, parts);
    const Wider<Image, Pyramid> f(factor);
    const bool from_copy = low_copy != nullptr;
    place.box(1, 4).load(level1 + place.start(1, 4), tile.packed);
    if constexpr (kLevels >= 2) place.box(2, 4).load(level2 + place.start(2, 4), tile.packed + 4 * tile.start(2));
    if constexpr (kLevels >= 3) place.box(3, 4).load(level3 + place.start(3, 4), tile.packed + 4 * tile.start(3));
    if constexpr (kLevels >= 4) place.box(4, 4).load(level4 + place.start(4, 4), tile.packed + 4 * tile.start(4));
    if (from_copy) place.box(kLevels, 1).load(low_copy + place.start(kLevels, 1), tile.low + tile.start(kLevels));
    __syncthreads();
    if constexpr (kLevels >= 4) synthesise_level<4>(tile, place, f, transpose, from_copy);
    if constexpr (kLevels >= 3) synthesise_level<3>(tile, place, f, transpose, from_copy);
    if constexpr (kLevels >= 2) synthesise_level<2>(tile, place, f, transpose, from_copy);
    synthesise_level<1>(tile, place, f, transpose, from_copy);
    place.box(0, 1).store(tile.image, image + place.start(0, 1));
}

}  // namespace litevae
