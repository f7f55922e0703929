// The inner loops of GroupNorm then SiLU over a block of rows, with vectors.
//
// Read first: the five structs with the arithmetic of one element, then Apply. A row is contiguous: the pixels of one
// channel in NCHW, the channels of one pixel in channels_last. Apply computes a result for each element; cpu_sums.h has
// the sums. Template parameters: Element is one of the five structs, T the dtype of the arithmetic, Stored the dtype of
// the tensors. In the functions, V is one Vector of T, and Values are several, Vectors<V, kVectors>.
#pragma once
#include <algorithm>

#include "../cpu_half_vectors.h"
#include "tile.h"

namespace litevae {

enum Coefficient { kMean, kScale, kBias, kOffset, kSlope, kCoefficients };  // of tile.h, one of each for every channel

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

// ------------------------------------------------------------------------------------- the arithmetic of one element

// kReads: an element reads the first kReads coefficients, `of`. kReadsGrad: and the gradient. kKeeps: what `add`
// returns is stored. kVectors: the number of vectors that is fastest when worked on together.

struct Normalised {  // y
    static constexpr int kReads = 3, kVectors = 4;
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
    static constexpr int kReads = 5, kVectors = 4;
    static constexpr bool kReadsGrad = true;
    template <typename Values>
    static LITEVAE_INLINE Values value(Values x, Values grad, const Values* of) {
        const Values centred = x - of[kMean];
        return input_gradient(gradient_of_z(grad, centred, of), centred, of[kScale], of[kOffset], of[kSlope]);
    }
};

struct InputGradientOfKept {  // dx from a dz that was stored
    static constexpr int kReads = 5, kVectors = 4;
    static constexpr bool kReadsGrad = true;
    template <typename Values>
    static LITEVAE_INLINE Values value(Values x, Values dz, const Values* of) {
        return input_gradient(dz, x - of[kMean], of[kScale], of[kOffset], of[kSlope]);
    }
};

struct Deviations {  // sums of d and d^2, d = x - mean, where any value near the mean serves
    static constexpr int kReads = 1, kVectors = 4;
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
struct GradientSums {  // sums of dz and dz (x - mean); kKeepsGradient: dz is stored
    static constexpr int kReads = 3, kVectors = 2;
    static constexpr bool kReadsGrad = true, kKeeps = kKeepsGradient;
    template <typename Values>
    static LITEVAE_INLINE Values add(Values x, Values grad, const Values* of, Values* sums) {
        const Values centred = x - of[kMean], dz = gradient_of_z(grad, centred, of);
        sums[0] = sums[0] + dz;
        sums[1] = sums[1] + dz * centred;
        return dz;
    }
};

template <bool kReadsGrad, typename V, int kVectors, typename Stored>
LITEVAE_INLINE Vectors<V, kVectors> read_grad(const Stored* grad, int64_t stride) {
    if constexpr (kReadsGrad) return read_vectors<V, kVectors>(grad, stride);
    else return {};
}
template <bool kReadsGrad, typename V, typename Stored>
LITEVAE_INLINE Vectors<V, 1> read_first_grad(int64_t count, const Stored* grad) {
    if constexpr (kReadsGrad) return {read_first<V>(count, grad, 0)};
    else return {};
}

// ------------------------------------------------------------------------------------------------------- the loops

// The result of each element of a block. by_channel has the coefficients of each row (NCHW) or each column
// (channels_last). `result` may be the memory of `grad`.
template <typename Element, typename T, typename Stored, bool kChannelsLast>
struct Apply {
    Rows<const Stored> x, grad;
    Rows<Stored> result;
    int64_t rows, columns;
    ByChannel<T> by_channel;
    int64_t ahead;  // elements from x to the x of the thread's next unit, which is prefetched; 0: no prefetch

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
        constexpr int kVectors = Element::kVectors;
        int64_t row = 0;
        if constexpr (kChannelsLast) {
            if (columns >= kVectors * V::kLanes) {
                for (; row + kVectors <= rows; row += kVectors) run_rows<V, kVectors, true>(row);
            } else {
                for (; row + kVectors <= rows; row += kVectors) run_rows<V, kVectors, false>(row);
            }
        }
        for (; row < rows; row++) run_rows<V, 1, !kChannelsLast>(row);
    }

    // Computes kRows rows. Values go along a row where it is long enough (kAlong), since memory is read fastest so, and
    // across the rows otherwise. The last vector overlaps the one before; it is computed first, as `result` may be
    // `grad`.
    template <typename V, int kRows, bool kAlong>
    LITEVAE_INLINE void run_rows(int64_t row) const {
        constexpr int kVectors = Element::kVectors;
        V of_row[Element::kReads];
        for (int i = 0; i < Element::kReads && !kChannelsLast; i++) of_row[i] = V::all(by_channel[i][row]);
        Vectors<V, kRows> last{};
        if (columns % V::kLanes) last = across<V, kRows>(row, columns - V::kLanes, of_row);
        int64_t at = 0;
        for (int64_t r = row; r < row + kRows && kAlong; r++) {
            for (at = 0; at + kVectors * V::kLanes <= columns; at += kVectors * V::kLanes) {
                write_vectors(along<V, kVectors>(r, at, of_row), result[r] + at, V::kLanes);
            }
        }
        for (; at + V::kLanes <= columns; at += V::kLanes) {
            write_vectors(across<V, kRows>(row, at, of_row), result[row] + at, result.pitch);
        }
        if (at < columns) write_vectors(last, result[row] + columns - V::kLanes, result.pitch);
    }

    template <typename V, int kVectors>
    LITEVAE_INLINE Vectors<V, kVectors> along(int64_t row, int64_t at, const V* of_row) const {
        Vectors<V, kVectors> of[Element::kReads];
        for (int i = 0; i < Element::kReads; i++) {
            if constexpr (kChannelsLast) of[i] = read_vectors<V, kVectors>(by_channel[i] + at, V::kLanes);
            else of[i] = Vectors<V, kVectors>::all(of_row[i]);
        }
        // Which cache to prefetch to was measured; why it differs between the memory formats is not known.
        if (ahead != 0) prefetch<kVectors * V::kLanes, kChannelsLast>(x[row] + at, ahead);
        return value(x[row] + at, grad[row] + at, V::kLanes, V::kLanes, of);
    }

    template <typename V, int kVectors>
    LITEVAE_INLINE Vectors<V, kVectors> across(int64_t row, int64_t at, const V* of_row) const {
        Vectors<V, kVectors> of[Element::kReads];
        for (int i = 0; i < Element::kReads; i++) {
            of[i] = Vectors<V, kVectors>::all(kChannelsLast ? V::load(by_channel[i] + at) : of_row[i]);
        }
        for (int k = 0; k < kVectors && ahead != 0; k++) prefetch<V::kLanes, kChannelsLast>(x[row + k] + at, ahead);
        return value(x[row] + at, grad[row] + at, x.pitch, grad.pitch, of);
    }

    template <typename V, int kVectors>
    static LITEVAE_INLINE Vectors<V, kVectors> value(const Stored* from, const Stored* from_grad, int64_t stride,
                                               int64_t grad_stride, const Vectors<V, kVectors>* of) {
        return Element::value(read_vectors<V, kVectors>(from, stride),
                              read_grad<Element::kReadsGrad, V, kVectors>(from_grad, grad_stride), of);
    }

    // For fewer columns than a vector of 16 bytes has lanes.
    template <typename V>
    LITEVAE_INLINE void run_few() const {
        for (int64_t row = 0; row < rows; row++) {
            Vectors<V, 1> of[Element::kReads];
            for (int k = 0; k < Element::kReads; k++) {
                of[k] = {kChannelsLast ? V::load(by_channel[k]) : V::all(by_channel[k][row])};
            }
            const Vectors<V, 1> from{read_first<V>(columns, x[row], 0)};
            const Vectors<V, 1> from_grad = read_first_grad<Element::kReadsGrad, V>(columns, grad[row]);
            write_first(columns, Element::value(from, from_grad, of).part[0], result[row]);
        }
    }
};

}  // namespace litevae
