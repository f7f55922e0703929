// GroupNorm then SiLU of one or two tensors on the CPU. Read cpu_units.h first, then the public functions of Forward in
// their order: run calls prepare, measure, finish and write. T is the dtype of the arithmetic, Stored of the tensors.
#include <cmath>

#include "cpu_units.h"

namespace litevae {
namespace {

constexpr int64_t kFirst = 8;  // the mean of the first 1 / kFirst of a piece is the shift of its sums (tile.h)

template <typename T, typename Stored>
class Forward {
   public:
    Forward(const NormShape& shape, const GroupNormArguments& a)
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
            const T mean = T(moments.mean);
            if (mean_ != nullptr) mean_[index] = mean, rstd_[index] = T(rstd);
            const double rest = moments.mean - double(mean);  // the mean's rounding error; the bias corrects it
            for (int64_t c = group * channels; c < (group + 1) * channels; c++) {
                const int64_t channel = shape.first_channel_of(unit) + c;
                const double scale = rstd * double(parameter(weight_, channel, T(1)));
                state.of(kMean)[c] = mean, state.of(kScale)[c] = T(scale);
                state.of(kBias)[c] = T(double(parameter(bias_, channel, T(0))) - rest * scale);
            }
        }
    }

    void write(int64_t unit, int64_t index, const State<T>& state, bool fetch_next) const {
        const Piece piece = shape.piece(unit, index);
        for_sources(piece, sources_, [&](int64_t from, int64_t to, int source) {
            const Tensor<const Stored>& tensor = sources_[source];
            const int64_t next = shape.channels_last ? shape.pixels * tensor.channels : shape.group_size();
            apply<Normalised, T, Stored>(shape, tensor.rows(shape, piece, from), {nullptr, 0},
                                         result_.rows(shape, piece, from), to - from, piece.pixels,
                                         state.by_channel(from - shape.first_channel_of(unit)), fetch_next ? next : 0);
        });
    }

    const NormShape shape;

   private:
    // NCHW: the piece's channels that belong to one tensor are contiguous.
    void measure_group(const Piece& piece, Moments<double>* moments) const {
        *moments = {0, 0, 0};
        for_sources(piece, sources_, [&](int64_t from, int64_t to, int source) {
            const Rows<const Stored> x = sources_[source].rows(shape, piece, from);
            const int64_t count = (to - from) * piece.pixels, first = std::max<int64_t>(count / kFirst, 1);
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

    // channels_last: all groups together; each group's shift is the mean of its first elements.
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
        const int64_t first = std::max<int64_t>(piece.pixels / kFirst, 1);
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

}  // namespace
}  // namespace litevae

LITEVAE_EXPORT void litevae_group_norm_silu(const GroupNormArguments* arguments) {
    using namespace litevae;
    const GroupNormArguments& a = *arguments;
    const NormShape shape(a.sizes, a.channels_last != 0);
    with_types(int(a.dtype), [&](auto arithmetic, auto stored) {
        using T = decltype(arithmetic);
        run<T>(Forward<T, decltype(stored)>(shape, a), int(a.threads));
    });
}
