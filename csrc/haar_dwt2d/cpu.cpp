// How does the CPU compute the multi-level Haar transform and its inverse?
//
// Both walk the pyramid depth first, row by row: as soon as two rows of one level exist, the row of the next level
// (or, for the inverse, of the image) is made from them while they are in the L1 cache. So the image is read once,
// every level is written once, and the scratch is a few rows. A plane is one channel of one sample in NCHW
// (a pixel is 1 value) and one sample in channels_last (a pixel is C values).
#include "../parallel.h"
#include "cpu_analysis.h"
#include "cpu_synthesis.h"

namespace litevae {
namespace {

// Hands every piece of every plane to a walker; each thread has one of its own.
template <typename MakeWalker>
void walk(const Shape& shape, int threads, const MakeWalker& make_walker) {
    const int64_t pieces = shape.pieces(), rows = shape.coarse_rows_a_piece();
    const int64_t coarse_height = shape.heights[shape.levels];
    parallel_for(shape.planes() * pieces, threads, [&](int64_t first, int64_t last) {
        auto walker = make_walker();
        for (int64_t item = first; item < last; item++) {
            const int64_t row = item % pieces * rows;
            walker.run(item / pieces, row, std::min(row + rows, coarse_height));
        }
        finish_streaming();
    });
}

// Calls body(T()) for a dtype that goes with arithmetic in float.
template <typename Body>
void with_single_or_half(Dtype dtype, const Body& body) {
    if (dtype == Dtype::float16) return body(float16());
    if (dtype == Dtype::bfloat16) return body(bfloat16());
    body(float());
}

}  // namespace
}  // namespace litevae

// ---------------------------------------------------------------------------------------------------- C interface

// sizes: batch, channels, height, width of the image. strides: of the image, in elements; a channels_last image is
// dense. pyramid: `levels` dense tensors, finest first, channels_last or NCHW. Both have dtype float64, or neither.
// transpose: compute the gradient of the other function instead.
LITEVAE_EXPORT void litevae_haar_analysis(const void* image, int image_dtype, const int64_t* strides,
                                          void* const* pyramid, int pyramid_dtype, const int64_t* sizes, int levels,
                                          int channels_last, double factor, int transpose, int threads) {
    using namespace litevae;
    const Shape shape(sizes, levels, channels_last != 0);
    const auto run = [&](auto arithmetic, auto pixel, auto packed) {
        using T = decltype(arithmetic);
        using Image = decltype(pixel);
        const auto* pixels = static_cast<const Image*>(image);
        const auto walk_in = [&](auto last) {
            walk(shape, threads, [&] {
                return Analysis<T, Image, decltype(packed), last>(shape, pixels, strides, pyramid, T(factor),
                                                                  transpose != 0);
            });
        };
        channels_last ? walk_in(std::true_type()) : walk_in(std::false_type());
    };
    if (Dtype(image_dtype) == Dtype::float64) return run(double(), double(), double());
    with_single_or_half(Dtype(pyramid_dtype), [&](auto packed) {
        if (Dtype(image_dtype) == Dtype::uint8) return run(float(), uint8_t(), packed);
        with_single_or_half(Dtype(image_dtype), [&](auto pixel) { run(float(), pixel, packed); });
    });
}

// The image is dense, in the pyramid's memory format. Both have dtype float64, or neither.
LITEVAE_EXPORT void litevae_haar_synthesis(const void* const* pyramid, int pyramid_dtype, void* image, int image_dtype,
                                           const int64_t* sizes, int levels, int channels_last, double factor,
                                           int transpose, int threads) {
    using namespace litevae;
    const Shape shape(sizes, levels, channels_last != 0);
    const auto run = [&](auto arithmetic, auto packed, auto pixel) {
        using T = decltype(arithmetic);
        using Image = decltype(pixel);
        auto* pixels = static_cast<Image*>(image);
        const auto walk_in = [&](auto last) {
            walk(shape, threads, [&] {
                return Synthesis<T, decltype(packed), Image, last>(shape, pyramid, pixels, T(factor), transpose != 0);
            });
        };
        channels_last ? walk_in(std::true_type()) : walk_in(std::false_type());
    };
    if (Dtype(pyramid_dtype) == Dtype::float64) return run(double(), double(), double());
    with_single_or_half(Dtype(pyramid_dtype), [&](auto packed) {
        with_single_or_half(Dtype(image_dtype), [&](auto pixel) { run(float(), packed, pixel); });
    });
}

LITEVAE_EXPORT int litevae_native_openmp() {
#if defined(_OPENMP)
    return 1;
#else
    return 0;
#endif
}
