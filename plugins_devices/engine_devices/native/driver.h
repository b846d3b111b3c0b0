// How every linear kernel shares its work: panels × blocks of rows, taken dynamically; then the epilogue.
//
// A kernel K is made per thread and call, and has
//   K(const linear_args&), panel_bytes()
//   static const int rows            rows of one product at most
//   prepare(first, count)            brings rows of x into the form that it multiplies
//   multiply(panel, row, n, y)       y[n][32] = products of prepared rows row.. with a panel
// Each output is summed in one order whatever the number of rows, so that a row's result does not depend on its neighbours.
#pragma once
#include "linear.h"
#include "pool.h"
#include "vector.h"

namespace engine {

const int64_t CLAIM_BYTES = 128 << 10;  // of weights: less costs prefetching its run-up, more unbalances the threads
const int64_t BLOCK_BYTES = 512 << 10;  // of x: half of a usual second-level cache

// How far ahead of its use a panel is fetched, in bytes. The first rows stream it from memory: some lines ahead, across the page
// that the hardware's prefetcher stops at. Later rows find it in the cache, and fetch the next panel meanwhile.
inline int64_t fetch_distance(int64_t row, int64_t panel_bytes) { return row == 0 ? 4096 : panel_bytes; }

template <class T>
inline void read_row(const void* from, int64_t offset, int count, float* to) {
    const typename T::Element* source = static_cast<const typename T::Element*>(from) + offset;
    int i = 0;
    for (; i + LANES <= count; i += LANES) store_as(to + i, T::load(source + i));
    for (; i < count; i++) to[i] = T::get(source + i);
}

inline void read_row(int type, const void* from, int64_t offset, int count, float* to) {
    if (type == ENGINE_BF16) return read_row<BF16>(from, offset, count, to);
    if (type == ENGINE_F16) return read_row<F16>(from, offset, count, to);
    read_row<F32>(from, offset, count, to);
}

template <class T>
inline void add_rounded(float* y, const float* other, int count) {
    for (int i = 0; i < count; i += LANES) store_as(y + i, T::round(load_as<vf>(y + i)) + load_as<vf>(other + i));
}

template <class T>
inline void apply_gate(int gate, float* y, const float* up) {
    for (int i = 0; i < PANEL; i += LANES) {
        const vf x = T::round(load_as<vf>(y + i));
        const vf open = T::round(gate == GATE_SILU ? silu(x) : gelu_tanh(x));
        store_as(y + i, open * T::round(load_as<vf>(up + i)));
    }
}

template <class T>
inline void write_row(void* to, int64_t offset, int count, const float* y) {
    typename T::Element* target = static_cast<typename T::Element*>(to) + offset;
    int i = 0;
    for (; i + LANES <= count; i += LANES) T::store(target + i, load_as<vf>(y + i));
    for (; i < count; i++) T::put(target + i, y[i]);
}

// What happens to finished sums of one panel: `column` is its first output.
template <class T>
struct Epilogue {
    const linear_args& a;

    void add_bias(float* y, int64_t row_count, int64_t column) const {
        if (!a.bias) return;
        alignas(64) float bias[PANEL] = {};
        read_row(a.bias_type, a.bias, column, count(column, a.outputs), bias);
        for (int64_t row = 0; row < row_count; row++)
            for (int i = 0; i < PANEL; i += LANES)
                store_as(y + row * PANEL + i, load_as<vf>(y + row * PANEL + i) + load_as<vf>(bias + i));
    }

    static int count(int64_t column, int64_t outputs) { return int(outputs - column < PANEL ? outputs - column : PANEL); }

    void finish(float* y, int64_t first, int rows, int64_t column) const {
        const int columns = count(column, a.gate ? a.outputs / 2 : a.outputs);
        for (int row = 0; row < rows; row++, y += PANEL) {
            if (a.residual) {
                alignas(64) float residual[PANEL] = {};
                read_row<T>(a.residual, (first + row) * a.residual_stride + column, columns, residual);
                add_rounded<T>(y, residual, PANEL);
            }
            write_row<T>(a.out, (first + row) * a.out_stride + column, columns, y);
        }
    }
};

template <class K, class T>
void run_units(const linear_args& a, int threads) {
    K kernel(a);
    const Epilogue<T> epilogue{a};
    const int64_t panels = (a.outputs + PANEL - 1) / PANEL, units = a.gate ? panels / 2 : panels;
    int64_t block = BLOCK_BYTES / (2 * int64_t(a.inputs) + 1) / MOST_ROWS * MOST_ROWS;
    block = block < 64 ? 64 : block > 256 ? 256 : block;
    const int64_t total = (a.rows + block - 1) / block * units;
    int64_t claim = CLAIM_BYTES / (kernel.panel_bytes() * (a.gate ? 2 : 1));
    if (claim > total / (4 * threads)) claim = total / (4 * threads);
    if (claim < 1) claim = 1;
    int64_t prepared = -1;
    alignas(64) float y[K::rows * PANEL], up[K::rows * PANEL];
    for (int64_t next; (next = engine_claim(0, claim)) < total;)
        for (int64_t end = next + claim < total ? next + claim : total; next < end; next++) {
            const int64_t first = next / units * block, panel = next % units;
            const int64_t rows = a.rows - first < block ? a.rows - first : block;
            if (first != prepared) kernel.prepare(prepared = first, rows);
            for (int64_t row = 0; row < rows; row += K::rows) {
                const int n = int(rows - row < K::rows ? rows - row : K::rows);
                kernel.multiply(panel, row, n, y);
                epilogue.add_bias(y, n, panel * PANEL);
                if (a.gate) {
                    kernel.multiply(panel + units, row, n, up);
                    epilogue.add_bias(up, n, (panel + units) * PANEL);
                    for (int i = 0; i < n; i++) apply_gate<T>(a.gate, y + i * PANEL, up + i * PANEL);
                }
                epilogue.finish(y, first + row, n, panel * PANEL);
            }
        }
}

template <class K>
void run_kernel(const linear_args& a, int threads) {
    if (a.out_type == ENGINE_BF16) return run_units<K, BF16>(a, threads);
    if (a.out_type == ENGINE_F16) return run_units<K, F16>(a, threads);
    run_units<K, F32>(a, threads);
}

// Rows of x as elements of type T (F32 or BF16) that a kernel may read up to `padded` inputs of.
template <class T>
struct Rows {
    typedef typename T::Element Element;
    const linear_args& a;
    int64_t padded;
    const Element* x = nullptr;
    int64_t stride = 0;

    void prepare(int type, int64_t first, int64_t count) {
        if (a.x_type == type && a.inputs == padded) {
            x = static_cast<const Element*>(a.x) + first * a.x_stride;
            stride = a.x_stride;
            return;
        }
        stride = padded;
        Element* to = static_cast<Element*>(thread_scratch(0, count * padded * int64_t(sizeof(Element))));
        x = to;
        for (int64_t row = 0; row < count; row++, to += padded) convert(first + row, to);
    }

    void convert(int64_t row, Element* to) const {
        alignas(64) float part[256];
        for (int64_t i = 0; i < padded; i += 256) {
            const int wanted = int(padded - i < 256 ? padded - i : 256);
            const int known = int(a.inputs - i < wanted ? a.inputs - i : wanted);
            read_row(a.x_type, a.x, row * a.x_stride + i, known, part);
            for (int k = known; k < wanted; k++) part[k] = 0;
            write_row<T>(to, i, wanted, part);
        }
    }
};

}  // namespace engine
