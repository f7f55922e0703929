// How do sub-bands become a strip? The inverse in NCHW, and with `transpose` the gradient of the transform.
#pragma once

#include "cuda_strips.h"

namespace litevae {

// What a strip reads of level kLevel and of the finer ones, for one row of that level.
template <typename Image, typename Pyramid, int kLevel>
struct Details {
    Pack<Pyramid, kColumnsAt<Image, kLevel>> bands[4];
    Details<Image, Pyramid, kLevel - 1> finer[2];
};
template <typename Image, typename Pyramid>
struct Details<Image, Pyramid, 0> {};

template <typename Image, typename Pyramid, int kLevels>
struct SynthesisStrip {
    using T = Wider<Image, Pyramid>;
    static constexpr int kColumns = kStripColumns<Image>;
    static constexpr int kLevelsInFlight = kLevels < 3 ? kLevels : 3;
    template <int kLevel>
    using Row = Pack<T, kColumnsAt<Image, kLevel>>;

    LevelShares<Image, const Pyramid, kLevels> levels;
    LevelShare<Image> image;
    int64_t height, width, row, column;
    bool transpose, from_copy;
    T factor;

    // Stores the rows of the image that row `row` of level kLevel stands for; `low` is its running L.
    template <int kLevel>
    LITEVAE_DEVICE void run(const Row<kLevel>& low, int row) const {
        if constexpr (kLevel > kLevelsInFlight) {
            Details<Image, Pyramid, kLevel> details;
            read_bands<kLevel>(details, row);
            Row<kLevel - 1> top, bottom;
            synthesise<kLevel>(low, details, row, top, bottom);
            run<kLevel - 1>(top, 2 * row);
            run<kLevel - 1>(bottom, 2 * row + 1);
        } else {
            Details<Image, Pyramid, kLevel> details;
            read<kLevel>(details, row);
            expand<kLevel>(low, details, row);
        }
    }

    template <int kLevel>
    LITEVAE_DEVICE void read(Details<Image, Pyramid, kLevel>& details, int row) const {
        if constexpr (kLevel > 0) {
            read<kLevel - 1>(details.finer[0], 2 * row);
            read<kLevel - 1>(details.finer[1], 2 * row + 1);
            read_bands<kLevel>(details, row);
        }
    }

    template <int kLevel>
    LITEVAE_DEVICE void read_bands(Details<Image, Pyramid, kLevel>& details, int row) const {
        constexpr int count = kColumnsAt<Image, kLevel>;
        const LevelShare<const Pyramid>& share = levels.at[kLevel - 1];
        const Pyramid* from = share.first + row * share.row;
        const bool exists = row < share.rows, adds_low = transpose || (kLevel == kLevels && !from_copy);
        const int columns = exists ? share.columns : 0;
        const bool aligned = exists && share.aligned;
        details.bands[0] = load_row<count>(from, adds_low ? columns : 0, adds_low && aligned);
        details.bands[1] = load_row<count>(from + share.band, columns, aligned);
        details.bands[2] = load_row<count>(from + 2 * share.band, columns, aligned);
        details.bands[3] = load_row<count>(from + 3 * share.band, columns, aligned);
    }

    template <int kLevel>
    LITEVAE_DEVICE void expand(const Row<kLevel>& low, const Details<Image, Pyramid, kLevel>& details, int row) const {
        if constexpr (kLevel == 0) {
            if (row < image.rows) store_row(low, image.first + row * image.row, image.columns, image.aligned);
        } else {
            Row<kLevel - 1> top, bottom;
            synthesise<kLevel>(low, details, row, top, bottom);
            expand<kLevel - 1>(top, details.finer[0], 2 * row);
            expand<kLevel - 1>(bottom, details.finer[1], 2 * row + 1);
        }
    }

    // Two rows of the next finer level; transpose folds what lies past an odd edge of it.
    template <int kLevel>
    LITEVAE_DEVICE void synthesise(const Row<kLevel>& low, const Details<Image, Pyramid, kLevel>& details, int row,
                                   Row<kLevel - 1>& top, Row<kLevel - 1>& bottom) const {
        constexpr int count = kColumnsAt<Image, kLevel>, lanes = kLanesAt<Image, kLevel>;
        const int64_t row_at = (this->row >> kLevel) + row, column_at = column >> kLevel;
        const bool fold_row = transpose && 2 * row_at + 1 == side_at(height, kLevel - 1);
        const int64_t folded = side_at(width, kLevel - 1) - 2 * column_at;  // 2 j + 1 == folded: column j folds
#pragma unroll
        for (int j = 0; j < count; j++) {
            const T l = low.values[j] + load<T>(details.bands[0].values[j]), h = load<T>(details.bands[1].values[j]);
            const T v = load<T>(details.bands[2].values[j]), d = load<T>(details.bands[3].values[j]);
            Four<T> s = haar_block(l, h, v, d, factor);
            if (transpose && 2 * j + 1 == folded) s.first += s.second, s.third += s.fourth;
            if (fold_row) s.first += s.third, s.second += s.fourth;
            if constexpr (lanes == 1) {
                top.values[2 * j] = s.first, top.values[2 * j + 1] = s.second;
                bottom.values[2 * j] = s.third, bottom.values[2 * j + 1] = s.fourth;
            } else {
                const bool right = threadIdx.x & (lanes / 2);
                top.values[0] = right ? s.second : s.first, bottom.values[0] = right ? s.fourth : s.third;
            }
        }
    }
};

// For each 2x2 block with rows (a, b) and (c, d), from the coarsest level up; the result is the L of the next one:
//
//     a = f (L + H + V + D)    b = f (L + H - V - D)    c = f (L - H + V - D)    d = f (L - H - V + D)
//
// Values past an odd edge are dropped. Gradient: haar_dwt2d_fwd_kernel with transpose.
template <typename Image, typename Pyramid, int kLevels>
__global__ void __launch_bounds__(kStripThreads, 2)
    haar_dwt2d_bwd_kernel(
        const Pyramid* level1,  // packed L H V D, [B, 4C, ceil(H / 2), ceil(W / 2)] in NCHW
        const Pyramid* level2,  // [B, 4C, ceil(H / 4), ceil(W / 4)] and so on; those past kLevels are not accessed
        const Pyramid* level3, const Pyramid* level4,
        const Wider<Image, Pyramid>* low_copy,  // L of the coarsest level, [B, C, h, w], of the launch before; or null
        Image* image,                           // the result, [B, C, H, W] in NCHW
        int64_t batch, int64_t channels, int64_t height, int64_t width,  // B, C, H, W
        double factor,        // f: 1/2, or 1 for the mean; in the gradient of the DWT that of the DWT
        int32_t transpose) {  // the gradient of the DWT: what lies past an odd edge folds, and every L is added
    using T = Wider<Image, Pyramid>;
    const StripPlace<Image, kLevels> place(batch, channels, height, width);
    const Pyramid* const packed[] = {level1, level2, level3, level4};
    const int64_t plane = place.sample * channels + place.channel;
    const bool from_copy = low_copy != nullptr;
    SynthesisStrip<Image, Pyramid, kLevels> strip;
    strip.levels.place(packed, place, channels, height, width);
    strip.image.template place<1 << kLevels, kStripColumns<Image>>(image, plane, 0, height, width, place.row,
                                                                   place.column, place.exists);
    strip.height = height, strip.width = width, strip.row = place.row, strip.column = place.column;
    strip.transpose = transpose, strip.from_copy = from_copy;
    strip.factor = T(factor);
    Pack<T, kColumnsAt<Image, kLevels>> low{};
    if (from_copy) {
        LevelShare<const T> share;
        share.template place<1, kColumnsAt<Image, kLevels>>(low_copy, plane, 0, side_at(height, kLevels),
                                                            side_at(width, kLevels), place.row >> kLevels,
                                                            place.column >> kLevels, place.exists);
        low = load_row<kColumnsAt<Image, kLevels>>(share.first, share.rows > 0 ? share.columns : 0, false);
    }
    strip.template run<kLevels>(low, 0);
}

}  // namespace litevae
