// How does the CPU compute the multi-level Haar transform and its inverse?
//
// Both walk the pyramid depth first, row by row: as soon as two rows of one level exist, the row of the next level
// (or, for the inverse, of the image) is made from them while they are in the L1 cache. So the image is read once,
// every level is written once, and the scratch is a few rows. A plane is one channel of one sample in NCHW
// (a pixel is 1 lane) and one sample in channels_last (a pixel is C lanes).
#include <algorithm>
#include <vector>

#include "../parallel.h"
#include "../scalar_types.h"
#include "tile.h"

namespace litevae {
namespace {

constexpr int kMaxLevels = 16;

template <typename T>
struct Row {
    T* data;
    int64_t pitch;  // elements from one pixel to the next
};

// ---------------------------------------------------------------------------------------------- rows of 2x2 blocks

// Two rows of `width` pixels -> one row of ceil(width / 2) pixels for each sub-band.
template <typename T>
LITEVAE_VECTOR_CLONES void analyse_row(Row<const T> top, Row<const T> bottom, int64_t width, int64_t lanes, T factor,
                                       bool zero_edge, const Row<T>* bands) {
    const int64_t pairs = width / 2;
    const int64_t low_pitch = bands[0].pitch, pitch = bands[1].pitch;
    if (lanes == 1 && top.pitch == 1 && bottom.pitch == 1 && low_pitch == 1 && pitch == 1) {
        const T *__restrict a = top.data, *__restrict c = bottom.data;
        T *__restrict L = bands[0].data, *__restrict H = bands[1].data;
        T *__restrict V = bands[2].data, *__restrict D = bands[3].data;
        for (int64_t j = 0; j < pairs; j++) {
            const Four<T> s = haar_block(a[2 * j], a[2 * j + 1], c[2 * j], c[2 * j + 1], factor);
            L[j] = s.first, H[j] = s.second, V[j] = s.third, D[j] = s.fourth;
        }
    } else {
        for (int64_t j = 0; j < pairs; j++) {
            const T *a = top.data + 2 * j * top.pitch, *c = bottom.data + 2 * j * bottom.pitch;
            for (int64_t k = 0; k < lanes; k++) {
                const Four<T> s = haar_block(a[k], a[top.pitch + k], c[k], c[bottom.pitch + k], factor);
                bands[0].data[j * low_pitch + k] = s.first, bands[1].data[j * pitch + k] = s.second;
                bands[2].data[j * pitch + k] = s.third, bands[3].data[j * pitch + k] = s.fourth;
            }
        }
    }
    if (width % 2 == 0) return;
    for (int64_t k = 0; k < lanes; k++) {
        const T a = top.data[(width - 1) * top.pitch + k], c = bottom.data[(width - 1) * bottom.pitch + k];
        const Four<T> s = haar_block(a, zero_edge ? T(0) : a, c, zero_edge ? T(0) : c, factor);
        const int64_t at = pairs * pitch + k;
        bands[0].data[pairs * low_pitch + k] = s.first, bands[1].data[at] = s.second;
        bands[2].data[at] = s.third, bands[3].data[at] = s.fourth;
    }
}

// One row of each sub-band -> two rows of `width` pixels; `fold` adds the pixel past an odd width to the last one.
template <typename T>
LITEVAE_VECTOR_CLONES void synthesise_row(const Row<const T>* bands, int64_t width, int64_t lanes, T factor, bool fold,
                                          Row<T> top, Row<T> bottom) {
    const int64_t pairs = width / 2;
    const bool unit = bands[0].pitch == 1 && bands[1].pitch == 1 && top.pitch == 1;
    if (lanes == 1 && unit) {
        const T *__restrict L = bands[0].data, *__restrict H = bands[1].data;
        const T *__restrict V = bands[2].data, *__restrict D = bands[3].data;
        T *__restrict a = top.data, *__restrict c = bottom.data;
        for (int64_t j = 0; j < pairs; j++) {
            const Four<T> s = haar_block(L[j], H[j], V[j], D[j], factor);
            a[2 * j] = s.first, a[2 * j + 1] = s.second, c[2 * j] = s.third, c[2 * j + 1] = s.fourth;
        }
    } else {
        for (int64_t j = 0; j < pairs; j++) {
            for (int64_t k = 0; k < lanes; k++) {
                const int64_t at = j * bands[1].pitch + k;
                const Four<T> s = haar_block(bands[0].data[j * bands[0].pitch + k], bands[1].data[at],
                                             bands[2].data[at], bands[3].data[at], factor);
                T *a = top.data + 2 * j * top.pitch + k, *c = bottom.data + 2 * j * bottom.pitch + k;
                a[0] = s.first, a[top.pitch] = s.second, c[0] = s.third, c[bottom.pitch] = s.fourth;
            }
        }
    }
    if (width % 2 == 0) return;
    for (int64_t k = 0; k < lanes; k++) {
        const int64_t at = pairs * bands[1].pitch + k;
        const Four<T> s = haar_block(bands[0].data[pairs * bands[0].pitch + k], bands[1].data[at], bands[2].data[at],
                                     bands[3].data[at], factor);
        top.data[(width - 1) * top.pitch + k] = fold ? s.first + s.second : s.first;
        bottom.data[(width - 1) * bottom.pitch + k] = fold ? s.third + s.fourth : s.third;
    }
}

template <typename T>
LITEVAE_VECTOR_CLONES void add_row(Row<const T> row, int64_t width, int64_t lanes, Row<T> sum) {
    if (row.pitch == lanes && sum.pitch == lanes) lanes *= width, width = 1;  // one long loop the compiler vectorises
    for (int64_t j = 0; j < width; j++) {
        for (int64_t k = 0; k < lanes; k++) sum.data[j * sum.pitch + k] += row.data[j * row.pitch + k];
    }
}

template <typename T, typename Stored>
LITEVAE_VECTOR_CLONES void load_row(const Stored* source, int64_t pixel_stride, int64_t lane_stride, int64_t width,
                                    int64_t lanes, T* result) {
    if (pixel_stride == lanes && (lanes == 1 || lane_stride == 1)) lanes *= width, width = 1, lane_stride = 1;
    for (int64_t j = 0; j < width; j++) {
        for (int64_t k = 0; k < lanes; k++) {
            result[j * lanes + k] = load<T>(source[j * pixel_stride + k * lane_stride]);
        }
    }
}

template <typename T, typename Stored>
LITEVAE_VECTOR_CLONES void store_row(const T* source, int64_t width, int64_t lanes, int64_t pitch, Stored* result) {
    if (pitch == lanes) lanes *= width, width = 1;
    for (int64_t j = 0; j < width; j++) {
        for (int64_t k = 0; k < lanes; k++) store(source[j * lanes + k], result[j * pitch + k]);
    }
}

// ------------------------------------------------------------------------------------------------------- geometry

// Where plane `plane` of a dense tensor [B, copies * C, height, width] lies; copies is 4 for packed sub-bands.
struct Plane {
    int64_t start, band, row, pitch;  // in elements
};

struct Shape {
    int64_t batch, channels;
    bool channels_last;
    int levels;
    int64_t heights[kMaxLevels + 1], widths[kMaxLevels + 1];

    Shape(int64_t batch, int64_t channels, int64_t height, int64_t width, int levels, bool channels_last)
        : batch(batch), channels(channels), channels_last(channels_last), levels(levels) {
        for (int level = 0; level <= levels; level++) {
            heights[level] = height, widths[level] = width;
            height = (height + 1) / 2, width = (width + 1) / 2;
        }
    }
    int64_t planes() const { return channels_last ? batch : batch * channels; }
    int64_t lanes() const { return channels_last ? channels : 1; }
    Plane plane(int64_t index, int level, int64_t copies) const {
        const int64_t area = heights[level] * widths[level], all = copies * channels;
        if (channels_last) return {index * all * area, channels, widths[level] * all, all};
        const int64_t sample = index / channels, channel = index % channels;
        return {(sample * all + channel) * area, channels * area, widths[level], 1};
    }
    // Rows of the coarsest level that make one piece of work: enough pixels to be worth handing to a thread.
    int64_t coarse_rows_a_piece() const {
        const int64_t values = (widths[0] * lanes()) << std::min(levels, 20);
        return std::max<int64_t>(1, 65536 / std::max<int64_t>(1, values));
    }
    int64_t pieces() const { return (heights[levels] + coarse_rows_a_piece() - 1) / coarse_rows_a_piece(); }
};

template <typename T>
constexpr Dtype arithmetic_code() { return sizeof(T) == 8 ? Dtype::float64 : Dtype::float32; }

template <typename T>
class Scratch {  // rows of the arithmetic type, one after the other
   public:
    explicit Scratch(int64_t values) : values_(size_t(values)) {}
    T* take(int64_t values) {
        T* result = values_.data() + used_;
        used_ += values;
        return result;
    }

   private:
    std::vector<T> values_;
    int64_t used_ = 0;
};

// ------------------------------------------------------------------------------------------------------- analysis

template <typename T>
class Analysis {
   public:
    Analysis(const Shape& shape, const void* image, Dtype image_dtype, const int64_t* strides, void* const* pyramid,
             Dtype pyramid_dtype, T factor, bool transpose)
        : shape_(shape), image_(image), image_dtype_(image_dtype), strides_(strides), pyramid_(pyramid),
          pyramid_dtype_(pyramid_dtype), factor_(factor), transpose_(transpose), lanes_(shape.lanes()),
          scratch_(lanes_ * (2 * shape.widths[0] + 8 * shape.widths[1] + 4 * kMaxLevels)) {
        for (T*& row : image_rows_) row = scratch_.take(shape.widths[0] * lanes_);
        for (T*& row : band_rows_) row = scratch_.take(shape.widths[1] * lanes_);
        for (int level = 1; level <= shape.levels; level++) {
            for (T*& row : low_rows_[level]) row = scratch_.take(shape.widths[level] * lanes_);
        }
        zeros_ = {scratch_.take(lanes_), 0};  // pitch 0: every pixel of the row is this one
    }

    void run(int64_t plane, int64_t first_coarse_row, int64_t last_coarse_row) {
        const int64_t sample = shape_.channels_last ? plane : plane / shape_.channels;
        const int64_t channel = shape_.channels_last ? 0 : plane % shape_.channels;
        plane_ = plane;
        image_start_ = sample * strides_[0] + channel * strides_[1];
        const int shift = shape_.levels - 1;
        const int64_t last_row = std::min(shape_.heights[1], last_coarse_row << shift);
        for (int64_t row = first_coarse_row << shift; row < last_row; row++) {
            const Row<const T> top = image_row(2 * row, image_rows_[0]);
            const bool inside = 2 * row + 1 < shape_.heights[0];
            level_row(1, row, top, inside ? image_row(2 * row + 1, image_rows_[1]) : past_the_edge(top));
        }
    }

   private:
    Row<const T> past_the_edge(Row<const T> last) const {
        return transpose_ ? Row<const T>{zeros_.data, zeros_.pitch} : last;
    }

    Row<const T> image_row(int64_t row, T* scratch) const {
        const int64_t start = image_start_ + row * strides_[2];
        if (image_dtype_ == arithmetic_code<T>() && (lanes_ == 1 || strides_[1] == 1)) {
            return {static_cast<const T*>(image_) + start, strides_[3]};
        }
        with_type(image_, image_dtype_, [&](auto* image) {
            load_row(image + start, strides_[3], strides_[1], shape_.widths[0], lanes_, scratch);
        });
        return {scratch, lanes_};
    }

    // Row `row` of level `level` from two rows of the level before; then on to the next level where that is ready.
    void level_row(int level, int64_t row, Row<const T> top, Row<const T> bottom) {
        const bool last_level = level == shape_.levels, hides_low = transpose_ && !last_level;
        const bool in_place = pyramid_dtype_ == arithmetic_code<T>();
        const Plane place = shape_.plane(plane_, level, 4);
        const int64_t start = place.start + row * place.row;
        Row<T> bands[4];
        for (int band = 0; band < 4; band++) {
            bands[band] = {band_rows_[band], lanes_};
            if (in_place) bands[band] = {static_cast<T*>(pyramid_[level - 1]) + start + band * place.band, place.pitch};
        }
        if (!in_place || hides_low) bands[0] = {low_rows_[level][row % 2], lanes_};
        analyse_row<T>(top, bottom, shape_.widths[level - 1], lanes_, factor_, transpose_, bands);
        for (int band = 0; band < 4; band++) {
            const bool is_zero = band == 0 && hides_low;
            if (!in_place || is_zero) store_band(level, start + band * place.band, is_zero ? nullptr : bands[band].data);
        }
        if (last_level) return;
        const Row<const T> low{bands[0].data, bands[0].pitch};
        const bool last_row = row == shape_.heights[level] - 1;
        if (row % 2 == 1) {
            level_row(level + 1, row / 2, waiting_[level], low);
        } else if (last_row) {
            level_row(level + 1, row / 2, low, past_the_edge(low));
        } else {
            waiting_[level] = low;
        }
    }

    void store_band(int level, int64_t start, const T* row) const {
        const int64_t width = shape_.widths[level], pitch = shape_.plane(plane_, level, 4).pitch;
        with_type(pyramid_[level - 1], pyramid_dtype_, [&](auto* packed) {
            for (int64_t j = 0; j < width && row == nullptr; j++) {
                for (int64_t k = 0; k < lanes_; k++) store(T(0), packed[start + j * pitch + k]);
            }
            if (row != nullptr) store_row(row, width, lanes_, pitch, packed + start);
        });
    }

    const Shape& shape_;
    const void* image_;
    Dtype image_dtype_;
    const int64_t* strides_;
    void* const* pyramid_;
    Dtype pyramid_dtype_;
    T factor_;
    bool transpose_;
    int64_t lanes_, plane_ = 0, image_start_ = 0;
    Scratch<T> scratch_;
    T *image_rows_[2], *band_rows_[4], *low_rows_[kMaxLevels + 1][2];
    Row<const T> zeros_;
    Row<const T> waiting_[kMaxLevels + 1];  // the even row of each level, until its odd neighbour comes
};

// ------------------------------------------------------------------------------------------------------ synthesis

template <typename T>
class Synthesis {
   public:
    Synthesis(const Shape& shape, const void* const* pyramid, Dtype pyramid_dtype, void* image, Dtype image_dtype,
              T factor, bool transpose)
        : shape_(shape), pyramid_(pyramid), pyramid_dtype_(pyramid_dtype), image_(image), image_dtype_(image_dtype),
          factor_(factor), transpose_(transpose), lanes_(shape.lanes()),
          scratch_(lanes_ * (4 * shape.widths[0] + 12 * shape.widths[1] + 16 * kMaxLevels)) {
        for (int level = 0; level <= shape.levels; level++) {
            for (T*& row : rows_[level]) row = scratch_.take(shape.widths[level] * lanes_);
            for (int band = 0; band < 4 && level > 0; band++) {
                band_rows_[level][band] = scratch_.take(shape.widths[level] * lanes_);
            }
        }
    }

    void run(int64_t plane, int64_t first_coarse_row, int64_t last_coarse_row) {
        plane_ = plane;
        for (int64_t row = first_coarse_row; row < last_coarse_row; row++) {
            level_row(shape_.levels, row, band_row(shape_.levels, row, 0));
        }
    }

   private:
    Row<const T> band_row(int level, int64_t row, int band) const {
        const Plane place = shape_.plane(plane_, level, 4);
        const int64_t start = place.start + row * place.row + band * place.band;
        const void* packed = pyramid_[level - 1];
        if (pyramid_dtype_ == arithmetic_code<T>()) return {static_cast<const T*>(packed) + start, place.pitch};
        T* result = band_rows_[level][band];
        with_type(packed, pyramid_dtype_, [&](auto* stored) {
            load_row(stored + start, place.pitch, 1, shape_.widths[level], lanes_, result);
        });
        return {result, lanes_};
    }

    // Two rows of the level before from row `row` of `level`, and everything below them down to the image.
    void level_row(int level, int64_t row, Row<const T> low) {
        const int64_t height = shape_.heights[level - 1], width = shape_.widths[level - 1];
        const Row<const T> bands[4] = {low, band_row(level, row, 1), band_row(level, row, 2), band_row(level, row, 3)};
        const bool inside = 2 * row + 1 < height;
        const Row<T> top = result_row(level - 1, 2 * row, 0, true), bottom = result_row(level - 1, 2 * row + 1, 1, inside);
        synthesise_row<T>(bands, width, lanes_, factor_, transpose_, top, bottom);
        if (!inside && transpose_) add_row<T>({bottom.data, bottom.pitch}, width, lanes_, top);
        finish_row(level - 1, 2 * row, top);
        if (inside) finish_row(level - 1, 2 * row + 1, bottom);
    }

    // Where a row is made: in the image itself if that has the arithmetic's type, else in scratch.
    Row<T> result_row(int level, int64_t row, int parity, bool inside) const {
        if (level > 0 || !inside || image_dtype_ != arithmetic_code<T>()) return {rows_[level][parity], lanes_};
        const Plane place = shape_.plane(plane_, 0, 1);
        return {static_cast<T*>(image_) + place.start + row * place.row, place.pitch};
    }

    void finish_row(int level, int64_t row, Row<T> made) {
        if (level > 0) {
            if (transpose_) add_row<T>(band_row(level, row, 0), shape_.widths[level], lanes_, made);
            level_row(level, row, {made.data, made.pitch});
        } else if (image_dtype_ != arithmetic_code<T>()) {
            const Plane place = shape_.plane(plane_, 0, 1);
            with_type(image_, image_dtype_, [&](auto* image) {
                store_row(made.data, shape_.widths[0], lanes_, place.pitch, image + place.start + row * place.row);
            });
        }
    }

    const Shape& shape_;
    const void* const* pyramid_;
    Dtype pyramid_dtype_;
    void* image_;
    Dtype image_dtype_;
    T factor_;
    bool transpose_;
    int64_t lanes_, plane_ = 0;
    Scratch<T> scratch_;
    T *rows_[kMaxLevels + 1][2], *band_rows_[kMaxLevels + 1][4];
};

// Hands every piece of every plane to a walker; each thread has one of its own.
template <typename MakeWalker>
void walk(const Shape& shape, int threads, const MakeWalker& make_walker) {
    const int64_t pieces = shape.pieces(), rows = shape.coarse_rows_a_piece(), coarse_height = shape.heights[shape.levels];
    parallel_for(shape.planes() * pieces, threads, [&](int64_t first, int64_t last) {
        auto walker = make_walker();
        for (int64_t item = first; item < last; item++) {
            const int64_t row = item % pieces * rows;
            walker.run(item / pieces, row, std::min(row + rows, coarse_height));
        }
    });
}

bool in_double(int image_dtype, int pyramid_dtype) {
    return Dtype(image_dtype) == Dtype::float64 || Dtype(pyramid_dtype) == Dtype::float64;
}

}  // namespace
}  // namespace litevae

// ---------------------------------------------------------------------------------------------------- C interface

// sizes: batch, channels, height, width of the image. strides: of the image, in elements. pyramid: `levels` dense
// tensors, finest first, channels_last or NCHW. transpose: compute the gradient of the other function instead.
LITEVAE_EXPORT void litevae_haar_analysis(const void* image, int image_dtype, const int64_t* strides, void* const* pyramid,
                                      int pyramid_dtype, const int64_t* sizes, int levels, int channels_last,
                                      double factor, int transpose, int threads) {
    using namespace litevae;
    const Shape shape(sizes[0], sizes[1], sizes[2], sizes[3], levels, channels_last != 0);
    const auto run = [&](auto arithmetic) {
        using T = decltype(arithmetic);
        walk(shape, threads, [&] {
            return Analysis<T>(shape, image, Dtype(image_dtype), strides, pyramid, Dtype(pyramid_dtype), T(factor),
                               transpose != 0);
        });
    };
    in_double(image_dtype, pyramid_dtype) ? run(double()) : run(float());
}

// The image is dense, in the pyramid's memory format.
LITEVAE_EXPORT void litevae_haar_synthesis(const void* const* pyramid, int pyramid_dtype, void* image, int image_dtype,
                                       const int64_t* sizes, int levels, int channels_last, double factor,
                                       int transpose, int threads) {
    using namespace litevae;
    const Shape shape(sizes[0], sizes[1], sizes[2], sizes[3], levels, channels_last != 0);
    const auto run = [&](auto arithmetic) {
        using T = decltype(arithmetic);
        walk(shape, threads, [&] {
            return Synthesis<T>(shape, pyramid, Dtype(pyramid_dtype), image, Dtype(image_dtype), T(factor),
                                transpose != 0);
        });
    };
    in_double(image_dtype, pyramid_dtype) ? run(double()) : run(float());
}

LITEVAE_EXPORT int litevae_native_openmp() {
#if defined(_OPENMP)
    return 1;
#else
    return 0;
#endif
}
