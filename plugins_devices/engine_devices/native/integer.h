// Products of integer panels (8 and 4 bits, scales per group of inputs) with activations rounded to 8 bits.
#pragma once
#include "dense.h"
#include "quantize.h"

namespace engine {

// Four unsigned bytes of a weight per lane, times four activations of one row, added to 32-bit sums. Exact.
#if defined(__AVX512VNNI__)
struct Quad {
    __m512i bytes;
    explicit Quad(vu w) : bytes(__m512i(w)) {}
    vi add(vi sum, const uint8_t* x) const {
        int32_t four;
        memcpy(&four, x, 4);
        return vi(_mm512_dpbusd_epi32(__m512i(sum), bytes, _mm512_set1_epi32(four)));
    }
};
#else
#if defined(__AVX512F__)
inline vi multiply_words(vu a, vi b) { return vi(_mm512_madd_epi16(__m512i(a), __m512i(b))); }
#elif defined(__AVX2__)
inline vi multiply_words(vu a, vi b) { return vi(_mm256_madd_epi16(__m256i(a), __m256i(b))); }
#elif defined(__SSE2__)
inline vi multiply_words(vu a, vi b) { return vi(_mm_madd_epi16(__m128i(a), __m128i(b))); }
#else
inline vi multiply_words(vu a, vi b) { return vi(a & 0xffff) * ((b << 16) >> 16) + vi(a >> 16) * (b >> 16); }
#endif
struct Quad {
    vu even, odd;
    explicit Quad(vu w) : even(w & 0x00ff00ff), odd((w >> 8) & 0x00ff00ff) {}
    vi add(vi sum, const uint8_t* x) const {
        int32_t first, second;
        memcpy(&first, x, 4);
        memcpy(&second, x + 4, 4);
        return sum + multiply_words(even, vi{} + first) + multiply_words(odd, vi{} + second);
    }
};
#endif

// sums[R][P] += `inputs` inputs of a panel, from group `first` of LANES outputs.
template <int BITS, int R, int P>
inline void add_integers(const uint8_t* panel, int first, const uint8_t* const (&x)[R], int64_t offset, int inputs, int64_t ahead,
                         vi (&sums)[R][P]) {
    const int step = BITS == 4 ? 8 : 4;
    for (int k = 0; k < inputs; k += step, panel += PANEL * 4, offset += step / 4 * QUAD_BYTES) {
        fetch(panel, ahead);
#pragma GCC unroll 8
        for (int i = 0; i < P; i++) {
            const vu bytes = load_as<vu>(panel + (first + i) * LANES * 4);
            const Quad low(BITS == 4 ? bytes & 0x0f0f0f0f : bytes), high((bytes >> 4) & 0x0f0f0f0f);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                sums[r][i] = low.add(sums[r][i], x[r] + offset);
                if (BITS == 4) sums[r][i] = high.add(sums[r][i], x[r] + offset + QUAD_BYTES);
            }
        }
    }
}

struct IntegerPanel {
    const uint8_t* values;
    const void* scale;
    const void* shift;
    int64_t groups;
    int group, x_group;
    int64_t ahead;
    float factor;
};

// y[R][32] for P groups of LANES outputs from group `first`.
template <int BITS, class S, int R, int P>
inline void multiply_integers(const IntegerPanel& panel, int first, const QuantizedRow* rows, float* y) {
    const typename S::Element* scale = static_cast<const typename S::Element*>(panel.scale) + first * LANES;
    const typename S::Element* shift = static_cast<const typename S::Element*>(panel.shift) + (panel.shift ? first * LANES : 0);
    const uint8_t* x[R];
    for (int r = 0; r < R; r++) x[r] = rows[r].values;
    const uint8_t* values = panel.values;
    vf result[R][P] = {};
    int64_t block = 0, offset = 0;
    for (int64_t g = 0; g < panel.groups; g++) {
        vf total[R][P] = {};
        for (int done = 0; done < panel.group; done += panel.x_group, block++) {
            vi sums[R][P];
#pragma GCC unroll 8
            for (int r = 0; r < R; r++)
#pragma GCC unroll 8
                for (int i = 0; i < P; i++) sums[r][i] = vi{} + rows[r].start[block];
            add_integers<BITS, R, P>(values, first, x, offset, panel.x_group, panel.ahead, sums);
            values += int64_t(panel.x_group) * PANEL * BITS / 8;
            offset += panel.x_group / 4 * QUAD_BYTES;
#pragma GCC unroll 8
            for (int r = 0; r < R; r++)
#pragma GCC unroll 8
                for (int i = 0; i < P; i++)
                    total[r][i] += __builtin_convertvector(sums[r][i], vf) * rows[r].scale[block];
        }
#pragma GCC unroll 8
        for (int i = 0; i < P; i++) {
            const vf s = S::load(scale + g * PANEL + i * LANES);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) result[r][i] += total[r][i] * s;
            if (!panel.shift) continue;
            const vf z = S::load(shift + g * PANEL + i * LANES);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) result[r][i] += z * rows[r].sum[g];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int i = 0; i < P; i++) store_as(y + r * PANEL + (first + i) * LANES, result[r][i] * panel.factor);
}

#if defined(__AVX512F__)
const int INTEGER_SUMS = 12;
#else
const int INTEGER_SUMS = 4;
#endif

constexpr int integer_parts(int rows, int parts) {
    return rows * parts <= INTEGER_SUMS || parts == 1 ? parts : integer_parts(rows, parts / 2);
}

template <int BITS, class S>
struct IntegerKernel {
    static const int rows = LANES == 16 ? 6 : 4;
    const linear_args& a;
    QuantizedRows x;

    explicit IntegerKernel(const linear_args& args) : a(args), x(args) {}
    int64_t panel_bytes() const { return x.padded * PANEL * BITS / 8; }
    void prepare(int64_t first, int64_t count) { x.prepare(first, count); }

    template <int R>
    void run(const IntegerPanel& panel, int64_t row, float* y) const {
        QuantizedRow from[R];
        for (int r = 0; r < R; r++) from[r] = x.row(row + r);
        const int parts = integer_parts(R, PANEL / LANES);
        for (int first = 0; first < PANEL / LANES; first += parts) multiply_integers<BITS, S, R, parts>(panel, first, from, y);
    }

    void multiply(int64_t panel, int64_t row, int n, float* y) const {
        const int64_t scales = panel * x.groups * PANEL * int64_t(sizeof(typename S::Element));
        const IntegerPanel from{static_cast<const uint8_t*>(a.weight) + panel * panel_bytes(),
                                static_cast<const uint8_t*>(a.scale) + scales,
                                a.shift ? static_cast<const uint8_t*>(a.shift) + scales : nullptr,
                                x.groups, a.group, a.x_group, fetch_distance(row, panel_bytes()), a.factor};
        switch (n) {
            case 1: return run<1>(from, row, y);
            case 2: return run<2>(from, row, y);
            case 3: return run<3>(from, row, y);
            case 4: return run<4>(from, row, y);
#if defined(__AVX512F__)
            case 5: return run<5>(from, row, y);
            case 6: return run<6>(from, row, y);
#endif
        }
    }
};

}  // namespace engine
