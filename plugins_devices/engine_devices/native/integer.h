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
    int64_t inputs;  // padded
    int group, x_group;
    int64_t ahead;
    float factor;
};

// For R rows and P groups of LANES outputs, in registers.
#define ENGINE_FOR_ALL(R, P)                                                 \
    _Pragma("GCC unroll 8") for (int r = 0; r < R; r++)                      \
        _Pragma("GCC unroll 8") for (int i = 0; i < P; i++)

// y[R][32] for P groups of LANES outputs from group `first`. FINE: the weight's groups lie within the activations' blocks, whose
// scale then comes last; else the other way round. A piece, the smaller of the two, is summed in integers.
template <int BITS, class S, bool FINE, int R, int P>
inline void multiply_integers(const IntegerPanel& panel, int first, const QuantizedRow* rows, float* y) {
    const typename S::Element* scale = static_cast<const typename S::Element*>(panel.scale) + first * LANES;
    const typename S::Element* shift = static_cast<const typename S::Element*>(panel.shift) + (panel.shift ? first * LANES : 0);
    const uint8_t* x[R];
    for (int r = 0; r < R; r++) x[r] = rows[r].values;
    const int inner = FINE ? panel.group : panel.x_group, outer = FINE ? panel.x_group : panel.group;
    const uint8_t* values = panel.values;
    vf result[R][P] = {};
    int64_t piece = 0, offset = 0;
    for (int64_t o = 0; o < panel.inputs / outer; o++) {
        vf total[R][P] = {};
        for (int done = 0; done < outer; done += inner, piece++) {
            vi sums[R][P];
            ENGINE_FOR_ALL(R, P) sums[r][i] = vi{} + rows[r].start[piece];
            add_integers<BITS, R, P>(values, first, x, offset, inner, panel.ahead, sums);
            values += int64_t(inner) * PANEL * BITS / 8;
            offset += inner / 4 * QUAD_BYTES;
            vf weight[P];
            if (FINE)
                for (int i = 0; i < P; i++) weight[i] = S::load(scale + piece * PANEL + i * LANES);
            ENGINE_FOR_ALL(R, P) {
                const vf sum = __builtin_convertvector(sums[r][i], vf);
                total[r][i] += FINE ? sum * weight[i] : sum * rows[r].scale[piece];
            }
        }
        vf weight[P];
        if (!FINE)
            for (int i = 0; i < P; i++) weight[i] = S::load(scale + o * PANEL + i * LANES);
        ENGINE_FOR_ALL(R, P) result[r][i] += FINE ? total[r][i] * rows[r].scale[o] : total[r][i] * weight[i];
    }
    for (int64_t g = 0; panel.shift && g < panel.inputs / panel.group; g++)
        ENGINE_FOR_ALL(R, P) result[r][i] += S::load(shift + g * PANEL + i * LANES) * rows[r].sum[g];
    ENGINE_FOR_ALL(R, P) store_as(y + r * PANEL + (first + i) * LANES, result[r][i] * panel.factor);
}

#if defined(__AVX512F__)
const int INTEGER_SUMS = 16;
#else
const int INTEGER_SUMS = 4;
#endif

constexpr int integer_parts(int rows, int parts) {
    return rows * parts <= INTEGER_SUMS || parts == 1 ? parts : integer_parts(rows, parts / 2);
}

// 4 bits per value as bytes, in the layout of 8 bits (but still value + 8): many rows then unpack a panel once.
inline void unpack_nibbles(const uint8_t* from, int64_t inputs, uint8_t* to) {
    for (int64_t k = 0; k < inputs; k += 8, from += PANEL * 4, to += PANEL * 8) {
        fetch(from, 4096);
        for (int i = 0; i < PANEL * 4; i += 4 * LANES) {
            const vu bytes = load_as<vu>(from + i);
            store_as(to + i, bytes & 0x0f0f0f0f);
            store_as(to + PANEL * 4 + i, (bytes >> 4) & 0x0f0f0f0f);
        }
    }
}

template <int BITS, class S>
struct IntegerKernel {
    // With 4 bits, two vectors of weights and their halves need registers that more rows would take.
    static const int rows = LANES == 16 ? (BITS == 4 ? 6 : 8) : 4;
    const linear_args& a;
    QuantizedRows x;
    int64_t count = 0;
    int64_t unpacked[2] = {-1, -1};

    explicit IntegerKernel(const linear_args& args) : a(args), x(args) {}
    int64_t panel_bytes() const { return x.padded * PANEL * BITS / 8; }
    void prepare(int64_t first, int64_t number) { x.prepare(first, count = number); }

    template <int WIDTH, int R>
    void run(const IntegerPanel& panel, int64_t row, float* y) const {
        QuantizedRow from[R];
        for (int r = 0; r < R; r++) from[r] = x.row(row + r);
        const int parts = integer_parts(R, PANEL / LANES);
        for (int first = 0; first < PANEL / LANES; first += parts) {
            if (a.group < a.x_group)
                multiply_integers<WIDTH, S, true, R, parts>(panel, first, from, y);
            else
                multiply_integers<WIDTH, S, false, R, parts>(panel, first, from, y);
        }
    }

    template <int WIDTH>
    void run(const IntegerPanel& panel, int64_t row, int n, float* y) const {
        switch (n) {
            case 1: return run<WIDTH, 1>(panel, row, y);
            case 2: return run<WIDTH, 2>(panel, row, y);
            case 3: return run<WIDTH, 3>(panel, row, y);
            case 4: return run<WIDTH, 4>(panel, row, y);
#if defined(__AVX512F__)
            case 5: return run<WIDTH, 5>(panel, row, y);
            case 6: return run<WIDTH, 6>(panel, row, y);
            case 7: return run<WIDTH, 7>(panel, row, y);
            case 8: return run<WIDTH, 8>(panel, row, y);
#endif
        }
    }

    __attribute__((noinline)) void multiply(int64_t panel, int64_t row, int n, float* y) {
        const int64_t scales = panel * x.groups * PANEL * int64_t(sizeof(typename S::Element));
        IntegerPanel from{static_cast<const uint8_t*>(a.weight) + panel * panel_bytes(),
                          static_cast<const uint8_t*>(a.scale) + scales,
                          a.shift ? static_cast<const uint8_t*>(a.shift) + scales : nullptr,
                          x.padded, a.group, a.x_group, fetch_distance(row, panel_bytes()), a.factor};
        if (BITS == 8 || count <= rows) return run<BITS>(from, row, n, y);
        const int slot = a.gate && panel >= (a.outputs + PANEL - 1) / PANEL / 2;
        uint8_t* bytes = static_cast<uint8_t*>(thread_scratch(2 + slot, x.padded * PANEL));
        if (unpacked[slot] != panel) unpack_nibbles(from.values, x.padded, bytes);
        unpacked[slot] = panel;
        from.values = bytes;
        from.ahead = 0;
        run<8>(from, row, n, y);
    }
};

}  // namespace engine
