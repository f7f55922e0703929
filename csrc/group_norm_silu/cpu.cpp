// How does the CPU compute GroupNorm then SiLU of one or two tensors, and its gradients?
//
// A unit is what has its statistics in common: a group of a sample in NCHW, where it is contiguous, and a sample in
// channels_last. It is cut into pieces that fit the cache. All pieces are summed up, then all are written; a thread
// does both for one unit after the other, so that what it read is still in its cache. Units that do not share out
// evenly are worked on by all threads together. The pieces and the order of their sums depend on the shape alone.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "../parallel.h"
#include "kernels.h"

// x, skip, grad and the results have one dtype and are dense, all NCHW or all channels_last. weight, bias and the
// gradients of them [C], mean and rstd [B, G] are float64 if x is, else float32. skip, weight and bias may be null.
struct GroupNormArguments {
    const void *x, *skip, *weight, *bias;
    void *mean, *rstd, *result;  // result: y, or the gradient of x
    const void* grad;            // the rest of the pointers: of the backward alone
    void *skip_grad, *weight_grad, *bias_grad;
    int64_t dtype, channels_last, sizes[5], threads;  // sizes: batch, channels of x and of skip, groups, pixels
    double eps;
};

namespace litevae {
namespace {

constexpr int64_t kPiece = 32768;  // elements
constexpr int64_t kFirst = 4096;   // elements of a piece whose mean is the shift of its sums

struct Piece {
    int64_t sample, channel, channels, pixel, pixels;  // the first ones, and how many
};

struct Shape {
    int64_t batch, x_channels, skip_channels, groups, pixels;
    bool channels_last;
    int64_t bands, band, splits, split;  // a unit is cut into `bands` of channels times `splits` of pixels

    Shape(const int64_t* sizes, bool channels_last)
        : batch(sizes[0]), x_channels(sizes[1]), skip_channels(sizes[2]), groups(sizes[3]), pixels(sizes[4]),
          channels_last(channels_last) {
        const int64_t pixel = channels_last ? channels() : 1;  // elements that a piece takes of one
        band = channels_last ? channels() : std::clamp<int64_t>(kPiece / pixels, 1, unit_channels());
        split = std::min(pixels, std::max<int64_t>(1, kPiece / pixel));
        bands = (unit_channels() + band - 1) / band, splits = (pixels + split - 1) / split;
    }
    int64_t channels() const { return x_channels + skip_channels; }
    int64_t group_channels() const { return channels() / groups; }
    int64_t group_size() const { return group_channels() * pixels; }
    int64_t units() const { return channels_last ? batch : batch * groups; }
    int64_t unit_groups() const { return channels_last ? groups : 1; }
    int64_t unit_channels() const { return unit_groups() * group_channels(); }
    int64_t pieces() const { return bands * splits; }
    int64_t sample_of(int64_t unit) const { return channels_last ? unit : unit / groups; }
    int64_t first_group_of(int64_t unit) const { return channels_last ? 0 : unit % groups; }
    int64_t first_channel_of(int64_t unit) const { return first_group_of(unit) * group_channels(); }

    Piece piece(int64_t unit, int64_t index) const {
        const int64_t channel = index / splits * band, pixel = index % splits * split;
        return {sample_of(unit), first_channel_of(unit) + channel, std::min(band, unit_channels() - channel), pixel,
                std::min(split, pixels - pixel)};
    }
};

// A dense tensor of some of the channels: from `first` on, `channels` of them.
template <typename Stored>
struct Tensor {
    Stored* data;
    int64_t first, channels;

    // The channels from `channel` on, at the piece's place.
    Rows<Stored> rows(const Shape& shape, const Piece& piece, int64_t channel) const {
        if (data == nullptr) return {nullptr, 0};
        const int64_t own = channel - first;
        if (shape.channels_last) return {data + (piece.sample * shape.pixels + piece.pixel) * channels + own, channels};
        return {data + (piece.sample * channels + own) * shape.pixels + piece.pixel, shape.pixels};
    }
};

// What is known of one unit while it is worked on.
template <typename T>
struct State {
    explicit State(const Shape& shape)
        : pitch(shape.unit_channels() + 16), coefficients(size_t(kCoefficients * pitch)),
          moments(size_t(shape.pieces() * shape.unit_groups())), sums(size_t(shape.splits * 2 * shape.unit_channels())) {}

    // Of the channels from `channel` of the unit on.
    ByChannel<T> by_channel(int64_t channel = 0) const { return {coefficients.data() + channel, pitch}; }
    T* of(Coefficient coefficient) { return coefficients.data() + coefficient * pitch; }

    int64_t pitch;  // longer than the channels: a vector may be loaded from any of them
    std::vector<T> coefficients;
    std::vector<Moments<double>> moments;  // forward, [pieces, groups]
    std::vector<double> sums;              // backward, [splits, 2, channels]
};

// Calls body(channels of the piece from .. to, tensor) for x and for skip, where the piece has channels of them.
template <typename Stored, typename Body>
void for_sources(const Piece& piece, const Tensor<Stored> (&sources)[2], const Body& body) {
    for (int source = 0; source < 2; source++) {
        const Tensor<Stored>& tensor = sources[source];
        const int64_t from = std::max(piece.channel, tensor.first);
        const int64_t to = std::min(piece.channel + piece.channels, tensor.first + tensor.channels);
        if (from < to) body(from, to, source);
    }
}

template <typename Element, typename T, typename Stored>
void apply(const Shape& shape, Rows<const Stored> x, Rows<const Stored> grad, Rows<Stored> result, int64_t channels,
           int64_t pixels, ByChannel<T> by_channel) {
    if (shape.channels_last) {
        using Block = Apply<Element, T, Stored, true>;
        dispatch<Block>(Block{x, grad, result, pixels, channels, by_channel});
    } else {
        using Block = Apply<Element, T, Stored, false>;
        dispatch<Block>(Block{x, grad, result, channels, pixels, by_channel});
    }
}

template <typename T>
T parameter(const T* values, int64_t channel, T otherwise) {
    return values == nullptr ? otherwise : values[channel];
}

// --------------------------------------------------------------------------------------------------------- forward

template <typename T, typename Stored>
class Forward {
   public:
    Forward(const Shape& shape, const GroupNormArguments& a)
        : shape(shape), sources_{{static_cast<const Stored*>(a.x), 0, shape.x_channels},
                                 {static_cast<const Stored*>(a.skip), shape.x_channels, shape.skip_channels}},
          weight_(static_cast<const T*>(a.weight)), bias_(static_cast<const T*>(a.bias)), eps_(a.eps),
          result_{static_cast<Stored*>(a.result), 0, shape.channels()}, mean_(static_cast<T*>(a.mean)),
          rstd_(static_cast<T*>(a.rstd)) {}

    void prepare(int64_t, State<T>&) const {}

    void measure(int64_t unit, int64_t index, State<T>& state) const {
        const Piece piece = shape.piece(unit, index);
        Moments<double>* moments = state.moments.data() + index * shape.unit_groups();
        shape.channels_last ? measure_groups(piece, moments) : measure_group(piece, moments);
    }

    void finish(int64_t unit, State<T>& state) const {
        const int64_t groups = shape.unit_groups(), channels = shape.group_channels();
        std::vector<Moments<double>> all(size_t(groups), Moments<double>{0, 0, 0});
        for (int64_t part = 0; part < shape.pieces() * groups; part++) {
            all[part % groups] = combine(all[part % groups], state.moments[part]);
        }
        for (int64_t group = 0; group < groups; group++) {
            const Moments<double> moments = all[group];
            const double rstd = 1 / std::sqrt(moments.m2 / moments.count + eps_);
            const int64_t index = shape.sample_of(unit) * shape.groups + shape.first_group_of(unit) + group;
            mean_[index] = T(moments.mean), rstd_[index] = T(rstd);
            const double rest = moments.mean - double(mean_[index]);  // what the mean lost when it was rounded
            for (int64_t c = group * channels; c < (group + 1) * channels; c++) {
                const int64_t channel = shape.first_channel_of(unit) + c;
                const double scale = rstd * double(parameter(weight_, channel, T(1)));
                state.of(kMean)[c] = mean_[index], state.of(kScale)[c] = T(scale);
                state.of(kBias)[c] = T(double(parameter(bias_, channel, T(0))) - rest * scale);
            }
        }
    }

    void write(int64_t unit, int64_t index, const State<T>& state) const {
        const Piece piece = shape.piece(unit, index);
        for_sources(piece, sources_, [&](int64_t from, int64_t to, int source) {
            apply<Normalised, T, Stored>(shape, sources_[source].rows(shape, piece, from), {nullptr, 0},
                                         result_.rows(shape, piece, from), to - from, piece.pixels,
                                         state.by_channel(from - shape.first_channel_of(unit)));
        });
    }

    const Shape shape;

   private:
    // NCHW: the channels of the piece that are of one tensor are contiguous.
    void measure_group(const Piece& piece, Moments<double>* moments) const {
        *moments = {0, 0, 0};
        for_sources(piece, sources_, [&](int64_t from, int64_t to, int source) {
            const Rows<const Stored> x = sources_[source].rows(shape, piece, from);
            const int64_t count = (to - from) * piece.pixels, first = std::min(count, kFirst);
            T shift = 0;
            double sums[2];
            const auto sum = [&](int64_t elements) {
                using Block = SumRows<Deviations, T, Stored>;
                dispatch<Block>(Block{x, {nullptr, 0}, {nullptr, 0}, 1, elements, {&shift, 0}, {sums, 1}});
            };
            sum(first);
            shift = T(sums[0] / double(first));
            sum(count);
            *moments = combine(*moments, moments_around(double(shift), double(count), sums[0], sums[1]));
        });
    }

    // channels_last: all groups at once, each about the mean of its first elements.
    void measure_groups(const Piece& piece, Moments<double>* moments) const {
        const int64_t channels = shape.channels(), width = shape.group_channels();
        std::vector<T> shifts(size_t(channels + 16), T(0));
        std::vector<double> sums(size_t(2 * channels));
        const auto sum = [&](int64_t pixels) {
            std::fill(sums.begin(), sums.end(), 0.0);
            for_sources(piece, sources_, [&](int64_t from, int64_t to, int source) {
                using Block = SumColumns<Deviations, T, Stored>;
                dispatch<Block>(Block{sources_[source].rows(shape, piece, from), {nullptr, 0}, {nullptr, 0}, pixels,
                                      to - from, {shifts.data() + from, 0}, {sums.data() + from, channels}});
            });
        };
        const auto of_group = [&](int64_t group, int64_t which) {
            const double* first = sums.data() + which * channels + group * width;
            double total = 0;
            for (int64_t c = 0; c < width; c++) total += first[c];
            return total;
        };
        const int64_t first = std::clamp<int64_t>(kFirst / channels, 1, piece.pixels);
        sum(first);
        for (int64_t group = 0; group < shape.groups; group++) {
            const T shift = T(of_group(group, 0) / double(first * width));
            std::fill_n(shifts.begin() + group * width, width, shift);
        }
        sum(piece.pixels);
        for (int64_t group = 0; group < shape.groups; group++) {
            moments[group] = moments_around(double(shifts[size_t(group * width)]), double(piece.pixels * width),
                                            of_group(group, 0), of_group(group, 1));
        }
    }

    const Tensor<const Stored> sources_[2];
    const T *weight_, *bias_;
    const double eps_;
    const Tensor<Stored> result_;
    T *mean_, *rstd_;
};

// -------------------------------------------------------------------------------------------------------- backward

template <typename T, typename Stored>
class Backward {
   public:
    // sample_sums [B, 2, C]: every sample's S1 and S2.
    Backward(const Shape& shape, const GroupNormArguments& a, double* sample_sums)
        : shape(shape), grad_{static_cast<const Stored*>(a.grad), 0, shape.channels()},
          sources_{{static_cast<const Stored*>(a.x), 0, shape.x_channels},
                   {static_cast<const Stored*>(a.skip), shape.x_channels, shape.skip_channels}},
          weight_(static_cast<const T*>(a.weight)), bias_(static_cast<const T*>(a.bias)),
          mean_(static_cast<const T*>(a.mean)), rstd_(static_cast<const T*>(a.rstd)),
          results_{{static_cast<Stored*>(a.result), 0, shape.x_channels},
                   {static_cast<Stored*>(a.skip_grad), shape.x_channels, shape.skip_channels}},
          sample_sums_(sample_sums) {}

    void prepare(int64_t unit, State<T>& state) const {
        const int64_t first = shape.first_channel_of(unit);
        for (int64_t c = 0; c < shape.unit_channels(); c++) {
            const int64_t group = group_index(unit, c);
            state.of(kMean)[c] = mean_[group];
            state.of(kScale)[c] = rstd_[group] * parameter(weight_, first + c, T(1));
            state.of(kBias)[c] = parameter(bias_, first + c, T(0));
        }
    }

    void measure(int64_t unit, int64_t index, State<T>& state) const {
        const Piece piece = shape.piece(unit, index);
        const int64_t channels = shape.unit_channels(), first = shape.first_channel_of(unit);
        double* sums = state.sums.data() + index % shape.splits * 2 * channels;
        for_sources(piece, sources_, [&](int64_t from, int64_t to, int source) {
            const Rows<const Stored> x = sources_[source].rows(shape, piece, from), grad = grad_.rows(shape, piece, from);
            const ByChannel<T> by_channel = state.by_channel(from - first);
            const Rows<double> totals{sums + from - first, channels};
            Rows<T> kept{nullptr, 0};
            if constexpr (kKeeps) kept = results_[source].rows(shape, piece, from);
            if (shape.channels_last) {
                using Block = SumColumns<GradientSums<kKeeps>, T, Stored>;
                for (int i = 0; i < 2; i++) std::fill_n(totals[i], to - from, 0.0);
                dispatch<Block>(Block{x, grad, kept, piece.pixels, to - from, by_channel, totals});
            } else {
                using Block = SumRows<GradientSums<kKeeps>, T, Stored>;
                dispatch<Block>(Block{x, grad, kept, to - from, piece.pixels, by_channel, totals});
            }
        });
    }

    void finish(int64_t unit, State<T>& state) const {
        const int64_t channels = shape.unit_channels(), width = shape.group_channels();
        double* s1 = sample_sums_ + shape.sample_of(unit) * 2 * shape.channels() + shape.first_channel_of(unit);
        double* s2 = s1 + shape.channels();
        for (int64_t c = 0; c < channels; c++) {
            s1[c] = s2[c] = 0;
            for (int64_t split = 0; split < shape.splits; split++) {
                s1[c] += state.sums[size_t(split * 2 * channels + c)];
                s2[c] += state.sums[size_t((split * 2 + 1) * channels + c)];
            }
            s2[c] *= double(rstd_[group_index(unit, c)]);
        }
        for (int64_t begin = 0; begin < channels; begin += width) {
            double c1 = 0, c2 = 0;
            for (int64_t c = begin; c < begin + width; c++) {
                const double weight = double(parameter(weight_, shape.first_channel_of(unit) + c, T(1)));
                c1 += weight * s1[c], c2 += weight * s2[c];
            }
            const double rstd = double(rstd_[group_index(unit, begin)]), share = rstd / double(shape.group_size());
            std::fill_n(state.of(kOffset) + begin, width, T(share * c1));
            std::fill_n(state.of(kSlope) + begin, width, T(share * c2 * rstd));
        }
    }

    void write(int64_t unit, int64_t index, const State<T>& state) const {
        const Piece piece = shape.piece(unit, index);
        for_sources(piece, sources_, [&](int64_t from, int64_t to, int source) {
            using Element = std::conditional_t<kKeeps, InputGradientOfKept, InputGradient>;
            const Rows<Stored> result = results_[source].rows(shape, piece, from);
            Rows<const Stored> grad = grad_.rows(shape, piece, from);
            if constexpr (kKeeps) grad = {result.data, result.pitch};
            apply<Element, T, Stored>(shape, sources_[source].rows(shape, piece, from), grad, result, to - from,
                                      piece.pixels, state.by_channel(from - shape.first_channel_of(unit)));
        });
    }

    const Shape shape;

   private:
    // dz is kept where dx will be, but for the halves: it would be rounded there.
    static constexpr bool kKeeps = std::is_same_v<T, Stored>;

    int64_t group_index(int64_t unit, int64_t c) const {
        return shape.sample_of(unit) * shape.groups + shape.first_group_of(unit) + c / shape.group_channels();
    }

    const Tensor<const Stored> grad_, sources_[2];
    const T *weight_, *bias_, *mean_, *rstd_;
    const Tensor<Stored> results_[2];
    double* sample_sums_;
};

template <typename T, typename Operator>
void run(const Operator& op, int threads) {
    const int64_t units = op.shape.units(), pieces = op.shape.pieces(), whole = units - units % threads;
    parallel_for(whole, threads, [&](int64_t first, int64_t last) {
        State<T> state(op.shape);
        for (int64_t unit = first; unit < last; unit++) {
            op.prepare(unit, state);
            for (int64_t piece = 0; piece < pieces; piece++) op.measure(unit, piece, state);
            op.finish(unit, state);
            for (int64_t piece = 0; piece < pieces; piece++) op.write(unit, piece, state);
        }
    });
    std::vector<State<T>> states(size_t(units - whole), State<T>(op.shape));
    for (int64_t unit = whole; unit < units; unit++) op.prepare(unit, states[size_t(unit - whole)]);
    parallel_for((units - whole) * pieces, threads, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; i++) op.measure(whole + i / pieces, i % pieces, states[size_t(i / pieces)]);
    });
    for (int64_t unit = whole; unit < units; unit++) op.finish(unit, states[size_t(unit - whole)]);
    parallel_for((units - whole) * pieces, threads, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; i++) op.write(whole + i / pieces, i % pieces, states[size_t(i / pieces)]);
    });
}

// Calls body(a value of the arithmetic's type, a value of the stored type).
template <typename Body>
void with_types(int dtype, const Body& body) {
    switch (Dtype(dtype)) {
        case Dtype::float64: return body(double(), double());
        case Dtype::float16: return body(float(), float16());
        case Dtype::bfloat16: return body(float(), bfloat16());
        default: return body(float(), float());
    }
}

}  // namespace
}  // namespace litevae

// ---------------------------------------------------------------------------------------------------- C interface

LITEVAE_EXPORT void litevae_group_norm_silu(const GroupNormArguments* arguments) {
    using namespace litevae;
    const GroupNormArguments& a = *arguments;
    const Shape shape(a.sizes, a.channels_last != 0);
    with_types(int(a.dtype), [&](auto arithmetic, auto stored) {
        using T = decltype(arithmetic);
        run<T>(Forward<T, decltype(stored)>(shape, a), int(a.threads));
    });
}

LITEVAE_EXPORT void litevae_group_norm_silu_backward(const GroupNormArguments* arguments) {
    using namespace litevae;
    const GroupNormArguments& a = *arguments;
    const Shape shape(a.sizes, a.channels_last != 0);
    with_types(int(a.dtype), [&](auto arithmetic, auto stored) {
        using T = decltype(arithmetic);
        const int64_t channels = shape.channels();
        std::vector<double> sums(size_t(shape.batch * 2 * channels));
        run<T>(Backward<T, decltype(stored)>(shape, a, sums.data()), int(a.threads));
        for (int64_t c = 0; c < channels; c++) {
            double s1 = 0, s2 = 0;
            for (int64_t sample = 0; sample < shape.batch; sample++) {
                s1 += sums[size_t(sample * 2 * channels + c)], s2 += sums[size_t((sample * 2 + 1) * channels + c)];
            }
            static_cast<T*>(a.bias_grad)[c] = T(s1), static_cast<T*>(a.weight_grad)[c] = T(s2);
        }
    });
}
