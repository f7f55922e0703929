// The multi-level Haar transform and its inverse on the CPU.
//
// Read first: litevae_haar_analysis at the end, then Analysis in cpu_analysis.h. Both directions go through the levels
// depth first, row by row: as soon as two rows of one level exist, the row of the next level (for the inverse: two rows
// of the finer level) is computed from them while they are in the L1 cache. So the image is read once, every level is
// written once, and the scratch memory is a few rows. A plane is one channel of one sample in NCHW (a pixel is one
// value) and one sample in channels_last (a pixel is C values).
#include "../cpu_threads.h"
#include "cpu_analysis.h"
#include "cpu_synthesis.h"

namespace litevae {
namespace {

// Runs an Analysis or Synthesis, of which every thread makes its own, on all pieces of all planes.
template <typename MakeTransform>
void run_pieces(const PyramidShape& shape, int threads, const MakeTransform& make_transform) {
    const int64_t pieces = shape.pieces(), rows = shape.coarse_rows_per_piece();
    const int64_t coarse_height = shape.heights[shape.levels];
    parallel_for(shape.planes() * pieces, threads, [&](int64_t first, int64_t last) {
        auto transform = make_transform();
        for (int64_t item = first; item < last; item++) {
            const int64_t row = item % pieces * rows;
            transform.run(item / pieces, row, std::min(row + rows, coarse_height));
        }
        finish_streaming();
    });
}

// Calls body(T()) for the type T of a dtype whose arithmetic is in float.
template <typename Body>
void with_single_or_half(Dtype dtype, const Body& body) {
    if (dtype == Dtype::float16) return body(float16());
    if (dtype == Dtype::bfloat16) return body(bfloat16());
    body(float());
}

}  // namespace
}  // namespace litevae

// ---------------------------------------------------------------------------------------------------- C interface

// The argument of both functions. sizes: batch, channels, height and width of the image. strides: the image's, in
// elements: any for one that is read; one that is written must be dense. transpose: compute the gradient of the other
// function instead. The struct is followed by the addresses of `levels` dense tensors, the pyramid, finest first.
// channels_last: the pyramid's memory format, and that of an image that is written. Either both dtypes are float64 or
// neither is.
struct HaarArguments {
    void* image;
    int64_t image_dtype, pyramid_dtype, sizes[4], strides[4], levels, channels_last, transpose, threads;
    double factor;
    void* const* pyramid() const { return reinterpret_cast<void* const*>(this + 1); }
};

LITEVAE_EXPORT void litevae_haar_analysis(const HaarArguments* arguments) {
    using namespace litevae;
    const HaarArguments& a = *arguments;
    const PyramidShape shape(a.sizes, int(a.levels), a.channels_last != 0);
    const auto run = [&](auto arithmetic, auto pixel, auto packed) {
        using T = decltype(arithmetic);
        using Image = decltype(pixel);
        const auto run_in_format = [&](auto channels_last) {
            run_pieces(shape, int(a.threads), [&] {
                return Analysis<T, Image, decltype(packed), channels_last>(
                    shape, static_cast<const Image*>(a.image), a.strides, a.pyramid(), T(a.factor), a.transpose != 0);
            });
        };
        a.channels_last ? run_in_format(std::true_type()) : run_in_format(std::false_type());
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
    const PyramidShape shape(a.sizes, int(a.levels), a.channels_last != 0);
    const auto run = [&](auto arithmetic, auto packed, auto pixel) {
        using T = decltype(arithmetic);
        using Image = decltype(pixel);
        const auto run_in_format = [&](auto channels_last) {
            run_pieces(shape, int(a.threads), [&] {
                return Synthesis<T, decltype(packed), Image, channels_last>(
                    shape, a.pyramid(), static_cast<Image*>(a.image), T(a.factor), a.transpose != 0);
            });
        };
        a.channels_last ? run_in_format(std::true_type()) : run_in_format(std::false_type());
    };
    if (Dtype(a.pyramid_dtype) == Dtype::float64) return run(double(), double(), double());
    with_single_or_half(Dtype(a.pyramid_dtype), [&](auto packed) {
        with_single_or_half(Dtype(a.image_dtype), [&](auto pixel) { run(float(), packed, pixel); });
    });
}
