// How does the CPU compute the multi-level Haar transform and its inverse?
//
// Both walk the pyramid depth first, row by row: as soon as two rows of one level exist, the row of the next level
// (or, for the inverse, of the image) is made from them while they are in the L1 cache. So the image is read once,
// every level is written once, and the scratch is a few rows. A plane is one channel of one sample in NCHW
// (a pixel is 1 value) and one sample in channels_last (a pixel is C values).
#include "../cpu_threads.h"
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

// What both functions take. sizes: batch, channels, height, width of the image. strides: its own, in elements; a
// channels_last image is dense, and so is one that is written. After the struct come the addresses of `levels` dense
// tensors, the pyramid, finest first, in the image's memory format. Both have dtype float64, or neither.
// transpose: compute the gradient of the other function instead.
struct HaarArguments {
    void* image;
    int64_t image_dtype, pyramid_dtype, sizes[4], strides[4], levels, channels_last, transpose, threads;
    double factor;
    void* const* pyramid() const { return reinterpret_cast<void* const*>(this + 1); }
};

LITEVAE_EXPORT void litevae_haar_analysis(const HaarArguments* arguments) {
    using namespace litevae;
    const HaarArguments& a = *arguments;
    const Shape shape(a.sizes, int(a.levels), a.channels_last != 0);
    const auto run = [&](auto arithmetic, auto pixel, auto packed) {
        using T = decltype(arithmetic);
        using Image = decltype(pixel);
        const auto walk_in = [&](auto last) {
            walk(shape, int(a.threads), [&] {
                return Analysis<T, Image, decltype(packed), last>(shape, static_cast<const Image*>(a.image), a.strides,
                                                                  a.pyramid(), T(a.factor), a.transpose != 0);
            });
        };
        a.channels_last ? walk_in(std::true_type()) : walk_in(std::false_type());
    };
    if (Dtype(a.image_dtype) == Dtype::float64) return run(double(), double(), double());
    with_single_or_half(Dtype(a.pyramid_dtype), [&](auto packed) {
        if (Dtype(a.image_dtype) == Dtype::uint8) return run(float(), uint8_t(), packed);
        with_single_or_half(Dtype(a.image_dtype), [&](auto pixel) { run(float(), pixel, packed); });
    });
}

LITEVAE_EXPORT void litevae_haar_synthesis(const HaarArguments* arguments) {
    using namespace litevae;
    const HaarArguments& a = *arguments;
    const Shape shape(a.sizes, int(a.levels), a.channels_last != 0);
    const auto run = [&](auto arithmetic, auto packed, auto pixel) {
        using T = decltype(arithmetic);
        using Image = decltype(pixel);
        const auto walk_in = [&](auto last) {
            walk(shape, int(a.threads), [&] {
                return Synthesis<T, decltype(packed), Image, last>(shape, a.pyramid(), static_cast<Image*>(a.image),
                                                                   T(a.factor), a.transpose != 0);
            });
        };
        a.channels_last ? walk_in(std::true_type()) : walk_in(std::false_type());
    };
    if (Dtype(a.pyramid_dtype) == Dtype::float64) return run(double(), double(), double());
    with_single_or_half(Dtype(a.pyramid_dtype), [&](auto packed) {
        with_single_or_half(Dtype(a.image_dtype), [&](auto pixel) { run(float(), packed, pixel); });
    });
}
