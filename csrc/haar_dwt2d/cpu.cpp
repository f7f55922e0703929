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
#include "../vectors.h"
#include "tile.h"

namespace litevae {
namespace {

constexpr int kMaxLevels = 16;
constexpr int64_t kStreamBytes = 16 << 20;  // results above this have left the caches before anyone reads them

template <typename T>
struct Row {
    T* data;
    int64_t pitch;  // elements from one pixel to the next
};

// ---------------------------------------------------------------------------------------------- rows of 2x2 blocks

// The inner loops, where every row is contiguous: pairs of columns in, one column a sub-band out, or back.
inline uintptr_t address(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

// Where a row of sub-bands goes. `kept` takes L a second time, densely, for the next level: it stays in the cache.
template <typename T>
struct BandRows {
    T *kept, *L, *H, *V, *D;
    int64_t pitch;  // of L H V D
    bool aligned(int bytes) const { return (address(L) | address(H) | address(V) | address(D)) % uintptr_t(bytes) == 0; }
};

template <typename T>
struct AnalysePairs {
    template <int Bytes>
    static LITEVAE_INLINE void run(const T* top, const T* bottom, int64_t pairs, T factor, bool stream, BandRows<T> to) {
        int64_t done;
        if (stream && to.aligned(Bytes)) {
            done = run_vectors<Bytes, true>(top, bottom, pairs, factor, to);
        } else {
            done = run_vectors<Bytes, false>(top, bottom, pairs, factor, to);
        }
        for (int64_t j = done; j < pairs; j++) {
            const Four<T> s = haar_block(top[2 * j], top[2 * j + 1], bottom[2 * j], bottom[2 * j + 1], factor);
            to.kept[j] = to.L[j] = s.first, to.H[j] = s.second, to.V[j] = s.third, to.D[j] = s.fourth;
        }
    }

    template <int Bytes, bool kStream>
    static LITEVAE_INLINE int64_t run_vectors(const T* top, const T* bottom, int64_t pairs, T factor, BandRows<T> to) {
        using Values = Vector<T, Bytes>;
        constexpr int lanes = Values::kLanes;
        const std::make_integer_sequence<int, lanes> all{};
        // The rows read next lie this far on, if these two are rows of an image; a wrong guess costs nothing.
        const uintptr_t two_rows = 2 * (address(bottom) - address(top));
        int64_t j = 0;
#pragma GCC unroll 4
        for (; j + lanes <= pairs; j += lanes, top += 2 * lanes, bottom += 2 * lanes) {
            for (const T* row : {top, bottom}) {
                __builtin_prefetch(reinterpret_cast<const void*>(address(row) + two_rows));
                __builtin_prefetch(reinterpret_cast<const void*>(address(row) + two_rows + Bytes));
            }
            const Values top0 = Values::load(top), top1 = Values::load(top + lanes);
            const Values bottom0 = Values::load(bottom), bottom1 = Values::load(bottom + lanes);
            const Values sum0 = top0 + bottom0, sum1 = top1 + bottom1;  // rows first: half the shuffles
            const Values step0 = top0 - bottom0, step1 = top1 - bottom1;
            const Values left_sum = firsts(sum0, sum1, all), right_sum = seconds(sum0, sum1, all);
            const Values left_step = firsts(step0, step1, all), right_step = seconds(step0, step1, all);
            const Values low = factor * (left_sum + right_sum);
            low.store(to.kept + j);
            low.template put<kStream>(to.L + j);
            (factor * (left_step + right_step)).template put<kStream>(to.H + j);
            (factor * (left_sum - right_sum)).template put<kStream>(to.V + j);
            (factor * (left_step - right_step)).template put<kStream>(to.D + j);
        }
        return j;
    }
};

template <typename T>
struct SynthesisePairs {
    template <int Bytes>
    static LITEVAE_INLINE void run(const T* L, const T* H, const T* V, const T* D, int64_t pairs, T factor, bool stream,
                                   T* top, T* bottom) {
        int64_t done;
        if (stream && (address(top) | address(bottom)) % Bytes == 0) {
            done = run_vectors<Bytes, true>(L, H, V, D, pairs, factor, top, bottom);
        } else {
            done = run_vectors<Bytes, false>(L, H, V, D, pairs, factor, top, bottom);
        }
        for (int64_t j = done; j < pairs; j++) {
            const Four<T> s = haar_block(L[j], H[j], V[j], D[j], factor);
            top[2 * j] = s.first, top[2 * j + 1] = s.second, bottom[2 * j] = s.third, bottom[2 * j + 1] = s.fourth;
        }
    }

    template <int Bytes, bool kStream>
    static LITEVAE_INLINE int64_t run_vectors(const T* L, const T* H, const T* V, const T* D, int64_t pairs, T factor,
                                              T* top, T* bottom) {
        using Values = Vector<T, Bytes>;
        constexpr int lanes = Values::kLanes;
        const std::make_integer_sequence<int, lanes> all{};
        int64_t j = 0;
        for (; j + lanes <= pairs; j += lanes, top += 2 * lanes, bottom += 2 * lanes) {
            const Values l = Values::load(L + j), h = Values::load(H + j), v = Values::load(V + j), d = Values::load(D + j);
            const Values a = factor * ((l + h) + (v + d)), b = factor * ((l + h) - (v + d));
            const Values c = factor * ((l - h) + (v - d)), e = factor * ((l - h) - (v - d));
            first_pairs(a, b, all).template put<kStream>(top);
            last_pairs(a, b, all).template put<kStream>(top + lanes);
            first_pairs(c, e, all).template put<kStream>(bottom);
            last_pairs(c, e, all).template put<kStream>(bottom + lanes);
        }
        return j;
    }
};

// Two rows of `width` pixels -> one row of ceil(width / 2) pixels for each sub-band.
template <typename T>
void analyse_row(Row<const T> top, Row<const T> bottom, int64_t width, int64_t lanes, T factor,
                                       bool zero_edge, bool stream, BandRows<T> to) {
    const int64_t pairs = width / 2;
    const auto put = [&](int64_t at, int64_t kept_at, Four<T> s) {
        to.kept[kept_at] = to.L[at] = s.first, to.H[at] = s.second, to.V[at] = s.third, to.D[at] = s.fourth;
    };
    if (lanes == 1 && top.pitch == 1 && bottom.pitch == 1 && to.pitch == 1) {
        dispatch<AnalysePairs<T>>(top.data, bottom.data, pairs, factor, stream, to);
    } else {
        for (int64_t j = 0; j < pairs; j++) {
            const T *a = top.data + 2 * j * top.pitch, *c = bottom.data + 2 * j * bottom.pitch;
            for (int64_t k = 0; k < lanes; k++) {
                put(j * to.pitch + k, j * lanes + k,
                    haar_block(a[k], a[top.pitch + k], c[k], c[bottom.pitch + k], factor));
            }
        }
    }
    if (width % 2 == 0) return;
    for (int64_t k = 0; k < lanes; k++) {
        const T a = top.data[(width - 1) * top.pitch + k], c = bottom.data[(width - 1) * bottom.pitch + k];
        put(pairs * to.pitch + k, pairs * lanes + k,
            haar_block(a, zero_edge ? T(0) : a, c, zero_edge ? T(0) : c, factor));
    }
}

// One row of each sub-band -> two rows of `width` pixels; `fold` adds the pixel past an odd width to the last one.
template <typename T>
void synthesise_row(const Row<const T>* bands, int64_t width, int64_t lanes, T factor, bool fold,
                                          bool stream, Row<T> top, Row<T> bottom) {
    const int64_t pairs = width / 2;
    const bool unit = bands[0].pitch == 1 && bands[1].pitch == 1 && top.pitch == 1 && bottom.pitch == 1;
    if (lanes == 1 && unit) {
        dispatch<SynthesisePairs<T>>(bands[0].data, bands[1].data, bands[2].data, bands[3].data, pairs, factor,
                                     stream, top.data, bottom.data);
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
    int64_t values() const { return batch * channels * heights[0] * widths[0]; }
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
          pyramid_dtype_(pyramid_dtype), factor_(factor), transpose_(transpose),
          stream_(shape.values() * size_of(pyramid_dtype) >= kStreamBytes), lanes_(shape.lanes()),
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
        for (int level = 1; level <= shape_.levels; level++) places_[level] = shape_.plane(plane, level, 4);
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
        const bool direct = pyramid_dtype_ == arithmetic_code<T>() && !hides_low;
        const Plane& place = places_[level];
        const int64_t start = place.start + row * place.row, width = shape_.widths[level];
        T* bands[4];
        for (int band = 0; band < 4; band++) {
            bands[band] = direct ? static_cast<T*>(pyramid_[level - 1]) + start + band * place.band : band_rows_[band];
        }
        T* kept = low_rows_[level][row % 2];
        analyse_row<T>(top, bottom, shape_.widths[level - 1], lanes_, factor_, transpose_, stream_ && direct,
                       {kept, bands[0], bands[1], bands[2], bands[3], direct ? place.pitch : lanes_});
        if (hides_low) std::fill_n(bands[0], width * lanes_, T(0));
        for (int band = 0; band < 4 && !direct; band++) {
            with_type(pyramid_[level - 1], pyramid_dtype_, [&](auto* packed) {
                store_row(bands[band], width, lanes_, place.pitch, packed + start + band * place.band);
            });
        }
        if (last_level) return;
        const Row<const T> low{kept, lanes_};
        const bool last_row = row == shape_.heights[level] - 1;
        if (row % 2 == 1) {
            level_row(level + 1, row / 2, waiting_[level], low);
        } else if (last_row) {
            level_row(level + 1, row / 2, low, past_the_edge(low));
        } else {
            waiting_[level] = low;
        }
    }

    const Shape& shape_;
    const void* image_;
    Dtype image_dtype_;
    const int64_t* strides_;
    void* const* pyramid_;
    Dtype pyramid_dtype_;
    T factor_;
    bool transpose_, stream_;
    int64_t lanes_, image_start_ = 0;
    Plane places_[kMaxLevels + 1];
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
          factor_(factor), transpose_(transpose),
          stream_(image_dtype == arithmetic_code<T>() && shape.values() * size_of(image_dtype) >= kStreamBytes),
          lanes_(shape.lanes()), scratch_(lanes_ * (4 * shape.widths[0] + 12 * shape.widths[1] + 16 * kMaxLevels)) {
        for (int level = 0; level <= shape.levels; level++) {
            for (T*& row : rows_[level]) row = scratch_.take(shape.widths[level] * lanes_);
            for (int band = 0; band < 4 && level > 0; band++) {
                band_rows_[level][band] = scratch_.take(shape.widths[level] * lanes_);
            }
        }
    }

    void run(int64_t plane, int64_t first_coarse_row, int64_t last_coarse_row) {
        image_place_ = shape_.plane(plane, 0, 1);
        for (int level = 1; level <= shape_.levels; level++) places_[level] = shape_.plane(plane, level, 4);
        for (int64_t row = first_coarse_row; row < last_coarse_row; row++) {
            level_row(shape_.levels, row, band_row(shape_.levels, row, 0));
        }
    }

   private:
    Row<const T> band_row(int level, int64_t row, int band) const {
        const Plane& place = places_[level];
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
        synthesise_row<T>(bands, width, lanes_, factor_, transpose_, stream_ && level == 1 && inside, top, bottom);
        if (!inside && transpose_) add_row<T>({bottom.data, bottom.pitch}, width, lanes_, top);
        finish_row(level - 1, 2 * row, top);
        if (inside) finish_row(level - 1, 2 * row + 1, bottom);
    }

    // Where a row is made: in the image itself if that has the arithmetic's type, else in scratch.
    Row<T> result_row(int level, int64_t row, int parity, bool inside) const {
        if (level > 0 || !inside || image_dtype_ != arithmetic_code<T>()) return {rows_[level][parity], lanes_};
        return {static_cast<T*>(image_) + image_place_.start + row * image_place_.row, image_place_.pitch};
    }

    void finish_row(int level, int64_t row, Row<T> made) {
        if (level > 0) {
            if (transpose_) add_row<T>(band_row(level, row, 0), shape_.widths[level], lanes_, made);
            level_row(level, row, {made.data, made.pitch});
        } else if (image_dtype_ != arithmetic_code<T>()) {
            const int64_t start = image_place_.start + row * image_place_.row;
            with_type(image_, image_dtype_, [&](auto* image) {
                store_row(made.data, shape_.widths[0], lanes_, image_place_.pitch, image + start);
            });
        }
    }

    const Shape& shape_;
    const void* const* pyramid_;
    Dtype pyramid_dtype_;
    void* image_;
    Dtype image_dtype_;
    T factor_;
    bool transpose_, stream_;
    int64_t lanes_;
    Plane image_place_, places_[kMaxLevels + 1];
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
        finish_streaming();
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
