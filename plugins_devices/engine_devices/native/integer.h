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
inline void add_integers(const uint8_t* panel, int first, const uint8_t* const (&x)[R], int64_t offset, int inputs, Ahead& ahead,
                         vi (&sums)[R][P]) {
    const int step = BITS == 4 ? 8 : 4;
    for (int k = 0; k < inputs; k += step, panel += PANEL * 4, offset += step / 4 * QUAD_BYTES) {
        ahead.fetch<R>();
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

// Inputs [begin, end) of a panel of so many; `values` those of `begin`, scale and shift the panel's.
struct IntegerPart {
    const uint8_t* values;
    const void* scale;
    const void* shift;
    int64_t begin, end, inputs;
    int group, x_group;
    Ahead ahead;
    float factor;
};

// For R rows and P groups of LANES outputs, in registers.
#define ENGINE_FOR_ALL(R, P)                                                 \
    _Pragma("GCC unroll 8") for (int r = 0; r < R; r++)                      \
        _Pragma("GCC unroll 8") for (int i = 0; i < P; i++)

// y[R][32] for P groups of LANES outputs from group `first`. FINE: the weight's groups lie within the activations' blocks, whose
// scale then comes last; else the other way round. A piece, the smaller of the two, is summed in integers. Parts that do not begin
// with a group go on with its sum, which y holds then.
template <int BITS, class S, bool FINE, int R, int P>
inline void multiply_integers(const IntegerPart& part, int first, const QuantizedRow* rows, Ahead ahead, float* y) {
    const typename S::Element* scale = static_cast<const typename S::Element*>(part.scale) + first * LANES;
    const typename S::Element* shift = static_cast<const typename S::Element*>(part.shift) + (part.shift ? first * LANES : 0);
    const uint8_t* x[R];
    for (int r = 0; r < R; r++) x[r] = rows[r].values;
    const int inner = FINE ? part.group : part.x_group, outer = FINE ? part.x_group : part.group;
    const bool begun = part.begin % outer != 0;
    const uint8_t* values = part.values;
    vf result[R][P], total[R][P];
    ENGINE_FOR_ALL(R, P) {
        const vf before = part.begin ? load_as<vf>(y + r * PANEL + (first + i) * LANES) : vf{};
        result[r][i] = begun ? vf{} : before;
        total[r][i] = begun ? before : vf{};
    }
    int64_t piece = part.begin / inner, offset = part.begin / 4 * QUAD_BYTES, at = part.begin;
    while (at < part.end) {
        const int64_t o = at / outer, whole = (o + 1) * outer, stop = whole < part.end ? whole : part.end;
        for (; at < stop; at += inner, piece++) {
            vi sums[R][P];
            ENGINE_FOR_ALL(R, P) sums[r][i] = vi{} + rows[r].start[piece];
            add_integers<BITS, R, P>(values, first, x, offset, inner, ahead, sums);
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
        if (at < whole) break;
        vf weight[P];
        if (!FINE)
            for (int i = 0; i < P; i++) weight[i] = S::load(scale + o * PANEL + i * LANES);
        ENGINE_FOR_ALL(R, P) {
            result[r][i] += FINE ? total[r][i] * rows[r].scale[o] : total[r][i] * weight[i];
            total[r][i] = vf{};
        }
    }
    if (part.end < part.inputs) {
        const bool open = part.end % outer != 0;
        ENGINE_FOR_ALL(R, P) store_as(y + r * PANEL + (first + i) * LANES, open ? total[r][i] : result[r][i]);
        return;
    }
    for (int64_t g = 0; part.shift && g < part.inputs / part.group; g++)
        ENGINE_FOR_ALL(R, P) result[r][i] += S::load(shift + g * PANEL + i * LANES) * rows[r].sum[g];
    ENGINE_FOR_ALL(R, P) store_as(y + r * PANEL + (first + i) * LANES, result[r][i] * part.factor);
}

// Inputs of a block that multiply_blocks() takes.
const int BLOCK = 128;

// Whether it does: each block of activations has one scale of the weight, its own or that of all inputs.
inline bool whole_blocks(const linear_args& a) {
    return a.x_group == BLOCK && (a.group == BLOCK || a.group >= round_up(a.inputs, a.group));
}

// A block's sum times the scale of its activations and, unless WHOLE, of its weights.
template <bool WHOLE>
inline vf scaled(vi sum, vf factor, vf weight) {
    const vf result = __builtin_convertvector(sum, vf) * factor;
    return WHOLE ? result : result * weight;
}

// y[LANES] of all blocks, with what comes once for a row: the scale of all inputs if WHOLE, the groups' shifts, the factor.
template <class S, bool WHOLE>
inline void finish_blocks(vf whole, const typename S::Element* shift, const float* sum, int64_t groups, float factor, float* y) {
    vf result = WHOLE ? load_as<vf>(y) * whole : load_as<vf>(y);
    for (int64_t g = 0; shift && g < groups; g++) result += S::load(shift + g * PANEL) * sum[g];
    store_as(y, result * factor);
}

// y[R][P·LANES] (`first`: 0) += BLOCK inputs of a panel, times the scale of the activations' block and, unless WHOLE, of the weight's. The
// start of a row's sum and its scale are so many bytes from its numbers. A function of its own, for the registers' sake: around
// another loop GCC moves sums to and fro.
template <int BITS, class S, bool WHOLE, bool STREAM, int R, int P>
__attribute__((noinline)) void multiply_block(const uint8_t* panel, const uint8_t* row, int64_t stride, int64_t start, int64_t scale,
                                              bool first, float* y, const typename S::Element* weight, Ahead& fetching) {
    const int step = BITS == 4 ? 8 : 4;
    const uint8_t* x[R];
    vi sums[R][P];
    Ahead ahead = fetching;
    for (int r = 0; r < R; r++) {
        x[r] = r ? apart(x[r - 1], stride) : row;
        for (int i = 0; i < P; i++) sums[r][i] = all_of(*reinterpret_cast<const int32_t*>(x[r] + start));
    }
#pragma GCC unroll 1
    for (int64_t offset = 0; offset < BLOCK / 4 * QUAD_BYTES; offset += step / 4 * QUAD_BYTES, panel += PANEL * 4) {
        if (STREAM) ahead.fetch<R>();
#pragma GCC unroll 8
        for (int i = 0; i < P; i++) {
            const vu bytes = load_as<vu>(panel + i * LANES * 4);
            const Quad low(BITS == 4 ? bytes & 0x0f0f0f0f : bytes), high((bytes >> 4) & 0x0f0f0f0f);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                sums[r][i] = low.add(sums[r][i], x[r] + offset);
                if (BITS == 4) sums[r][i] = high.add(sums[r][i], x[r] + offset + QUAD_BYTES);
            }
        }
    }
    if (STREAM) fetching = ahead;
    vf each[P];
    if (!WHOLE)
        for (int i = 0; i < P; i++) each[i] = S::load(weight + i * LANES);
    ENGINE_FOR_ALL(R, P) {
        const vf factor = all_of(*reinterpret_cast<const float*>(x[r] + scale));
        float* to = y + r * PANEL + i * LANES;
        store_as(to, load_unless(first, to) + scaled<WHOLE>(sums[r][i], factor, WHOLE ? factor : each[i]));
    }
}

// As multiply_integers() where each block of activations has BLOCK inputs and one scale of the weight: its own, or (WHOLE) that of
// all inputs. y holds the sums, as the integers of a block take the registers.
template <int BITS, class S, bool WHOLE, bool STREAM, int R, int P>
inline void multiply_blocks(const IntegerPart& part, int first, const QuantizedTile& rows, Ahead ahead, float* y) {
    const typename S::Element* weight = static_cast<const typename S::Element*>(part.scale) + first * LANES;
    const uint8_t* values = part.values + first * LANES * 4;
    y += first * LANES;
    const int64_t fetched = STREAM ? 0 : ahead.step * (BLOCK / 4), begin = part.begin / BLOCK, end = part.end / BLOCK;
    const uint8_t* x = rows.first + part.begin / 4 * QUAD_BYTES;
    const uint8_t* scales = rows.first + rows.scale + 4 * begin;
    const int64_t start = rows.start - rows.scale;
    for (int64_t block = begin; block < end; block++) {
        for (int64_t i = 0; i < fetched; i += 64) __builtin_prefetch(ahead.from + i, 0, 3);
        ahead.from += fetched;
        multiply_block<BITS, S, WHOLE, STREAM, R, P>(values, x, rows.stride, scales + start - x, scales - x, !block, y,
                                                     WHOLE ? weight : weight + block * PANEL, ahead);
        values += BLOCK * PANEL * BITS / 8;
        x += BLOCK / 4 * QUAD_BYTES;
        scales += 4;
    }
    if (part.end < part.inputs) return;
    for (int i = 0; i < P; i++) {
        const vf whole = S::load(weight + i * LANES);
        const typename S::Element* shift = static_cast<const typename S::Element*>(part.shift);
        if (shift) shift += (first + i) * LANES;
        for (int r = 0; r < R; r++) {
            const float* sum = reinterpret_cast<const float*>(rows.first + r * rows.stride + rows.sum);
            finish_blocks<S, WHOLE>(whole, shift, sum, part.inputs / part.group, part.factor, y + r * PANEL + i * LANES);
        }
    }
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
    static const int rows = LANES == 16 ? (BITS == 4 ? 6 : 8) : 4, width = PANEL, input_bytes = QUAD_BYTES / 4;
    const linear_args& a;
    QuantizedRows x;
    bool blocks;
    int64_t count = 0;

    explicit IntegerKernel(const linear_args& args)
        : a(args), x(args), blocks(whole_blocks(args)) {}
    int64_t inputs() const { return x.padded; }
    // Whole groups; a group of all inputs may be taken in several parts.
    int64_t unit() const { return a.group < x.padded && a.group > a.x_group ? a.group : a.x_group; }
    int64_t panel_bytes() const { return x.padded * PANEL * BITS / 8; }
    const uint8_t* weights(int64_t panel) const { return static_cast<const uint8_t*>(a.weight) + panel * panel_bytes(); }
    void prepare(int64_t first, int64_t number) { x.prepare(first, count = number); }

    template <int WIDTH, bool STREAM, int R>
    void run_blocks(const IntegerPart& part, int64_t row, float* y) const {
        const QuantizedTile from = x.tile(row);
        const int parts = integer_parts(R, PANEL / LANES);
        for (int first = 0; first < PANEL / LANES; first += parts) {
            const Ahead ahead = first ? Ahead{part.values, 0} : part.ahead;
            if (a.group == BLOCK)
                multiply_blocks<WIDTH, S, false, STREAM, R, parts>(part, first, from, ahead, y);
            else
                multiply_blocks<WIDTH, S, true, STREAM, R, parts>(part, first, from, ahead, y);
        }
    }

    template <int WIDTH, int R>
    void run(const IntegerPart& part, int64_t row, float* y) const {
        if (blocks) {
            if (count <= rows) return run_blocks<WIDTH, true, R>(part, row, y);
            if constexpr (R > rows / 2 - 1 && WIDTH == 8) return run_blocks<WIDTH, false, R>(part, row, y);
        }
        QuantizedRow from[R];
        for (int r = 0; r < R; r++) from[r] = x.row(row + r);
        const int parts = integer_parts(R, PANEL / LANES);
        for (int first = 0; first < PANEL / LANES; first += parts) {
            const Ahead ahead = first ? Ahead{part.values, 0} : part.ahead;
            if (a.group < a.x_group)
                multiply_integers<WIDTH, S, true, R, parts>(part, first, from, ahead, y);
            else
                multiply_integers<WIDTH, S, false, R, parts>(part, first, from, ahead, y);
        }
    }

    template <int WIDTH>
    void run(const IntegerPart& part, int64_t row, int n, float* y) const {
        switch (n) {
            case 1: return run<WIDTH, 1>(part, row, y);
            case 2: return run<WIDTH, 2>(part, row, y);
            case 3: return run<WIDTH, 3>(part, row, y);
            case 4: return run<WIDTH, 4>(part, row, y);
#if defined(__AVX512F__)
            case 5: return run<WIDTH, 5>(part, row, y);
            case 6: return run<WIDTH, 6>(part, row, y);
            case 7: return run<WIDTH, 7>(part, row, y);
            case 8: return run<WIDTH, 8>(part, row, y);
#endif
        }
    }

    __attribute__((noinline)) void multiply(const Part& part, float* y) {
        const int64_t scales = part.panel * x.groups * PANEL * int64_t(sizeof(typename S::Element));
        IntegerPart from{weights(part.panel) + part.begin * PANEL * BITS / 8,
                         static_cast<const uint8_t*>(a.scale) + scales,
                         a.shift ? static_cast<const uint8_t*>(a.shift) + scales : nullptr,
                         part.begin, part.end, x.padded, a.group, a.x_group, part.ahead, a.factor};
        if (BITS == 8 || count <= rows) return run<BITS>(from, part.row, part.n, y);
        uint8_t* bytes = static_cast<uint8_t*>(thread_scratch(PANEL_SCRATCH, (part.end - part.begin) * PANEL));
        if (part.row == 0) unpack_nibbles(from.values, part.end - part.begin, bytes);
        from.values = bytes;
        from.ahead.step = (from.ahead.step + 1) / 2;
        run<8>(from, part.row, part.n, y);
    }
};

}  // namespace engine
