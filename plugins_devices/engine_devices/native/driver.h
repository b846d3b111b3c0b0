// How every linear kernel shares its work: panels × blocks of rows, then the epilogue.
//
// A kernel K is made per thread and call, and has
//   K(const linear_args&), panel_bytes(), inputs() in a panel
//   static const int rows, width     rows of one product at most; bytes of an input of a panel as it is multiplied
//   static const int input_bytes     of an input of x as it is multiplied
//   unit()                           inputs come in multiples of it
//   prepare(first, count)            brings rows of x into the form that it multiplies
//   multiply(part, y)                y[n][32] = or += the products of a part (below)
// Each output is summed in one order whatever the number of rows, so that a row's result does not depend on its neighbours.
#pragma once
#include <type_traits>

#include "amx.h"
#include "fetch.h"
#include "lanes.h"
#include "leaders.h"
#include "linear.h"
#include "pool.h"
#include "vector.h"

namespace engine {

const int64_t CLAIM_BYTES = 32 << 10;   // of weights
// Of x: what a second-level cache has room for, beside weights that pass through it; and the most rows, each of which needs sums.
#if defined(ENGINE_AMX)
const int64_t BLOCK_BYTES = 1024 << 10;  // of 2 MiB, as every processor with that unit has
#else
const int64_t BLOCK_BYTES = 512 << 10;  // of 1 MiB, as most have
#endif
const int64_t BLOCK_ROWS = 256;
const int64_t PAST_ROWS = 17;  // from which on results are not kept in the cache (goes_past)
// Of weights that many rows share: they stay in the first-level cache, with the rows' inputs and sums beside them.
#if defined(ENGINE_AMX)
const int64_t PIECE_BYTES = 16 << 10;  // 32 rows pass through at a time
#else
const int64_t PIECE_BYTES = 32 << 10;
#endif
// How far ahead of its use a panel is fetched from memory when it is used but once: some lines, across the page that the hardware's
// prefetcher stops at. Lines that registers of the matrix unit load do not come in their order; that prefetcher does better with them if
// it goes along: one row, 0.93 of the time.
#if defined(ENGINE_AMX)
const int64_t STREAM_BYTES = 1024;
#else
const int64_t STREAM_BYTES = 4096;
#endif
// Weights as loops go through them: between two fetches.
const int64_t LINES = 128;

// What a product fetches meanwhile: `step` bytes more for each LINES of weights that it reads.
struct Ahead {
    const uint8_t* from;
    int64_t step;
    bool once = false;  // what is fetched will not be used again: it leaves the cache to others, as far as the machine knows how to

    // R: the rows of the product. Only where a single one waits for memory alone is a choice at each step free.
    template <int R = 0>
    void fetch() {
        if (R == 1 && once) {
            __builtin_prefetch(from, 0, 0);
            __builtin_prefetch(from + step / 2, 0, 0);
        } else {
            __builtin_prefetch(from, 0, 3);
            __builtin_prefetch(from + step / 2, 0, 3);
        }
        from += step;
    }
};

// Inputs [begin, end) of a panel for the prepared rows row … row + n - 1. Parts of a row and panel come in the inputs' order: the
// first one sets y, others add, and the one that ends with the inputs finishes what a scale or shift has to do.
struct Part {
    int64_t panel, begin, end, row;
    int n;
    Ahead ahead;
};

// Rows in groups of at most so many, as equal as they can be.
struct Groups {
    int64_t rows, count;

    Groups(int64_t all, int most) : rows(all), count((all + most - 1) / most) {}
    int64_t begin(int64_t group) const {
        const int64_t larger = rows % count;
        return rows / count * group + (group < larger ? group : larger);
    }
};

// Of all units, those that are somebody's from the start. Where memory alone counts threads end together, and the longer a thread goes
// straight on the faster it reads (with the matrix unit one row takes 0.97 of the time with seven); of many rows a last unit takes long.
inline int64_t own_eighths(int rows) {
#if defined(ENGINE_AMX)
    if (rows <= amx::ROWS) return 7;
#endif
    (void)rows;
    return 5;
}

// The units that a call does: a share of its own first, which lies together, then what is left, whoever comes.
struct Units {
    int64_t total, claim, at, end, rest;

    Units(int64_t all, int64_t together, int rows, int thread, int threads) : total(all), claim(together) {
        const int64_t own = threads > 1 ? all * own_eighths(rows) / 8 / threads : all;
        at = own * thread, end = at + own, rest = own * threads;
    }
    // The next one, or `total`; not to be asked again then.
    int64_t next() {
        if (at == end) {
            at = rest + engine_claim(0, claim);
            end = at + claim < total ? at + claim : total;
        }
        return at < total ? at++ : total;
    }
};

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
inline void write_row(void* to, int64_t offset, int count, const float* y) {
    typename T::Element* target = static_cast<typename T::Element*>(to) + offset;
    int i = 0;
    for (; i + LANES <= count; i += LANES) T::store(target + i, load_as<vf>(y + i));
    for (; i < count; i++) T::put(target + i, y[i]);
}

// 16-bit rows are written at once where the machine makes a line of two vectors.
template <class T>
inline void write_panel(typename T::Element* to, const vf (&y)[PANEL / LANES]) {
#if defined(__AVX512BF16__)
    if constexpr (std::is_same<T, BF16>::value) {
        const __m512bh both = _mm512_cvtne2ps_pbh(__m512(y[1]), __m512(y[0]));
        memcpy(to, &both, sizeof both);
        return;
    }
#endif
    for (int i = 0; i < PANEL / LANES; i++) T::store(to + i * LANES, y[i]);
}

// Whole lines of results of many rows go past the cache, where products are so fast that fetching the lines first would keep them waiting:
// rows lie some pages apart, so that a panel's lines share the few places of one set (32 rows: 0.9 of the time). end_past() before others
// read them.
template <class T>
inline bool goes_past(const linear_args& a) {
#if defined(ENGINE_AMX)
    const bool lines = std::is_same<T, BF16>::value && reinterpret_cast<uintptr_t>(a.out) % 64 == 0 && a.out_stride % PANEL == 0;
    return lines && a.rows >= PAST_ROWS && !a.residual && !a.best_value;
#else
    (void)a;
    return false;
#endif
}

inline void write_past(uint16_t* to, const vf (&y)[PANEL / LANES]) {
#if defined(ENGINE_AMX)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), __m512i(_mm512_cvtne2ps_pbh(__m512(y[1]), __m512(y[0]))));
#else
    (void)to, (void)y;
#endif
}

inline void end_past() {
#if defined(ENGINE_AMX)
    _mm_sfence();
#endif
}

// What happens to finished sums of one panel: `column` is its first output.
template <class T>
struct Epilogue {
    typedef typename T::Element Element;
    const linear_args& a;
    const Leaders& leaders;
    const bool past = goes_past<T>(a);

    // The lines that finish() will write come into the cache.
    void expect(int64_t first, int64_t rows, int64_t column) const {
        if (past) return;
        const Element* to = static_cast<const Element*>(a.out) + first * a.out_stride + column;
        const Element* from = static_cast<const Element*>(a.residual) + first * a.residual_stride + column;
        for (int64_t row = 0; row < rows; row++, to += a.out_stride, from += a.residual_stride) {
            fetch_to_write(to);
            if (a.residual && a.residual != a.out) __builtin_prefetch(from, 0, 3);
        }
    }

    static int count(int64_t column, int64_t outputs) { return int(outputs - column < PANEL ? outputs - column : PANEL); }

    vf opened(vf x) const {
        x = T::round(x);
        return T::round(a.gate == GATE_SILU ? lanes::silu_part(x) : lanes::gelu_tanh_part(x));
    }

    // One row; `bias` for y and for `up`, `residual` null or a panel of it.
    void finish_row(const float* y, const float* up, const float* bias, const Element* residual, Element* to) const {
        vf result[PANEL / LANES];
        for (int i = 0; i < PANEL / LANES; i++) {
            vf x = load_as<vf>(y + i * LANES);
            if (a.bias) x += load_as<vf>(bias + i * LANES);
            if (a.gate) {
                vf other = load_as<vf>(up + i * LANES);
                if (a.bias) other += load_as<vf>(bias + PANEL + i * LANES);
                x = opened(x) * T::round(other);
            }
            if (residual) x = T::round(x) + T::load(residual + i * LANES);
            result[i] = x;
        }
        if constexpr (std::is_same<T, BF16>::value)
            if (past) return write_past(to, result);
        write_panel<T>(to, result);
    }

    // y and, with a gate, `up`: [rows][PANEL].
    void finish(const float* y, const float* up, int64_t first, int64_t rows, int64_t column) const {
        const int64_t half = a.gate ? a.outputs / 2 : 0;
        const int columns = count(column, a.outputs - half);
        alignas(64) float bias[2 * PANEL] = {};
        if (a.bias) read_row(a.bias_type, a.bias, column, columns, bias);
        if (a.bias && a.gate) read_row(a.bias_type, a.bias, column + half, columns, bias + PANEL);
        Element* to = static_cast<Element*>(a.out) + first * a.out_stride + column;
        const Element* from = static_cast<const Element*>(a.residual) + first * a.residual_stride + column;
        for (int64_t row = 0; row < rows; row++, y += PANEL, up += PANEL, to += a.out_stride, from += a.residual_stride) {
            if (columns == PANEL) {
                finish_row(y, up, bias, a.residual ? from : nullptr, to);
            } else {
                Element before[PANEL] = {}, after[PANEL];
                if (a.residual) memcpy(before, from, size_t(columns) * sizeof(Element));
                finish_row(y, up, bias, a.residual ? before : nullptr, after);
                memcpy(to, after, size_t(columns) * sizeof(Element));
            }
            if (leaders.found) leaders.look<T>(first + row, to, column, columns);
        }
    }
};

// kernel.run<n>(part, y), n the part's number of rows.
template <class K, int N = K::rows>
inline void run_rows(K& kernel, const Part& part, float* y) {
    if constexpr (N > 0) {
        if (part.n == N) return kernel.template run<N>(part, y);
        run_rows<K, N - 1>(kernel, part, y);
    }
}

// y[rows][32] of one panel, while what `coming` points to is fetched: the panel that this thread multiplies next. before(row, count) is
// called shortly before those rows are done, after(row, count) when they are, while they are in the first-level cache.
template <class K, class BEFORE, class AFTER>
void multiply_panel(K& kernel, int64_t panel, int64_t rows, const uint8_t* coming, float* y, BEFORE before, AFTER after) {
    const int64_t inputs = kernel.inputs(), bytes = kernel.panel_bytes(), unit = kernel.unit();
    if (rows <= K::rows) {
        const uint8_t* weights = kernel.weights(panel);
        const bool next = coming == weights + bytes;
        const int64_t tail = (STREAM_BYTES * inputs + bytes - 1) / bytes, cut = next ? inputs : tail < inputs ? (inputs - tail) / unit * unit : 0;
        const bool once = kernel.a.once && fetches_for_one_use();
        const int64_t ahead = next ? STREAM_BYTES : bytes - bytes / inputs * cut;
        if (cut) kernel.multiply(Part{panel, 0, cut, 0, int(rows), {weights + ahead, LINES, once}}, y);
        if (cut < inputs) kernel.multiply(Part{panel, cut, inputs, 0, int(rows), {coming, LINES, once}}, y);
        return after(0, rows);
    }
    const int64_t piece = K::width * unit < PIECE_BYTES ? PIECE_BYTES / (K::width * unit) * unit : unit;
    const Groups groups(rows, K::rows);
    const int64_t tiles = groups.count, step = (LINES + tiles - 1) / tiles;
    const uint8_t* weights = kernel.weights(panel);
    for (int64_t begin = 0; begin < inputs; begin += piece) {
        const int64_t end = begin + piece < inputs ? begin + piece : inputs;
        const int64_t lines = (end - begin) * bytes / inputs / LINES;
        // The next piece: so a thread waits for its very first one alone.
        const uint8_t* then = end < inputs ? weights + end * bytes / inputs : coming;
        for (int64_t tile = 0, row = 0, next; tile < tiles; tile++, row = next) {
            next = groups.begin(tile + 1);
            const Ahead ahead{then + tile * lines * step, step};
            if (end == inputs) before(row, next - row);
            kernel.multiply(Part{panel, begin, end, row, int(next - row), ahead}, y + row * PANEL);
            if (end == inputs) after(row, next - row);
        }
    }
}

template <class K, class T>
void run_units(const linear_args& a, int thread, int threads) {
    K kernel(a);
    const Leaders leaders(a, thread);
    const Epilogue<T> epilogue{a, leaders};
    const int64_t panels = (a.outputs + PANEL - 1) / PANEL, gates = a.gate ? panels / 2 : 0;
    const int64_t units = a.units ? a.units : a.gate ? gates : panels;
    int64_t block = BLOCK_BYTES / (K::input_bytes * int64_t(a.inputs)) / 64 * 64;
    block = block < 64 ? 64 : block > BLOCK_ROWS ? BLOCK_ROWS : block;
    const int64_t total = (a.rows + block - 1) / block * units, claim = CLAIM_BYTES / (kernel.panel_bytes() * (a.gate ? 2 : 1));
    Units work(total, claim < 1 ? 1 : claim, a.rows, thread, threads);
    const int64_t most = a.rows < block ? a.rows : block;
    float* y = static_cast<float*>(thread_scratch(SUMS_SCRATCH, most * PANEL * 8));
    float* up = y + most * PANEL;
    int64_t prepared = -1;
    for (int64_t next, now = work.next(); now < total; now = next) {
        next = work.next();
        const int64_t first = now / units * block, panel = a.first_unit + now % units;
        const int64_t rows = a.rows - first < block ? a.rows - first : block;
        const uint8_t* coming = kernel.weights(next < total ? a.first_unit + next % units : panel);
        const auto expect = [&](int64_t row, int64_t count) { epilogue.expect(first + row, count, panel * PANEL); };
        const auto finish = [&](int64_t row, int64_t count) {
            epilogue.finish(y + row * PANEL, up + row * PANEL, first + row, count, panel * PANEL);
        };
        if (first != prepared) kernel.prepare(prepared = first, rows);
        if (a.gate) {
            const auto nothing = [](int64_t, int64_t) {};
            multiply_panel(kernel, panel, rows, kernel.weights(panel + gates), y, nothing, nothing);
        }
        multiply_panel(kernel, panel + gates, rows, coming, a.gate ? up : y, expect, finish);
    }
    if (epilogue.past) end_past();
    leaders.end(a, threads);
}

template <class K>
void run_kernel(const linear_args& a, int thread, int threads) {
    if (a.out_type == ENGINE_BF16) return run_units<K, BF16>(a, thread, threads);
    if (a.out_type == ENGINE_F16) return run_units<K, F16>(a, thread, threads);
    run_units<K, F32>(a, thread, threads);
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
        Element* to = static_cast<Element*>(thread_scratch(ROWS_SCRATCH, count * padded * int64_t(sizeof(Element))));
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
