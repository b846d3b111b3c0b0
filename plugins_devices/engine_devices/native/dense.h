// Products with dense panels: bf16, f32 and f16 weights.
#pragma once
#include "driver.h"
#include "pairs.h"

namespace engine {

// Pair number p of inputs of LANES outputs, as floats; `panel` has come to it, `part` counts groups of LANES outputs.
struct PairsBF16 {
    static const int pair_bytes = PANEL * 4;
    static void read(const uint8_t* panel, int64_t, int part, vf& first, vf& second) {
        const vu both = load_as<vu>(panel + part * LANES * 4);
        first = as_float(both << 16);
        second = as_float(both & 0xffff0000u);
    }
};

// The same where panels are kept for the matrix unit.
struct PairsInRegisters {
    static const int pair_bytes = PANEL * 4;
    static void read(const uint8_t* panel, int64_t p, int part, vf& first, vf& second) {
        const uint8_t* block = panel - p % REGISTER_PAIRS * pair_bytes;
        PairsBF16::read(block + 4 * pair_place(true, p % REGISTER_PAIRS, part * LANES), p, 0, first, second);
    }
};

struct PairsF32 {
    static const int pair_bytes = PANEL * 8;
    static void read(const uint8_t* panel, int64_t, int part, vf& first, vf& second) {
        first = load_as<vf>(panel + part * LANES * 4);
        second = load_as<vf>(panel + PANEL * 4 + part * LANES * 4);
    }
};

struct PairsF16 {
    static const int pair_bytes = PANEL * 4;
    static void read(const uint8_t* panel, int64_t, int part, vf& first, vf& second) {
        first = F16::load(reinterpret_cast<const uint16_t*>(panel) + part * LANES);
        second = F16::load(reinterpret_cast<const uint16_t*>(panel) + PANEL + part * LANES);
    }
};

// Pairs summed before they join the total: one chain over all inputs would lose digits of a float32 model.
const int64_t STRETCH = 64;

// Registers for sums: what the machine has, less what a step needs.
#if defined(__AVX512F__)
const int SUMS = 16;
#else
const int SUMS = 12;
#endif

// y[R][32] += x[R][2·pairs] · panel, for P groups of LANES outputs from group `first`.
template <class W, int R, int P>
inline void add_floats(const uint8_t* panel, int first, const float* x, int64_t stride, int64_t pairs, Ahead& ahead, float* y) {
    vf sums[R][P] = {};
    for (int64_t p = 0; p < pairs; p++, panel += W::pair_bytes) {
        for (int line = 0; line < W::pair_bytes; line += LINES) ahead.fetch<R>();
        vf low[P], high[P];
#pragma GCC unroll 8
        for (int i = 0; i < P; i++) W::read(panel, p, first + i, low[i], high[i]);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            const vf a = splat(x[r * stride + 2 * p]), b = splat(x[r * stride + 2 * p + 1]);
#pragma GCC unroll 8
            for (int i = 0; i < P; i++) sums[r][i] = sums[r][i] + a * low[i] + b * high[i];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int i = 0; i < P; i++) {
            float* to = y + r * PANEL + (first + i) * LANES;
            store_as(to, load_as<vf>(to) + sums[r][i]);
        }
}

constexpr int parts_of(int rows, int parts) { return rows * parts <= SUMS || parts == 1 ? parts : parts_of(rows, parts / 2); }

template <class W, int R>
inline void multiply_floats(const uint8_t* panel, const float* x, int64_t stride, int64_t pairs, Ahead ahead, float* y) {
    const int parts = parts_of(R, PANEL / LANES);
    for (int64_t done = 0; done < pairs; done += STRETCH) {
        const int64_t count = pairs - done < STRETCH ? pairs - done : STRETCH;
        Ahead idle{panel, 0}, fetching = ahead;
        for (int first = 0; first < PANEL / LANES; first += parts)
            add_floats<W, R, parts>(panel + done * W::pair_bytes, first, x + 2 * done, stride, count, first ? idle : fetching, y);
        ahead.from += ahead.step * (count * W::pair_bytes / LINES);
    }
}

template <class W>
struct FloatKernel {
    static const int rows = LANES == 16 ? 8 : 6, width = W::pair_bytes / 2, input_bytes = 2;
    const linear_args& a;
    Rows<F32> x;

    explicit FloatKernel(const linear_args& args) : a(args), x{args, round_up(args.inputs, 2)} {}
    int64_t inputs() const { return x.padded; }
    int64_t unit() const { return 2 * STRETCH; }
    int64_t panel_bytes() const { return x.padded / 2 * W::pair_bytes; }
    const uint8_t* weights(int64_t panel) const { return static_cast<const uint8_t*>(a.weight) + panel * panel_bytes(); }
    void prepare(int64_t first, int64_t count) { x.prepare(ENGINE_F32, first, count); }

    template <int R>
    void run(const Part& part, float* y) const {
        if (!part.begin)
            for (int i = 0; i < R * PANEL; i++) y[i] = 0;
        multiply_floats<W, R>(weights(part.panel) + part.begin / 2 * W::pair_bytes, x.x + part.row * x.stride + part.begin, x.stride,
                              (part.end - part.begin) / 2, part.ahead, y);
    }

    __attribute__((noinline)) void multiply(const Part& part, float* y) const { run_rows(*this, part, y); }
};

#if defined(__AVX512BF16__)
// y[R][32] += x[R][2·pairs] · panel, two inputs per instruction; `first`: y is set instead.
template <int R>
inline void multiply_bf16(const uint8_t* panel, const uint16_t* x, int64_t stride, int64_t pairs, Ahead ahead, bool first, float* y) {
    __m512 sums[R][2];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++) sums[r][i] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(y + r * PANEL + 16 * i);
    for (int64_t p = 0; p < pairs; p++, panel += LINES) {
        ahead.fetch<R>();
        const __m512bh left = (__m512bh)_mm512_loadu_si512(panel), right = (__m512bh)_mm512_loadu_si512(panel + 64);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            int32_t pair;
            memcpy(&pair, x + r * stride + 2 * p, 4);
            const __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
            sums[r][0] = _mm512_dpbf16_ps(sums[r][0], left, both);
            sums[r][1] = _mm512_dpbf16_ps(sums[r][1], right, both);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++) _mm512_storeu_ps(y + r * PANEL + 16 * i, sums[r][i]);
}

// bf16 weights and bf16 activations where the machine multiplies them itself.
struct KernelBF16 {
    static const int rows = 8, width = PANEL * 2, input_bytes = 2;
    const linear_args& a;
    Rows<BF16> x;

    explicit KernelBF16(const linear_args& args) : a(args), x{args, round_up(args.inputs, 2)} {}
    int64_t inputs() const { return x.padded; }
    int64_t unit() const { return 2; }
    int64_t panel_bytes() const { return x.padded * PANEL * 2; }
    const uint8_t* weights(int64_t panel) const { return static_cast<const uint8_t*>(a.weight) + panel * panel_bytes(); }
    void prepare(int64_t first, int64_t count) { x.prepare(ENGINE_BF16, first, count); }

    template <int R>
    void run(const Part& part, float* y) const {
        multiply_bf16<R>(weights(part.panel) + part.begin * PANEL * 2, x.x + part.row * x.stride + part.begin, x.stride,
                         (part.end - part.begin) / 2, part.ahead, !part.begin, y);
    }

    __attribute__((noinline)) void multiply(const Part& part, float* y) const { run_rows(*this, part, y); }
};
#endif

}  // namespace engine
