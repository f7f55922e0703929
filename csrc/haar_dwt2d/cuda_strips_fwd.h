// How does a strip become sub-bands? The transform in NCHW, and with `transpose` the gradient of its inverse.
#pragma once

#include "cuda_strips.h"

namespace litevae {

template <typename Image, typename Result, int kLevels>
struct AnalysisStrip {
    using T = Wider<Image, Result>;
    static constexpr int kColumns = kStripColumns<Image>;
    static constexpr int kLevelsInFlight = kLevels < 3 ? kLevels : 3;  // 2^3 rows of the image are asked for at once
    template <int kLevel>
    using Row = Pack<T, kColumnsAt<Image, kLevel>>;

    const Image* image;  // of the strip's plane
    int64_t stride_h, stride_w, height, width, row, column;
    bool inside, aligned, transpose;
    T factor;
    LevelShares<Image, Result, kLevels> levels;
    T* low_copy;  // of the strip, or null

    // Stores row `row` of the strip's share of level kLevel, and of the finer levels what it is made of; returns its L.
    template <int kLevel>
    LITEVAE_DEVICE Row<kLevel> run(int row) const {
        if constexpr (kLevel > kLevelsInFlight) {
            const Row<kLevel - 1> top = run<kLevel - 1>(2 * row), bottom = run<kLevel - 1>(2 * row + 1);
            return analyse<kLevel>(top, bottom, row);
        } else {
            Pack<Image, kColumns> rows[1 << kLevel];
#pragma unroll
            for (int k = 0; k < 1 << kLevel; k++) rows[k] = load_image_row((row << kLevel) + k);
            return reduce<kLevel>(rows, row);
        }
    }

    template <int kLevel>
    LITEVAE_DEVICE Row<kLevel> reduce(const Pack<Image, kColumns>* rows, int row) const {
        if constexpr (kLevel == 0) {
            Row<0> result;
#pragma unroll
            for (int j = 0; j < kColumns; j++) result.values[j] = load<T>(rows->values[j]);
            return result;
        } else {
            const Row<kLevel - 1> top = reduce<kLevel - 1>(rows, 2 * row);
            const Row<kLevel - 1> bottom = reduce<kLevel - 1>(rows + (1 << kLevel) / 2, 2 * row + 1);
            return analyse<kLevel>(top, bottom, row);
        }
    }

    template <int kLevel>
    LITEVAE_DEVICE Row<kLevel> analyse(const Row<kLevel - 1>& top, const Row<kLevel - 1>& bottom, int row) const {
        constexpr int count = kColumnsAt<Image, kLevel>, lanes = kLanesAt<Image, kLevel>;
        Row<kLevel> bands[4];
#pragma unroll
        for (int j = 0; j < count; j++) {
            T a = top.values[0], b, c = bottom.values[0], d;
            if constexpr (lanes == 1) {
                a = top.values[2 * j], b = top.values[2 * j + 1];
                c = bottom.values[2 * j], d = bottom.values[2 * j + 1];
            } else {  // the other half of the block is another lane's
                const bool right = threadIdx.x & (lanes / 2);
                const T across = __shfl_xor_sync(kWholeWarp, a, lanes / 2);
                const T below = __shfl_xor_sync(kWholeWarp, c, lanes / 2);
                b = right ? a : across, a = right ? across : a;
                d = right ? c : below, c = right ? below : c;
            }
            const Four<T> s = haar_block(a, b, c, d, factor);
            bands[0].values[j] = s.first, bands[1].values[j] = s.second;
            bands[2].values[j] = s.third, bands[3].values[j] = s.fourth;
        }
        if (threadIdx.x % lanes == 0) store_level<kLevel>(bands, row);
        return bands[0];
    }

    template <int kLevel>
    LITEVAE_DEVICE void store_level(const Row<kLevel>* bands, int row) const {
        const LevelShare<Result>& share = levels.at[kLevel - 1];
        if (row >= share.rows) return;
        Result* to = share.first + row * share.row;
        const bool hide_low = transpose && (kLevel < kLevels || low_copy != nullptr);
        store_row(hide_low ? Row<kLevel>{} : bands[0], to, share.columns, share.aligned);
        store_row(bands[1], to + share.band, share.columns, share.aligned);
        store_row(bands[2], to + 2 * share.band, share.columns, share.aligned);
        store_row(bands[3], to + 3 * share.band, share.columns, share.aligned);
        if (kLevel == kLevels && low_copy != nullptr) {
            store_row(bands[0], low_copy + row * share.row, share.columns, false);
        }
    }

    LITEVAE_DEVICE Pack<Image, kColumns> load_image_row(int k) const {
        if (aligned) return load_pack<kColumns>(image + (row + k) * stride_h + column);
        const bool extend = !inside && !transpose;
        const int64_t from = extend ? extended<kLevels>(row + k, height) : row + k;
        Pack<Image, kColumns> result;
#pragma unroll
        for (int j = 0; j < kColumns; j++) {
            const int64_t at = extend ? extended<kLevels>(column + j, width) : column + j;
            const bool exists = from < height && at < width;
            result.values[j] = exists ? image[from * stride_h + at * stride_w] : Image{};
        }
        return result;
    }
};

// For each 2x2 block with rows (a, b) and (c, d), at every level; L is the image of the next one (tile.h):
//
//     L = f (a + b + c + d)    H = f (a + b - c - d)    V = f (a - b + c - d)    D = f (a - b - c + d)
//
// Gradient: haar_dwt2d_bwd_kernel with transpose.
template <typename Image, typename Result, int kLevels>
__global__ void __launch_bounds__(kStripThreads)
    haar_dwt2d_fwd_kernel(
        const Image* image,  // [B, C, H, W] of any strides: floating point, or uint8 for p / 127.5 - 1
        Result* level1,      // results: packed L H V D, [B, 4C, ceil(H / 2), ceil(W / 2)] in NCHW
        Result* level2,      // [B, 4C, ceil(H / 4), ceil(W / 4)] and so on; those past kLevels are not accessed
        Result* level3, Result* level4,
        Wider<Image, Result>* low_copy,  // the last L unrounded, [B, C, h, w], the image of the next launch; or null
        int64_t stride_b, int64_t stride_c, int64_t stride_h, int64_t stride_w,  // of the image, in elements
        int64_t batch, int64_t channels, int64_t height, int64_t width,          // B, C, H, W
        double factor,        // f: 1/2, or 1/4 for the mean
        int32_t transpose) {  // the gradient of the inverse: zeros past an odd edge, and no L but the last
    constexpr int columns = kStripColumns<Image>;
    const StripPlace<Image, kLevels> place(batch, channels, height, width);
    Result* const packed[] = {level1, level2, level3, level4};
    AnalysisStrip<Image, Result, kLevels> strip;
    strip.image = image + place.sample * stride_b + place.channel * stride_c;
    strip.stride_h = stride_h, strip.stride_w = stride_w, strip.height = height, strip.width = width;
    strip.row = place.row, strip.column = place.column;
    strip.inside = place.row + (1 << kLevels) <= height && place.column + columns <= width;
    const bool dense = stride_w == 1 && stride_h % columns == 0 && is_aligned<Image, columns>(strip.image);
    strip.aligned = strip.inside && dense;
    strip.transpose = transpose;
    strip.factor = Wider<Image, Result>(factor);
    strip.levels.place(packed, place, channels, height, width);
    const int64_t plane = place.sample * channels + place.channel;
    const int64_t low_row = plane * side_at(height, kLevels) + (place.row >> kLevels);
    strip.low_copy = low_copy + low_row * side_at(width, kLevels) + (place.column >> kLevels);
    if (low_copy == nullptr) strip.low_copy = nullptr;
    strip.template run<kLevels>(0);
}

}  // namespace litevae
