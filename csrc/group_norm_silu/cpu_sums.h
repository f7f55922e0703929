// The loops of GroupNorm then SiLU that sum over a block of rows: over each row (SumRows, for NCHW) or over each column
// (SumColumns, for channels_last). Read cpu_loops.h first; the template parameters are those of Apply.
#pragma once
#include "cpu_loops.h"

namespace litevae {

// The sums wait for memory. They prefetch a page ahead, since the hardware prefetcher stops at the end of a page. Where a
// pass reads a part of every row, which the hardware does not follow, they prefetch rows four pages ahead, to L2.
template <typename Stored>
constexpr int64_t kAhead = 4096 / int64_t(sizeof(Stored));
template <int count, typename Stored>
LITEVAE_INLINE void prefetch_row(Rows<const Stored> x, int64_t row, int64_t at, bool is_whole) {
    if (is_whole) return prefetch<count, true>(x[row] + at, kAhead<Stored>);
    const int64_t rows = std::max<int64_t>(1, 4 * kAhead<Stored> / x.pitch);
    prefetch<count, false>(x[row] + at, rows * x.pitch);
}

constexpr int kTerms = 256;  // after so many terms a sum in T is added to a total in double, which limits its error

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
            while (at + Element::kVectors * V::kLanes <= block.columns) {
                at = block.template sum<V, Element::kVectors>(row, at, total);
            }
            while (at < block.columns) at = block.template sum<V, 1>(row, at, total);
            for (int i = 0; i < 2; i++) block.totals[i][row] = total[i];
        }
    }

    // Sums from column `at` on: kTerms Values, or as many as fit, or the columns of a last partial vector. Returns the
    // column after them.
    template <typename V, int kVectors>
    LITEVAE_INLINE int64_t sum(int64_t row, int64_t at, double* total) const {
        using Values = Vectors<V, kVectors>;
        constexpr int64_t step = kVectors * V::kLanes;
        const Stored *from = x[row], *from_grad = grad[row];
        Values of[Element::kReads], sums[2] = {};
        for (int k = 0; k < Element::kReads; k++) of[k] = Values::all(V::all(by_channel[k][row]));
        if (at + step <= columns) {
            const int64_t end = std::min(at + kTerms * step, columns - columns % V::kLanes);
            for (; at + step <= end; at += step) {
                const Values given = read_grad<Element::kReadsGrad, V, kVectors>(from_grad + at, V::kLanes);
                prefetch<step, true>(from + at, kAhead<Stored>);
                const Values value = Element::add(read_vectors<V, kVectors>(from + at, V::kLanes), given, of, sums);
                if constexpr (Element::kKeeps) write_vectors(value, kept[row] + at, V::kLanes);
            }
        } else if constexpr (kVectors == 1) {
            const int64_t count = columns - at;
            const Values given = read_first_grad<Element::kReadsGrad, V>(count, from_grad + at);
            const Values value = Element::add(Values{read_first<V>(count, from + at, by_channel[kMean][row])}, given, of, sums);
            if constexpr (Element::kKeeps) write_first(count, value.part[0], kept[row] + at);
            at = columns;
        }
        for (int i = 0; i < 2; i++) {
            for (int k = 1; k < kVectors; k++) sums[i].part[0] = sums[i].part[0] + sums[i].part[k];
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
        for (int64_t row = 0; row < rows; row += kTerms) {
            const int64_t end = std::min(row + kTerms, rows);
            int64_t at = 0;
            if constexpr (Element::kVectors >= 4 && Bytes == 64) {
                for (; at + 8 * V::kLanes <= columns; at += 8 * V::kLanes) sum<V, 8>(row, end, at, 0);
                for (; at + 6 * V::kLanes <= columns; at += 6 * V::kLanes) sum<V, 6>(row, end, at, 0);  // 96, 192
            }
            if constexpr (Element::kVectors >= 4) {
                for (; at + 4 * V::kLanes <= columns; at += 4 * V::kLanes) sum<V, 4>(row, end, at, 0);
            }
            for (; at + 2 * V::kLanes <= columns; at += 2 * V::kLanes) sum<V, 2>(row, end, at, 0);
            for (; at + V::kLanes <= columns; at += V::kLanes) sum<V, 1>(row, end, at, 0);
            const int rest = int(columns - at);  // the last vector overlaps the one before, whose columns are left out
            if (rest > 0) sum<V, 1>(row, end, columns - V::kLanes, V::kLanes - rest);
        }
    }

    // Sums the columns of kVectors vectors from `at` on, without the first `done` columns.
    template <typename V, int kVectors>
    LITEVAE_INLINE void sum(int64_t row, int64_t end, int64_t at, int done) const {
        using Values = Vectors<V, kVectors>;
        Values of[Element::kReads], sums[2] = {};
        for (int k = 0; k < Element::kReads; k++) of[k] = read_vectors<V, kVectors>(by_channel[k] + at, V::kLanes);
        const bool is_whole = x.pitch <= kVectors * V::kLanes;
        for (; row < end; row++) {
            const Values given = read_grad<Element::kReadsGrad, V, kVectors>(grad[row] + at, V::kLanes);
            prefetch_row<kVectors * V::kLanes>(x, row, at, is_whole);
            if constexpr (Element::kReadsGrad) prefetch_row<kVectors * V::kLanes>(grad, row, at, is_whole);
            const Values value = Element::add(read_vectors<V, kVectors>(x[row] + at, V::kLanes), given, of, sums);
            if constexpr (Element::kKeeps) write_vectors(value, kept[row] + at, V::kLanes);
        }
        for (int i = 0; i < 2; i++) {
            T lanes[kVectors * V::kLanes];
            write_vectors(sums[i], lanes, V::kLanes);
            for (int lane = done; lane < kVectors * V::kLanes; lane++) totals[i][at + lane] += double(lanes[lane]);
        }
    }

    // For fewer columns than a vector of 16 bytes has lanes.
    template <typename V>
    LITEVAE_INLINE void sum_few() const {
        Vectors<V, 1> of[Element::kReads];
        for (int k = 0; k < Element::kReads; k++) of[k] = {V::load(by_channel[k])};
        for (int64_t row = 0; row < rows; row++) {
            Vectors<V, 1> sums[2] = {};
            const Vectors<V, 1> given = read_first_grad<Element::kReadsGrad, V>(columns, grad[row]);
            const Vectors<V, 1> value = Element::add(Vectors<V, 1>{read_first<V>(columns, x[row], 0)}, given, of, sums);
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
