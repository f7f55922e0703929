// The inverse Haar transform on the CPU, row by row.
//
// Read first: Synthesis::level_row, which goes through the levels depth first down to the image, then SynthesisRow,
// which computes two rows of the finer level from one row of sub-bands. T is the dtype of the arithmetic; Packed and
// Image are the dtypes of the packed sub-bands and of the image. kChannelsLast: the memory format of both.
#pragma once
#include "cpu_geometry.h"
#include "cpu_rows.h"
#include "tile.h"

namespace litevae {

// For three channels in vectors of 16 lanes: lanes k to k + 2 of x twice, then those of y twice.
template <int k, typename Values>
LITEVAE_INLINE Values each_twice(Values x, Values y) {
    return Values::template shuffled<k, k + 1, k + 2, k, k + 1, k + 2,  //
                                     k + 16, k + 17, k + 18, k + 16, k + 17, k + 18, 0, 0, 0, 0>(x, y);
}
template <typename T>
alignas(64) constexpr T kSignOfSide[16] = {1, 1, 1, -1, -1, -1, 1, 1, 1, -1, -1, -1, 1, 1, 1, 1};

template <typename T, typename Packed, bool kChannelsLast>
struct SynthesisRow {
    const T* low;
    const Packed* packed;     // L of the first pixel
    int64_t band;             // from sub-band to sub-band
    bool add_low;             // L is added to low
    int64_t width, channels;  // of top and bottom
    T factor;
    bool fold;        // values beyond an odd side are added to the last pixels (the transpose), else dropped
    bool inside;      // the bottom row is inside the image
    T *top, *bottom;  // results in scratch

    int64_t pairs() const { return width / 2; }
    int64_t pitch() const { return kChannelsLast ? 4 * channels : 1; }

    template <int Bytes>
    static LITEVAE_INLINE void run(const SynthesisRow* row) {
        using Values = Vector<T, Bytes>;
        if constexpr (kChannelsLast) {
            row->template make_pixels<Bytes>();
        } else {
            row->template make_pairs<Bytes>();
        }
        if (row->width % 2 == 1) row->make_edge();
        const int64_t size = row->width * row->channels;
        if (row->fold && !row->inside) {
            for (int64_t i = 0; i < size; i += Values::kLanes) {
                (Values::load(row->top + i) + Values::load(row->bottom + i)).store(row->top + i);
            }
        }
    }

    template <typename Values>
    LITEVAE_INLINE Four<Values> block(int64_t at, int64_t low_at) const {
        const Packed* from = packed + at;
        Values running = Values::load(low + low_at);
        if (add_low) running = running + read<Values>(from);
        return haar_block(running, read<Values>(from + band), read<Values>(from + 2 * band),
                          read<Values>(from + 3 * band), factor);
    }
    LITEVAE_INLINE Four<T> one_block(int64_t at, int64_t low_at) const {
        const Packed* from = packed + at;
        const T running = add_low ? low[low_at] + load<T>(from[0]) : low[low_at];
        return haar_block(running, load<T>(from[band]), load<T>(from[2 * band]), load<T>(from[3 * band]), factor);
    }

    template <int Bytes>
    LITEVAE_INLINE void make_pairs() const {
        using Values = Vector<T, Bytes>;
        constexpr int lanes = Values::kLanes;
        const std::make_integer_sequence<int, lanes> all{};
        if constexpr (Bytes > 16) {
            if (pairs() < lanes) return make_pairs<Bytes / 2>();
        }
        if (pairs() < lanes) {
            for (int64_t j = 0; j < pairs(); j++) make_block(j, 0);
            return;
        }
        T *top = this->top, *bottom = this->bottom;
        const int64_t last = pairs() - lanes;
        for (int64_t j = 0; j < pairs(); j += lanes) {
            j = std::min(j, last);  // the last vector overlaps the one before
            const Four<Values> s = block<Values>(j, j);
            first_pairs(s.first, s.second, all).store(top + 2 * j);
            last_pairs(s.first, s.second, all).store(top + 2 * j + lanes);
            first_pairs(s.third, s.fourth, all).store(bottom + 2 * j);
            last_pairs(s.third, s.fourth, all).store(bottom + 2 * j + lanes);
        }
    }

    template <int Bytes>
    LITEVAE_INLINE void make_pixels(int64_t done = 0) const {
        using Values = Vector<T, Bytes>;
        constexpr int lanes = Values::kLanes;
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
            T *a = top + 2 * done * channels, *c = bottom + 2 * done * channels;
            for (int64_t k = 0; k < channels; k += lanes) {
                if (channels >= lanes) k = std::min(k, last);
                const Four<Values> s = block<Values>(4 * done * channels + k, done * channels + k);
                s.first.store(a + k);
                s.second.store(a + channels + k);
                s.third.store(c + k);
                s.fourth.store(c + channels + k);
            }
        }
        for (; done < pairs(); done++) {
            for (int64_t k = 0; k < channels; k++) make_block(done, k);
        }
    }

    // Three channels: two pixels of sub-bands (12 values each) give four pixels (12 values) of each of the two rows.
    template <typename Values>
    LITEVAE_INLINE int64_t make_triples() const {
        const Values side = Values::load(kSignOfSide<T>);
        const Packed* packed = this->packed;
        const T *low = this->low, factor = this->factor;
        T *top = this->top, *bottom = this->bottom;
        const bool add_low = this->add_low;
        const int64_t last = std::min(pairs() - 2, (width + 1) / 2 - 3);  // reads 4 values past the second pixel
        int64_t j = 0;
        for (; j <= last; j += 2) {
            const Values one = read<Values>(packed + 12 * j), two = read<Values>(packed + 12 * j + 12);
            Values l = Values::load(low + 3 * j);
            l = Values::template shuffled<0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5, 0, 0, 0, 0>(l, l);
            if (add_low) l = l + each_twice<0>(one, two);
            const Values h = each_twice<3>(one, two), v = each_twice<6>(one, two), d = each_twice<9>(one, two);
            const Values left = l + side * v, right = h + side * d;
            (factor * (left + right)).store(top + 6 * j);
            (factor * (left - right)).store(bottom + 6 * j);
        }
        return j;
    }

    // One value of each corner.
    __attribute__((noinline)) void make_block(int64_t j, int64_t k) const {
        const Four<T> s = one_block(j * pitch() + k, j * channels + k);
        T *a = top + 2 * j * channels + k, *c = bottom + 2 * j * channels + k;
        a[0] = s.first, a[channels] = s.second, c[0] = s.third, c[channels] = s.fourth;
    }
    __attribute__((noinline)) void make_edge() const {
        for (int64_t k = 0; k < channels; k++) {
            const Four<T> s = one_block(pairs() * pitch() + k, pairs() * channels + k);
            top[(width - 1) * channels + k] = fold ? s.first + s.second : s.first;
            bottom[(width - 1) * channels + k] = fold ? s.third + s.fourth : s.third;
        }
    }
};

template <typename T, typename Packed, typename Image, bool kChannelsLast>
class Synthesis {
   public:
    Synthesis(const PyramidShape& shape, const void* const* pyramid, Image* image, T factor, bool transpose)
        : shape_(shape), pyramid_(pyramid), image_(image), factor_(factor), transpose_(transpose),
          stream_(shape.values() * int64_t(sizeof(Image)) >= kStreamBytes), channels_(shape.channels_of_a_pixel()),
          scratch_(channels_ * (4 * shape.widths[0] + 4 * kMaxLevels), 2 * (kMaxLevels + 1)) {
        for (int level = 0; level <= shape.levels; level++) {
            for (T*& row : rows_[level]) row = scratch_.take(shape.widths[level] * channels_);
        }
    }

    void run(int64_t plane, int64_t first_coarse_row, int64_t last_coarse_row) {
        image_place_ = shape_.plane(plane, 0, 1);
        for (int level = 1; level <= shape_.levels; level++) places_[level] = shape_.plane(plane, level, 4);
        const int coarsest = shape_.levels;
        for (int64_t row = first_coarse_row; row < last_coarse_row; row++) {
            const Packed* low = packed_row(coarsest, row);
            dispatch<GatherRow<T, Packed>>(low, int64_t(1), places_[coarsest].pitch, shape_.widths[coarsest], channels_,
                                           rows_[coarsest][0]);
            level_row(coarsest, row, rows_[coarsest][0]);
        }
    }

   private:
    const Packed* packed_row(int level, int64_t row) const {
        return static_cast<const Packed*>(pyramid_[level - 1]) + places_[level].start + row * places_[level].row;
    }

    // Computes two rows of the finer level from row `row` of `level`, and from them their rows of the image.
    void level_row(int level, int64_t row, const T* low) {
        const bool inside = 2 * row + 1 < shape_.heights[level - 1], add_low = transpose_ && level < shape_.levels;
        T *top = rows_[level - 1][0], *bottom = rows_[level - 1][1];
        using Row = SynthesisRow<T, Packed, kChannelsLast>;
        const Row work{low, packed_row(level, row), places_[level].band, add_low, shape_.widths[level - 1], channels_,
                       factor_, transpose_, inside, top, bottom};
        dispatch<Row>(&work);
        if (level == 1) {
            const T *made_top = top, *made_bottom = bottom;
            Image* result = image_ + image_place_.start + 2 * row * image_place_.row;
            return dispatch<PutPixels<T, Image>>(made_top, made_bottom, image_place_.row, result, inside, stream_);
        }
        level_row(level - 1, 2 * row, top);
        if (inside) level_row(level - 1, 2 * row + 1, bottom);
    }

    const PyramidShape& shape_;
    const void* const* pyramid_;
    Image* image_;
    T factor_;
    bool transpose_, stream_;
    int64_t channels_;  // of a pixel
    Plane image_place_, places_[kMaxLevels + 1];
    Scratch<T> scratch_;
    T* rows_[kMaxLevels + 1][2];
};

}  // namespace litevae
