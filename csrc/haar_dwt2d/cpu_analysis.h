// The Haar transform of an image on the CPU, row by row.
//
// Read first: Analysis::level_row, which goes through the levels depth first, then AnalysisRow, which computes one row
// of sub-bands from two rows of the finer level. T is the dtype of the arithmetic; Image, Source and Packed are the
// dtypes of the image, of the two rows that are read (Image or T) and of the packed sub-bands. kChannelsLast: the
// memory format of both tensors.
#pragma once
#include <vector>

#include "cpu_geometry.h"
#include "cpu_rows.h"
#include "tile.h"

namespace litevae {

// For three channels in vectors of 16 lanes: lanes k to k + 2 of the sums of two rows (x) and of their differences (y),
// each twice, in the order x y x y.
template <int k, typename Values>
LITEVAE_INLINE Values sums_then_steps(Values x, Values y) {
    return Values::template shuffled<k, k + 1, k + 2, k + 16, k + 17, k + 18,  //
                                     k, k + 1, k + 2, k + 16, k + 17, k + 18, 0, 0, 0, 0>(x, y);
}
template <typename T>
alignas(64) constexpr T kSignOfRight[16] = {1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, 1, 1, 1, 1};

template <typename T, typename Source, bool kChannelsLast>
struct AnalysisRow {
    const Source *top, *bottom;
    int64_t width, channels;  // of top and bottom
    T factor;
    bool zero_edge;  // an odd width is padded with zeros instead of the last pixel
    bool hide_low;   // the L that is stored is zero
    Ahead ahead;
    T *low, *packed;  // results in scratch: L for the next level; the row of packed sub-bands (in NCHW without L)

    int64_t pairs() const { return width / 2; }
    int64_t step() const { return kChannelsLast ? channels : (width + 1) / 2; }  // from sub-band to sub-band in packed

    template <int Bytes>
    static LITEVAE_INLINE void run(const AnalysisRow* row) {
        if constexpr (kChannelsLast) {
            row->template make_pixels<Bytes>();
        } else {
            row->template make_pairs<Bytes>();
        }
        if (row->width % 2 == 1) row->make_edge();
    }

    template <int Bytes>
    LITEVAE_INLINE void make_pairs() const {
        using Values = Vector<T, Bytes>;
        constexpr int lanes = Values::kLanes, kPairBytes = 4 * int(sizeof(Source));
        const std::make_integer_sequence<int, lanes> all{};
        if constexpr (Bytes > 16) {
            if (pairs() < lanes) return make_pairs<Bytes / 2>();
        }
        if (pairs() < lanes) {
            for (int64_t j = 0; j < pairs(); j++) make_block(j, 0);
            return;
        }
        const int64_t last = pairs() - lanes, step = this->step();
        const Source *top = this->top, *bottom = this->bottom;
        const Ahead ahead = this->ahead;
        const T factor = this->factor;
        T *low = this->low, *packed = this->packed;
        for (int64_t j = 0; j < pairs(); j += lanes) {
            ahead.fetch<lanes * kPairBytes>(j * kPairBytes);
            j = std::min(j, last);  // the last vector overlaps the one before
            const Values top0 = read<Values>(top + 2 * j), top1 = read<Values>(top + 2 * j + lanes);
            const Values bottom0 = read<Values>(bottom + 2 * j), bottom1 = read<Values>(bottom + 2 * j + lanes);
            const Values sum0 = top0 + bottom0, sum1 = top1 + bottom1;
            const Values step0 = top0 - bottom0, step1 = top1 - bottom1;
            const Values left = firsts(sum0, sum1, all), right = seconds(sum0, sum1, all);
            const Values left_step = firsts(step0, step1, all), right_step = seconds(step0, step1, all);
            (factor * (left + right)).store(low + j);
            (factor * (left_step + right_step)).store(packed + step + j);
            (factor * (left - right)).store(packed + 2 * step + j);
            (factor * (left_step - right_step)).store(packed + 3 * step + j);
        }
    }

    template <int Bytes>
    LITEVAE_INLINE void make_pixels(int64_t done = 0) const {
        using Values = Vector<T, Bytes>;
        constexpr int lanes = Values::kLanes, kPairBytes = 4 * int(sizeof(Source));
        if constexpr (lanes == 16) {
            if (channels == 3) return make_pixels<16>(make_triples<Values>());
        }
        if constexpr (Bytes > 16) {
            if (channels < lanes) return make_pixels<Bytes / 2>(done);
        }
        const int64_t channels = this->channels, last = channels - lanes;
        // Fewer channels than lanes: the next stores overwrite what the surplus lanes wrote, and the last pairs have no
        // room for them.
        const int64_t vector_pairs = pairs() - (channels < lanes ? (lanes - 1) / channels : 0);
        for (; done < vector_pairs; done++) {
            const Source *a = top + 2 * done * channels, *c = bottom + 2 * done * channels;
            T *to_low = low + done * channels, *to = packed + 4 * done * channels;
            for (int64_t k = 0; k < channels; k += lanes) {
                ahead.fetch<lanes * kPairBytes>((done * channels + k) * kPairBytes);
                if (channels >= lanes) k = std::min(k, last);
                const Four<Values> s = haar_block(read<Values>(a + k), read<Values>(a + channels + k),
                                                  read<Values>(c + k), read<Values>(c + channels + k), factor);
                s.first.store(to_low + k);
                (hide_low ? Values{} : s.first).store(to + k);
                s.second.store(to + channels + k);
                s.third.store(to + 2 * channels + k);
                s.fourth.store(to + 3 * channels + k);
            }
        }
        for (; done < pairs(); done++) {
            for (int64_t k = 0; k < channels; k++) make_block(done, k);
        }
    }

    // Three channels: the 12 values of a pixel's sub-bands are one vector; the next store overwrites its surplus lanes.
    template <typename Values>
    LITEVAE_INLINE int64_t make_triples() const {
        const Values sign = Values::load(kSignOfRight<T>);
        const Source *top = this->top, *bottom = this->bottom;
        const Ahead ahead = this->ahead;
        const T factor = this->factor;
        T *low = this->low, *packed = this->packed;
        const bool hide_low = this->hide_low;
        const int64_t last = 3 * width - 16;  // reads 16 values of each row
        int64_t j = 0;
        for (; 6 * j <= last; j += 2) {
            ahead.fetch<24 * int(sizeof(Source))>(24 * j * int64_t(sizeof(Source)));
            const Values from_top = read<Values>(top + 6 * j), from_bottom = read<Values>(bottom + 6 * j);
            const Values sum = from_top + from_bottom, step = from_top - from_bottom;
            const Values left = sums_then_steps<0>(sum, step), right = sums_then_steps<3>(sum, step);
            const Values next_left = sums_then_steps<6>(sum, step), next_right = sums_then_steps<9>(sum, step);
            const Values made = factor * (left + sign * right), next = factor * (next_left + sign * next_right);
            std::memcpy(low + 3 * j, &made, 4 * sizeof(T));
            std::memcpy(low + 3 * j + 3, &next, 4 * sizeof(T));
            (hide_low ? without_low(made) : made).store(packed + 12 * j);
            (hide_low ? without_low(next) : next).store(packed + 12 * j + 12);
        }
        return j;
    }
    template <typename Values>
    static LITEVAE_INLINE Values without_low(Values s) {
        return Values::template shuffled<16, 17, 18, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 0, 0, 0>(s, Values{});
    }

    // One value of each sub-band.
    __attribute__((noinline)) void make_block(int64_t j, int64_t k) const {
        const Source *a = top + 2 * j * channels + k, *c = bottom + 2 * j * channels + k;
        store(haar_block(load<T>(a[0]), load<T>(a[channels]), load<T>(c[0]), load<T>(c[channels]), factor), j, k);
    }
    __attribute__((noinline)) void make_edge() const {
        for (int64_t k = 0; k < channels; k++) {
            const T a = load<T>(top[(width - 1) * channels + k]), c = load<T>(bottom[(width - 1) * channels + k]);
            store(haar_block(a, zero_edge ? T(0) : a, c, zero_edge ? T(0) : c, factor), pairs(), k);
        }
    }
    void store(Four<T> s, int64_t j, int64_t k) const {
        T* to = packed + (kChannelsLast ? 4 * j * channels + k : j);
        low[j * channels + k] = s.first;
        if (kChannelsLast) to[0] = hide_low ? T(0) : s.first;
        to[step()] = s.second, to[2 * step()] = s.third, to[3 * step()] = s.fourth;
    }
};

template <typename T, typename Image, typename Packed, bool kChannelsLast>
class Analysis {
   public:
    Analysis(const PyramidShape& shape, const Image* image, const int64_t* strides, void* const* pyramid, T factor,
             bool transpose)
        : shape_(shape), image_(image), strides_(strides), pyramid_(pyramid), factor_(factor), transpose_(transpose),
          stream_(shape.values() * int64_t(sizeof(Packed)) >= kStreamBytes), channels_(shape.channels_of_a_pixel()),
          dense_((channels_ == 1 || strides[1] == 1) && (shape.widths[0] == 1 || strides[3] == channels_)),
          scratch_(channels_ * (5 * shape.widths[0] + 4 * shape.widths[1] + 2 * kMaxLevels), 4 + 2 * kMaxLevels),
          zero_pixels_(transpose ? size_t(shape.widths[0] * channels_) : 0) {
        for (T*& row : image_rows_) row = scratch_.take(shape.widths[0] * channels_);
        zeros_ = scratch_.take(shape.widths[0] * channels_);
        packed_row_ = scratch_.take(4 * shape.widths[1] * channels_);
        for (int level = 1; level <= shape.levels; level++) {
            for (T*& row : low_rows_[level]) row = scratch_.take(shape.widths[level] * channels_);
        }
    }

    void run(int64_t plane, int64_t first_coarse_row, int64_t last_coarse_row) {
        const int64_t sample = kChannelsLast ? plane : plane / shape_.channels;
        const int64_t channel = kChannelsLast ? 0 : plane % shape_.channels;
        for (int level = 1; level <= shape_.levels; level++) places_[level] = shape_.plane(plane, level, 4);
        plane_ = image_ + sample * strides_[0] + channel * strides_[1];
        const int shift = shape_.levels - 1;
        const int64_t last_row = std::min(shape_.heights[1], last_coarse_row << shift);
        for (int64_t row = first_coarse_row << shift; row < last_row; row++) {
            const bool inside = 2 * row + 1 < shape_.heights[0];
            const Image *top = plane_ + 2 * row * strides_[2], *bottom = inside ? top + strides_[2] : top;
            if (dense_) {
                const bool ends = 2 * row + 3 >= shape_.heights[0];
                const Image* next = ends ? top : top + 2 * strides_[2];
                const int64_t bytes = shape_.widths[0] * channels_ * int64_t(sizeof(Image));
                level_row(1, row, top, inside || !transpose_ ? bottom : zero_pixels_.data(),
                          {address(next), bytes, strides_[2] * int64_t(sizeof(Image)) - bytes});
            } else {
                const Image* rows[] = {top, bottom};
                for (int k = 0; k < 2; k++) {
                    dispatch<GatherRow<T, Image>>(rows[k], strides_[1], strides_[3], shape_.widths[0], channels_,
                                                  image_rows_[k]);
                }
                level_row<T>(1, row, image_rows_[0], inside || !transpose_ ? image_rows_[1] : zeros_,
                             in_cache(image_rows_[0]));
            }
        }
    }

   private:
    static Ahead in_cache(const T* row) { return {address(row), INT64_MAX, 0}; }

    // Computes row `row` of level `level` from two rows of the finer level, and the next level's row once it has both
    // of its rows. At an odd height the last row counts twice, or is followed by zeros (transpose).
    template <typename Source>
    void level_row(int level, int64_t row, const Source* top, const Source* bottom, Ahead ahead) {
        const bool is_last = level == shape_.levels;
        const Plane& place = places_[level];
        T* low = low_rows_[level][row % 2];
        const bool hides_low = transpose_ && !is_last;
        const AnalysisRow<T, Source, kChannelsLast> work{
            top, bottom, shape_.widths[level - 1], channels_, factor_, transpose_, hides_low, ahead, low, packed_row_};
        dispatch<AnalysisRow<T, Source, kChannelsLast>>(&work);
        const T *shown = hides_low ? zeros_ : low, *packed = packed_row_;
        dispatch<PutSubBands<T, Packed, kChannelsLast>>(
            shown, packed, shape_.widths[level], channels_,
            static_cast<Packed*>(pyramid_[level - 1]) + place.start + row * place.row, place.band, stream_);
        if (is_last) return;
        const bool is_last_row = row == shape_.heights[level] - 1;
        if (row % 2 == 1) {
            level_row<T>(level + 1, row / 2, low_rows_[level][0], low, in_cache(low));
        } else if (is_last_row) {
            level_row<T>(level + 1, row / 2, low, transpose_ ? zeros_ : low, in_cache(low));
        }
    }

    const PyramidShape& shape_;
    const Image *image_, *plane_ = nullptr;
    const int64_t* strides_;
    void* const* pyramid_;
    T factor_;
    bool transpose_, stream_;
    int64_t channels_;  // of a pixel
    bool dense_;  // the values of a row of the image lie side by side, in the order of the result
    Plane places_[kMaxLevels + 1];
    Scratch<T> scratch_;
    T *image_rows_[2], *zeros_, *packed_row_;
    T* low_rows_[kMaxLevels + 1][2];  // L of an even and an odd row of each level
    std::vector<Image> zero_pixels_;
};

}  // namespace litevae
