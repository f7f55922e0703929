// How does a GPU compute the Haar transform and its inverse in NCHW? Strips in registers.
//
// A thread makes a strip of one plane: 2^kLevels rows by a few columns, as many as 16 bytes of the image hold (4 or 8).
// All levels of the strip stay in its registers; where a pixel of a coarse level is wider than the strip, neighbouring
// lanes share it. Whatever the strip reads is asked for at once, in packs of up to 16 bytes where the addresses allow
// it, and no thread waits for another.
#pragma once

#include "../packs.h"
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

// ------------------------------------------------------------------------------------------------------- analysis

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
            for (int j = 0; j < kColumns; j++) result.values[j] = load_pixel<T>(rows->values[j]);
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

// L, H, V, D of every level from the image, which may have any strides. transpose: zeros past an odd edge, and no L but
// the last. The last L goes to low_copy as well, unless that is null.
template <typename Image, typename Result, int kLevels>
__global__ void __launch_bounds__(kStripThreads)
    haar_dwt2d_fwd_kernel(const Image* image, Result* level1, Result* level2, Result* level3, Result* level4,
                          Wider<Image, Result>* low_copy, int64_t stride_b, int64_t stride_c, int64_t stride_h,
                          int64_t stride_w, int64_t batch, int64_t channels, int64_t height, int64_t width,
                          double factor, int32_t transpose) {
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

// ------------------------------------------------------------------------------------------------------ synthesis

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

// The image from H, V, D of every level and the last L. transpose: every level's L is added, and what lies past an odd
// edge folds onto the last row or column instead of being dropped. The last L comes from low_copy, unless that is null.
template <typename Image, typename Pyramid, int kLevels>
__global__ void __launch_bounds__(kStripThreads, 2)
    haar_dwt2d_bwd_kernel(const Pyramid* level1, const Pyramid* level2, const Pyramid* level3, const Pyramid* level4,
                          const Wider<Image, Pyramid>* low_copy, Image* image, int64_t batch, int64_t channels,
                          int64_t height, int64_t width, double factor, int32_t transpose) {
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
