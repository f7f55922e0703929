// The gradients of GroupNorm then SiLU on the CPU. Read cpu_units.h first, then the public functions of Backward in
// their order: run calls prepare, measure, finish and write. tile.h defines dz, S1, S2, c1 and c2.
#include <type_traits>

#include "cpu_units.h"

namespace litevae {
namespace {

template <typename T, typename Stored>
class Backward {
   public:
    // sample_sums [B, 2, C]: S1 and S2 of every sample, which `finish` computes.
    Backward(const NormShape& shape, const GroupNormArguments& a, double* sample_sums)
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

    void write(int64_t unit, int64_t index, const State<T>& state, bool) const {
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

    const NormShape shape;

   private:
    // `measure` keeps dz in the memory of dx, and `write` reads it there. Not for float16 and bfloat16, which would
    // round.
    static constexpr bool kKeeps = std::is_same_v<T, Stored>;

    int64_t group_index(int64_t unit, int64_t c) const {
        return shape.sample_of(unit) * shape.groups + shape.first_group_of(unit) + c / shape.group_channels();
    }

    const Tensor<const Stored> grad_, sources_[2];
    const T *weight_, *bias_, *mean_, *rstd_;
    const Tensor<Stored> results_[2];
    double* sample_sums_;
};

}  // namespace
}  // namespace litevae

LITEVAE_EXPORT void litevae_group_norm_silu_backward(const GroupNormArguments* arguments) {
    using namespace litevae;
    const GroupNormArguments& a = *arguments;
    const NormShape shape(a.sizes, a.channels_last != 0);
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
            if (a.bias_grad != nullptr) static_cast<T*>(a.bias_grad)[c] = T(s1);
            if (a.weight_grad != nullptr) static_cast<T*>(a.weight_grad)[c] = T(s2);
        }
    });
}
