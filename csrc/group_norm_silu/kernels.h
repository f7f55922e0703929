// What do the inner loops of GroupNorm then SiLU do with a block of rows, on the vector units?
//
// A row is contiguous: the pixels of one channel in NCHW, the channels of one pixel in channels_last. A block is read
// element by element (Apply) or summed up, over each row (SumRows, NCHW) or over each column (SumColumns,
// channels_last). What is done with an element is one of the four structs that come first.
#pragma once
#include <algorithm>

#include "../half_vectors.h"
#include "tile.h"

namespace litevae {

enum Coefficient { kMean, kScale, kBias, kOffset, kSlope, kCoefficients };  // of tile.h, by channel

template <typename Stored>
struct Rows {
    Stored* data;
    int64_t pitch;  // elements from one row to the next
    LITEVAE_INLINE Stored* operator[](int64_t row) const { return data + row * pitch; }
};

template <typename T>
struct ByChannel {
    const T* data;
    int64_t pitch;  // elements from one coefficient to the next
    LITEVAE_INLINE const T* operator[](int coefficient) const { return data + coefficient * pitch; }
};

// --------------------------------------------------------------------------------------------- what an element does

// kReads: how many coefficients it takes, the first ones. kPack: how many vectors are worth working on side by side.

struct Normalised {  // y
    static constexpr int kReads = 3, kPack = 4;
    static constexpr bool kReadsGrad = false;
    template <typename Values>
    static LITEVAE_INLINE Values value(Values x, Values, const Values* of) {
        return silu(normalise(x, of[kMean], of[kScale], of[kBias]));
    }
};

template <typename Values>
LITEVAE_INLINE Values gradient_of_z(Values grad, Values centred, const Values* of) {
    return grad * silu_derivative(centred * of[kScale] + of[kBias]);
}

struct InputGradient {  // dx
    static constexpr int kReads = 5, kPack = 4;
    static constexpr bool kReadsGrad = true;
    template <typename Values>
    static LITEVAE_INLINE Values value(Values x, Values grad, const Values* of) {
        const Values centred = x - of[kMean];
        return input_gradient(gradient_of_z(grad, centred, of), centred, of[kScale], of[kOffset], of[kSlope]);
    }
};

struct Deviations {  // sums of d and d^2, d = x - mean; here the mean is any value near it
    static constexpr int kReads = 1, kPack = 4;
    static constexpr bool kReadsGrad = false;
    template <typename Values>
    static LITEVAE_INLINE void add(Values x, Values, const Values* of, Values* sums) {
        const Values deviation = x - of[kMean];
        sums[0] = sums[0] + deviation;
        sums[1] = sums[1] + deviation * deviation;
    }
};

struct GradientSums {  // sums of dz and dz (x - mean)
    static constexpr int kReads = 3, kPack = 2;
    static constexpr bool kReadsGrad = true;
    template <typename Values>
    static LITEVAE_INLINE void add(Values x, Values grad, const Values* of, Values* sums) {
        const Values centred = x - of[kMean], dz = gradient_of_z(grad, centred, of);
        sums[0] = sums[0] + dz;
        sums[1] = sums[1] + dz * centred;
    }
};

template <bool kReadsGrad, typename V, int kPack, typename Stored>
LITEVAE_INLINE Pack<V, kPack> read_grad(const Stored* grad, int64_t stride) {
    if constexpr (kReadsGrad) return read_pack<V, kPack>(grad, stride);
    else return {};
}
template <bool kReadsGrad, typename V, typename Stored>
LITEVAE_INLINE Pack<V, 1> read_first_grad(int64_t count, const Stored* grad) {
    if constexpr (kReadsGrad) return {read_first<V>(count, grad, 0)};
    else return {};
}

// ------------------------------------------------------------------------------------------------------- the loops

// A pack is some pixels of the same channels in channels_last, some vectors of one row in NCHW. The last pack, and the
// last vector, reach back over the ones before rather than leave a rest.
template <typename Element, typename T, typename Stored, bool kChannelsLast>
struct Apply {
    template <int Bytes>
    static LITEVAE_INLINE void run(Rows<const Stored> x, Rows<const Stored> grad, Rows<Stored> result, int64_t rows,
                                   int64_t columns, ByChannel<T> by_channel) {
        using V = Vector<T, Bytes>;
        constexpr int kPack = Element::kPack;
        if (columns < V::kLanes) {
            if constexpr (Bytes > 16) run<16>(x, grad, result, rows, columns, by_channel);
            else run_few<V>(x, grad, result, rows, columns, by_channel);
        } else if (kChannelsLast ? rows >= kPack : columns >= kPack * V::kLanes) {
            run_packs<V, kPack>(x, grad, result, rows, columns, by_channel);
        } else {
            run_packs<V, 1>(x, grad, result, rows, columns, by_channel);
        }
    }

    template <typename V, int kPack>
    static LITEVAE_INLINE void run_packs(Rows<const Stored> x, Rows<const Stored> grad, Rows<Stored> result,
                                         int64_t rows, int64_t columns, ByChannel<T> by_channel) {
        using Values = Pack<V, kPack>;
        constexpr int64_t row_step = kChannelsLast ? kPack : 1, step = kChannelsLast ? V::kLanes : kPack * V::kLanes;
        const auto stride = [](int64_t pitch) { return kChannelsLast ? pitch : V::kLanes; };
        for (int64_t row = 0; row < rows; row += row_step) {
            row = std::min(row, rows - row_step);
            Values of[Element::kReads];
            if constexpr (!kChannelsLast) {
                for (int k = 0; k < Element::kReads; k++) of[k] = Values::all(by_channel[k][row]);
            }
            const Stored *from = x[row], *from_grad = grad[row];
            Stored* to = result[row];
            for (int64_t at = 0; at < columns; at += step) {
                at = std::min(at, columns - step);
                if constexpr (kChannelsLast) {
                    for (int k = 0; k < Element::kReads; k++) of[k] = Values::all(V::load(by_channel[k] + at));
                }
                const Values given = read_grad<Element::kReadsGrad, V, kPack>(from_grad + at, stride(grad.pitch));
                const Values value = Element::value(read_pack<V, kPack>(from + at, stride(x.pitch)), given, of);
                write_pack(value, to + at, stride(result.pitch));
            }
        }
    }

    // Fewer columns than lanes of the narrowest vector.
    template <typename V>
    static LITEVAE_INLINE void run_few(Rows<const Stored> x, Rows<const Stored> grad, Rows<Stored> result, int64_t rows,
                                       int64_t columns, ByChannel<T> by_channel) {
        for (int64_t row = 0; row < rows; row++) {
            Pack<V, 1> of[Element::kReads];
            for (int k = 0; k < Element::kReads; k++) {
                of[k] = Pack<V, 1>::all(kChannelsLast ? V::load(by_channel[k]) : V::all(by_channel[k][row]));
            }
            const Pack<V, 1> from{read_first<V>(columns, x[row], 0)};
            const Pack<V, 1> from_grad = read_first_grad<Element::kReadsGrad, V>(columns, grad[row]);
            write_first(columns, Element::value(from, from_grad, of).part[0], result[row]);
        }
    }
};

constexpr int kTerms = 256;  // after so many terms the sum of an element is added to a total of double precision

template <typename V>
LITEVAE_INLINE double sum_of_lanes(V sum) {
    typename V::Scalar lanes[V::kLanes];
    sum.store(lanes);
    double parts[4] = {};
    for (int lane = 0; lane < V::kLanes; lane++) parts[lane % 4] += double(lanes[lane]);
    return (parts[0] + parts[1]) + (parts[2] + parts[3]);
}

// totals[0][row] and totals[1][row] become the sums over each row.
template <typename Element, typename T, typename Stored>
struct SumRows {
    template <int Bytes>
    static LITEVAE_INLINE void run(Rows<const Stored> x, Rows<const Stored> grad, int64_t rows, int64_t columns,
                                   ByChannel<T> by_channel, Rows<double> totals) {
        using V = Vector<T, Bytes>;
        for (int64_t row = 0; row < rows; row++) {
            double total[2] = {};
            int64_t at = 0;
            while (at + Element::kPack * V::kLanes <= columns) {
                at += sum<V, Element::kPack>(x[row] + at, grad[row] + at, columns - at, by_channel, row, total);
            }
            while (at < columns) at += sum<V, 1>(x[row] + at, grad[row] + at, columns - at, by_channel, row, total);
            for (int i = 0; i < 2; i++) totals[i][row] = total[i];
        }
    }

    // Returns how many were summed: of the first kTerms packs those that are whole, or the few of a last vector.
    template <typename V, int kPack>
    static LITEVAE_INLINE int64_t sum(const Stored* x, const Stored* grad, int64_t count, ByChannel<T> by_channel,
                                      int64_t row, double* total) {
        using Values = Pack<V, kPack>;
        constexpr int step = kPack * V::kLanes;
        Values of[Element::kReads], sums[2] = {};
        for (int k = 0; k < Element::kReads; k++) of[k] = Values::all(by_channel[k][row]);
        int64_t at = 0;
        for (; at + step <= count && at < kTerms * step; at += step) {
            Element::add(read_pack<V, kPack>(x + at, V::kLanes),
                         read_grad<Element::kReadsGrad, V, kPack>(grad + at, V::kLanes), of, sums);
        }
        if constexpr (kPack == 1) {
            if (at == 0) {
                Element::add(Values{read_first<V>(count, x, by_channel[kMean][row])},
                             read_first_grad<Element::kReadsGrad, V>(count, grad), of, sums);
                at = count;
            }
        }
        for (int i = 0; i < 2; i++) {
            for (int k = 1; k < kPack; k++) sums[i].part[0] = sums[i].part[0] + sums[i].part[k];
            total[i] += sum_of_lanes(sums[i].part[0]);
        }
        return at;
    }
};

// The sums over each column are added to totals[0][column] and totals[1][column].
template <typename Element, typename T, typename Stored>
struct SumColumns {
    template <int Bytes>
    static LITEVAE_INLINE void run(Rows<const Stored> x, Rows<const Stored> grad, int64_t rows, int64_t columns,
                                   ByChannel<T> by_channel, Rows<double> totals) {
        using V = Vector<T, Bytes>;
        constexpr int lanes = V::kLanes;
        if constexpr (Bytes > 16) {
            if (columns < lanes) return run<16>(x, grad, rows, columns, by_channel, totals);
        }
        const int64_t rows_a_chunk = std::min<int64_t>(kTerms, std::max<int64_t>(32, 8192 / columns));
        for (int64_t row = 0; row < rows; row += rows_a_chunk) {
            const int64_t count = std::min(rows_a_chunk, rows - row);
            const Rows<const Stored> here{x[row], x.pitch}, here_grad{grad[row], grad.pitch};
            int64_t at = 0;
            if constexpr (Element::kPack >= 4) {
                for (; at + 4 * lanes <= columns; at += 4 * lanes) {
                    sum<V, 4>(here, here_grad, count, at, 0, by_channel, totals);
                }
            }
            for (; at + 2 * lanes <= columns; at += 2 * lanes) {
                sum<V, 2>(here, here_grad, count, at, 0, by_channel, totals);
            }
            for (; at + lanes <= columns; at += lanes) {
                sum<V, 1>(here, here_grad, count, at, 0, by_channel, totals);
            }
            if (at == columns) continue;
            if (columns >= lanes) {  // the last vector reaches back; lanes that were added already are left out
                sum<V, 1>(here, here_grad, count, columns - lanes, int(at - (columns - lanes)), by_channel, totals);
            } else {
                sum_few<V>(here, here_grad, count, columns, by_channel, totals);
            }
        }
    }

    // Of kPack vectors of columns from `at` on, without the lanes before `first`.
    template <typename V, int kPack>
    static LITEVAE_INLINE void sum(Rows<const Stored> x, Rows<const Stored> grad, int64_t rows, int64_t at, int first,
                                   ByChannel<T> by_channel, Rows<double> totals) {
        using Values = Pack<V, kPack>;
        Values of[Element::kReads], sums[2] = {};
        for (int k = 0; k < Element::kReads; k++) of[k] = read_pack<V, kPack>(by_channel[k] + at, V::kLanes);
        for (int64_t row = 0; row < rows; row++) {
            Element::add(read_pack<V, kPack>(x[row] + at, V::kLanes),
                         read_grad<Element::kReadsGrad, V, kPack>(grad[row] + at, V::kLanes), of, sums);
        }
        for (int i = 0; i < 2; i++) {
            T lanes[kPack * V::kLanes];
            write_pack(sums[i], lanes, V::kLanes);
            for (int lane = first; lane < kPack * V::kLanes; lane++) totals[i][at + lane] += double(lanes[lane]);
        }
    }

    // Fewer columns than lanes of the narrowest vector.
    template <typename V>
    static LITEVAE_INLINE void sum_few(Rows<const Stored> x, Rows<const Stored> grad, int64_t rows, int64_t columns,
                                       ByChannel<T> by_channel, Rows<double> totals) {
        Pack<V, 1> of[Element::kReads], sums[2] = {};
        for (int k = 0; k < Element::kReads; k++) of[k] = {V::load(by_channel[k])};
        for (int64_t row = 0; row < rows; row++) {
            Element::add(Pack<V, 1>{read_first<V>(columns, x[row], 0)},
                         read_first_grad<Element::kReadsGrad, V>(columns, grad[row]), of, sums);
        }
        for (int i = 0; i < 2; i++) {
            T lanes[V::kLanes];
            sums[i].part[0].store(lanes);
            for (int64_t column = 0; column < columns; column++) totals[i][column] += double(lanes[column]);
        }
    }
};

}  // namespace litevae
