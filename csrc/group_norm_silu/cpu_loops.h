// What do the inner loops of GroupNorm then SiLU do with a block of rows, on the vector units?
//
// A row is contiguous: the pixels of one channel in NCHW, the channels of one pixel in channels_last. A block is read
// element by element (Apply) or summed up, over each row (SumRows, NCHW) or over each column (SumColumns,
// channels_last). What is done with an element is one of the four structs that come first.
#pragma once
#include <algorithm>

#include "../cpu_half_vectors.h"
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

struct InputGradientOfKept {  // dx, where dz was kept
    static constexpr int kReads = 5, kPack = 4;
    static constexpr bool kReadsGrad = true;
    template <typename Values>
    static LITEVAE_INLINE Values value(Values x, Values dz, const Values* of) {
        return input_gradient(dz, x - of[kMean], of[kScale], of[kOffset], of[kSlope]);
    }
};

struct Deviations {  // sums of d and d^2, d = x - mean; here the mean is any value near it
    static constexpr int kReads = 1, kPack = 4;
    static constexpr bool kReadsGrad = false, kKeeps = false;
    template <typename Values>
    static LITEVAE_INLINE Values add(Values x, Values, const Values* of, Values* sums) {
        const Values deviation = x - of[kMean];
        sums[0] = sums[0] + deviation;
        sums[1] = sums[1] + deviation * deviation;
        return deviation;
    }
};

template <bool kKeepsGradient>
struct GradientSums {  // sums of dz and dz (x - mean); dz may be kept
    static constexpr int kReads = 3, kPack = 2;
    static constexpr bool kReadsGrad = true, kKeeps = kKeepsGradient;
    template <typename Values>
    static LITEVAE_INLINE Values add(Values x, Values grad, const Values* of, Values* sums) {
        const Values centred = x - of[kMean], dz = gradient_of_z(grad, centred, of);
        sums[0] = sums[0] + dz;
        sums[1] = sums[1] + dz * centred;
        return dz;
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

// A block's rows, each row's or each column's coefficients, and where the results go, which may be where the gradient is.
template <typename Element, typename T, typename Stored, bool kChannelsLast>
struct Apply {
    Rows<const Stored> x, grad;
    Rows<Stored> result;
    int64_t rows, columns;
    ByChannel<T> by_channel;
    int64_t ahead;  // elements from what is read to what this thread reads after its unit; 0: nothing

    template <int Bytes>
    static LITEVAE_INLINE void run(Apply block) { block.template run_all<Bytes>(); }

    template <int Bytes>
    LITEVAE_INLINE void run_all() const {
        using V = Vector<T, Bytes>;
        if constexpr (Bytes > 16) {
            if (columns < V::kLanes) return run_all<16>();
        } else {
            if (columns < V::kLanes) return run_few<V>();
        }
        constexpr int kPack = Element::kPack;
        int64_t row = 0;
        if constexpr (kChannelsLast) {
            if (columns >= kPack * V::kLanes) {
                for (; row + kPack <= rows; row += kPack) run_rows<V, kPack, true>(row);
            } else {
                for (; row + kPack <= rows; row += kPack) run_rows<V, kPack, false>(row);
            }
        }
        for (; row < rows; row++) run_rows<V, 1, !kChannelsLast>(row);
    }

    // Packs along the rows, if they are long enough, since memory is read fastest so; what is left, across the rows.
    // The last vector of a row reaches back. It is made first, while what it reads is still there.
    template <typename V, int kRows, bool kAlong>
    LITEVAE_INLINE void run_rows(int64_t row) const {
        constexpr int kPack = Element::kPack;
        V of_row[Element::kReads];
        for (int i = 0; i < Element::kReads && !kChannelsLast; i++) of_row[i] = V::all(by_channel[i][row]);
        Pack<V, kRows> last{};
        if (columns % V::kLanes) last = across<V, kRows>(row, columns - V::kLanes, of_row);
        int64_t at = 0;
        for (int64_t r = row; r < row + kRows && kAlong; r++) {
            for (at = 0; at + kPack * V::kLanes <= columns; at += kPack * V::kLanes) {
                write_pack(along<V, kPack>(r, at, of_row), result[r] + at, V::kLanes);
            }
        }
        for (; at + V::kLanes <= columns; at += V::kLanes) {
            write_pack(across<V, kRows>(row, at, of_row), result[row] + at, result.pitch);
        }
        if (at < columns) write_pack(last, result[row] + columns - V::kLanes, result.pitch);
    }

    template <typename V, int kPack>
    LITEVAE_INLINE Pack<V, kPack> along(int64_t row, int64_t at, const V* of_row) const {
        Pack<V, kPack> of[Element::kReads];
        for (int i = 0; i < Element::kReads; i++) {
            if constexpr (kChannelsLast) of[i] = read_pack<V, kPack>(by_channel[i] + at, V::kLanes);
            else of[i] = Pack<V, kPack>::all(of_row[i]);
        }
        // Which cache is near enough was measured; why the layouts differ is not known.
        if (ahead != 0) prefetch<kPack * V::kLanes, kChannelsLast>(x[row] + at, ahead);
        return value(x[row] + at, grad[row] + at, V::kLanes, V::kLanes, of);
    }

    template <typename V, int kPack>
    LITEVAE_INLINE Pack<V, kPack> across(int64_t row, int64_t at, const V* of_row) const {
        Pack<V, kPack> of[Element::kReads];
        for (int i = 0; i < Element::kReads; i++) {
            of[i] = Pack<V, kPack>::all(kChannelsLast ? V::load(by_channel[i] + at) : of_row[i]);
        }
        for (int k = 0; k < kPack && ahead != 0; k++) prefetch<V::kLanes, kChannelsLast>(x[row + k] + at, ahead);
        return value(x[row] + at, grad[row] + at, x.pitch, grad.pitch, of);
    }

    template <typename V, int kPack>
    static LITEVAE_INLINE Pack<V, kPack> value(const Stored* from, const Stored* from_grad, int64_t stride,
                                               int64_t grad_stride, const Pack<V, kPack>* of) {
        return Element::value(read_pack<V, kPack>(from, stride),
                              read_grad<Element::kReadsGrad, V, kPack>(from_grad, grad_stride), of);
    }

    // Fewer columns than lanes of the narrowest vector.
    template <typename V>
    LITEVAE_INLINE void run_few() const {
        for (int64_t row = 0; row < rows; row++) {
            Pack<V, 1> of[Element::kReads];
            for (int k = 0; k < Element::kReads; k++) {
                of[k] = {kChannelsLast ? V::load(by_channel[k]) : V::all(by_channel[k][row])};
            }
            const Pack<V, 1> from{read_first<V>(columns, x[row], 0)};
            const Pack<V, 1> from_grad = read_first_grad<Element::kReadsGrad, V>(columns, grad[row]);
            write_first(columns, Element::value(from, from_grad, of).part[0], result[row]);
        }
    }
};

// Sums take less time than memory does, and the CPU itself does not look beyond a page.
template <typename Stored>
constexpr int64_t kAhead = 4096 / int64_t(sizeof(Stored));

constexpr int kTerms = 256;  // after so many terms the sum of an element is added to a total of double precision

// totals[0][row] and totals[1][row] become the sums over each row.
template <typename Element, typename T, typename Stored>
struct SumRows {
    Rows<const Stored> x, grad;
    Rows<T> kept;
    int64_t rows, columns;
    ByChannel<T> by_channel;
    Rows<double> totals;

    template <int Bytes>
    static LITEVAE_INLINE void run(SumRows block) {
        using V = Vector<T, Bytes>;
        for (int64_t row = 0; row < block.rows; row++) {
            double total[2] = {};
            int64_t at = 0;
            while (at + Element::kPack * V::kLanes <= block.columns) {
                at = block.template sum<V, Element::kPack>(row, at, total);
            }
            while (at < block.columns) at = block.template sum<V, 1>(row, at, total);
            for (int i = 0; i < 2; i++) block.totals[i][row] = total[i];
        }
    }

    // From `at` on, kTerms packs or as many as are whole, or the few of a last vector. Returns where it stopped.
    template <typename V, int kPack>
    LITEVAE_INLINE int64_t sum(int64_t row, int64_t at, double* total) const {
        using Values = Pack<V, kPack>;
        constexpr int64_t step = kPack * V::kLanes;
        const Stored *from = x[row], *from_grad = grad[row];
        Values of[Element::kReads], sums[2] = {};
        for (int k = 0; k < Element::kReads; k++) of[k] = Values::all(V::all(by_channel[k][row]));
        if (at + step <= columns) {
            const int64_t end = std::min(at + kTerms * step, columns - columns % V::kLanes);
            for (; at + step <= end; at += step) {
                const Values given = read_grad<Element::kReadsGrad, V, kPack>(from_grad + at, V::kLanes);
                prefetch<step, true>(from + at, kAhead<Stored>);
                const Values value = Element::add(read_pack<V, kPack>(from + at, V::kLanes), given, of, sums);
                if constexpr (Element::kKeeps) write_pack(value, kept[row] + at, V::kLanes);
            }
        } else if constexpr (kPack == 1) {
            const int64_t count = columns - at;
            const Values given = read_first_grad<Element::kReadsGrad, V>(count, from_grad + at);
            const Values value = Element::add(Values{read_first<V>(count, from + at, by_channel[kMean][row])}, given, of, sums);
            if constexpr (Element::kKeeps) write_first(count, value.part[0], kept[row] + at);
            at = columns;
        }
        for (int i = 0; i < 2; i++) {
            for (int k = 1; k < kPack; k++) sums[i].part[0] = sums[i].part[0] + sums[i].part[k];
            total[i] += sum_of_lanes(sums[i].part[0]);
        }
        return at;
    }

    template <typename V>
    static LITEVAE_INLINE double sum_of_lanes(V sum) {
        T lanes[V::kLanes];
        sum.store(lanes);
        double parts[4] = {};
        for (int lane = 0; lane < V::kLanes; lane++) parts[lane % 4] += double(lanes[lane]);
        return (parts[0] + parts[1]) + (parts[2] + parts[3]);
    }
};

// The sums over each column are added to totals[0][column] and totals[1][column].
template <typename Element, typename T, typename Stored>
struct SumColumns {
    Rows<const Stored> x, grad;
    Rows<T> kept;
    int64_t rows, columns;
    ByChannel<T> by_channel;
    Rows<double> totals;

    template <int Bytes>
    static LITEVAE_INLINE void run(SumColumns block) { block.template run_all<Bytes>(); }

    template <int Bytes>
    LITEVAE_INLINE void run_all() const {
        using V = Vector<T, Bytes>;
        if constexpr (Bytes > 16) {
            if (columns < V::kLanes) return run_all<16>();
        } else {
            if (columns < V::kLanes) return sum_few<V>();
        }
        const int64_t rows_at_once = std::min<int64_t>(kTerms, std::max<int64_t>(32, 8192 / columns));
        for (int64_t row = 0; row < rows; row += rows_at_once) {
            const int64_t end = std::min(row + rows_at_once, rows);
            int64_t at = 0;
            if constexpr (Element::kPack >= 4 && Bytes == 64) {
                for (; at + 8 * V::kLanes <= columns; at += 8 * V::kLanes) sum<V, 8>(row, end, at, 0);
                for (; at + 6 * V::kLanes <= columns; at += 6 * V::kLanes) sum<V, 6>(row, end, at, 0);  // 96, 192
            }
            if constexpr (Element::kPack >= 4) {
                for (; at + 4 * V::kLanes <= columns; at += 4 * V::kLanes) sum<V, 4>(row, end, at, 0);
            }
            for (; at + 2 * V::kLanes <= columns; at += 2 * V::kLanes) sum<V, 2>(row, end, at, 0);
            for (; at + V::kLanes <= columns; at += V::kLanes) sum<V, 1>(row, end, at, 0);
            const int rest = int(columns - at);  // the last vector reaches back; what was added already is left out
            if (rest > 0) sum<V, 1>(row, end, columns - V::kLanes, V::kLanes - rest);
        }
    }

    // Of the columns of kPack vectors from `at` on, without the first ones that are `done`.
    template <typename V, int kPack>
    LITEVAE_INLINE void sum(int64_t row, int64_t end, int64_t at, int done) const {
        using Values = Pack<V, kPack>;
        Values of[Element::kReads], sums[2] = {};
        for (int k = 0; k < Element::kReads; k++) of[k] = read_pack<V, kPack>(by_channel[k] + at, V::kLanes);
        for (; row < end; row++) {
            const Values given = read_grad<Element::kReadsGrad, V, kPack>(grad[row] + at, V::kLanes);
            prefetch<kPack * V::kLanes, true>(x[row] + at, kAhead<Stored>);
            const Values value = Element::add(read_pack<V, kPack>(x[row] + at, V::kLanes), given, of, sums);
            if constexpr (Element::kKeeps) write_pack(value, kept[row] + at, V::kLanes);
        }
        for (int i = 0; i < 2; i++) {
            T lanes[kPack * V::kLanes];
            write_pack(sums[i], lanes, V::kLanes);
            for (int lane = done; lane < kPack * V::kLanes; lane++) totals[i][at + lane] += double(lanes[lane]);
        }
    }

    // Fewer columns than lanes of the narrowest vector.
    template <typename V>
    LITEVAE_INLINE void sum_few() const {
        Pack<V, 1> of[Element::kReads];
        for (int k = 0; k < Element::kReads; k++) of[k] = {V::load(by_channel[k])};
        for (int64_t row = 0; row < rows; row++) {
            Pack<V, 1> sums[2] = {};
            const Pack<V, 1> given = read_first_grad<Element::kReadsGrad, V>(columns, grad[row]);
            const Pack<V, 1> value = Element::add(Pack<V, 1>{read_first<V>(columns, x[row], 0)}, given, of, sums);
            if constexpr (Element::kKeeps) write_first(columns, value.part[0], kept[row]);
            for (int i = 0; i < 2; i++) {
                T lanes[V::kLanes];
                sums[i].part[0].store(lanes);
                for (int64_t column = 0; column < columns; column++) totals[i][column] += double(lanes[column]);
            }
        }
    }
};

}  // namespace litevae
