// Products of quantized panels with activations as they are: a panel is decoded to bf16 (or floats) unscaled, multiplied as a
// dense one, and scaled per group of inputs. Exact up to float32 sums: every decoded value has at most 8 significant bits.
#pragma once
#include <type_traits>

#include "dense.h"

namespace engine {

const int DECODE = 128;  // inputs decoded and multiplied at a time, at most a group

// A format reads values from panels. `table`: a bf16 of each code is looked up in registers. Most hold nothing; a format is made from
// the arguments and whether its values are to be bf16.
struct Stateless {
    Stateless() = default;
    Stateless(const linear_args&, bool) {}
};

// Four inputs of LANES outputs as floats, from dwords of 4 bytes (see linear.h).
struct Bytes8 : Stateless {
    // 256 codes are more than it takes to convert them.
    static const bool table = false;
    using Stateless::Stateless;
    static const int bits = 8;
    static void read(const uint8_t* panel, int64_t quad, int part, vf (&out)[4]) {
        const vu four = load_as<vu>(panel + (quad * PANEL + part * LANES) * 4);
        for (int j = 0; j < 4; j++) out[j] = __builtin_convertvector(vi((four >> (8 * j)) & 0xff) - 128, vf);
    }
};

struct Nibbles4 : Stateless {
    static const bool table = true;
    using Stateless::Stateless;
    static const int bits = 4;
    static void read(const uint8_t* panel, int64_t quad, int part, vf (&out)[4]) {
        const vu bytes = load_as<vu>(panel + (quad / 2 * PANEL + part * LANES) * 4) >> (4 * (quad & 1));
        for (int j = 0; j < 4; j++) out[j] = __builtin_convertvector(vi((bytes >> (8 * j)) & 0xf) - 8, vf);
    }
};

// float8 with E exponent bits and M mantissa bits: its bits at a float's place are the value times 2^(bias - 127), denormals included.
template <int E, int M, bool INFINITIES>
struct Float8 : Stateless {
    static const bool table = true;
    using Stateless::Stateless;
    static const int bits = 8;
    static void read(const uint8_t* panel, int64_t quad, int part, vf (&out)[4]) {
        const vu four = load_as<vu>(panel + (quad * PANEL + part * LANES) * 4);
        const int bias = (1 << (E - 1)) - 1;
        const vf power = as_float(vu{} + (uint32_t(127 + 127 - bias) << 23));
        for (int j = 0; j < 4; j++) {
            const vu byte = four >> (8 * j);
            const vu size = byte & 0x7f;
            const vf value = as_float(size << (23 - M)) * power;
            const vu special = vu(vi(size > (INFINITIES ? 0x7bu : 0x7eu)));
            const vu quiet = INFINITIES ? vu(vi(size > 0x7cu)) & 0x400000 : vu{} + 0x400000;
            out[j] = as_float((((as_bits(value) & ~special) | (special & (0x7f800000 | quiet)))) | ((byte & 0x80) << 24));
        }
    }
};

typedef Float8<4, 3, false> Float8E4M3;
typedef Float8<5, 2, true> Float8E5M2;

// How decoded panels are kept and multiplied: as floats, or as pairs of bf16 for the machine's own instruction.
struct AsFloats {
    typedef F32 X;
    static const int type = ENGINE_F32;
    static const int bytes = PANEL * 4;  // of one input
    static void put(uint8_t* to, int64_t quad, int part, const vf (&four)[4]) {
        for (int j = 0; j < 4; j++) store_as(to + (quad * 4 + j) * bytes + part * LANES * 4, four[j]);
    }
    template <int R>
    static void multiply(const uint8_t* panel, const float* x, int64_t stride, int64_t inputs, float* y) {
        for (int i = 0; i < R * PANEL; i++) y[i] = 0;
        multiply_floats<PairsF32, R>(panel, x, stride, inputs / 2, Ahead{panel, 0}, y);
    }
};

#if defined(__AVX512BF16__)
// The bf16 of each of a format's codes without its sign: looked up in registers.
template <class Format>
struct Codes {
    static const int codes = Format::bits == 4 ? 32 : 128;  // 16 of 4 bits stand there twice: a fifth bit of an index is ignored
    alignas(64) uint16_t values[codes];

    Codes() {
        for (int code = 0; code < codes; code++) {
            alignas(64) uint8_t panel[PANEL * 4] = {uint8_t(Format::bits == 4 ? code & 15 : code)};
            vf four[4];
            Format::read(panel, 0, 0, four);
            values[code] = to_bf16(float(four[0][0]));
        }
    }
    __m512i line(int number) const { return _mm512_load_si512(values + 32 * number); }
};

template <class Format>
inline const Codes<Format>& codes_of(const Format&) {
    static const Codes<Format> codes;
    return codes;
}

// Two inputs, as bytes 2·HALF and 2·HALF + 1 of each dword, as the two words of that dword.
template <int HALF>
inline __m512i spread(__m512i dwords) {
    const int first = 2 * HALF;
    return _mm512_shuffle_epi8(dwords, _mm512_set4_epi32(int(0x800c800c + (first + 1) * 0x10000 + first),
                                                         int(0x80088008 + (first + 1) * 0x10000 + first),
                                                         int(0x80048004 + (first + 1) * 0x10000 + first),
                                                         int(0x80008000 + (first + 1) * 0x10000 + first)));
}

inline __m512i look_up(const Codes<Nibbles4>& codes, __m512i index) { return _mm512_permutexvar_epi16(index, codes.line(0)); }

template <class Format>
inline __m512i look_up(const Codes<Format>& codes, __m512i index) {
    const __m512i low = _mm512_permutex2var_epi16(codes.line(0), index, codes.line(1));
    const __m512i high = _mm512_permutex2var_epi16(codes.line(2), index, codes.line(3));
    const __m512i size = _mm512_mask_blend_epi16(_mm512_test_epi16_mask(index, _mm512_set1_epi16(0x40)), low, high);
    return _mm512_or_si512(size, _mm512_and_si512(_mm512_slli_epi16(index, 8), _mm512_set1_epi16(int16_t(0x8000))));
}

struct AsBF16 {
    typedef BF16 X;
    static const int type = ENGINE_BF16;
    static const int bytes = PANEL * 2;
    static void put(uint8_t* to, int64_t quad, int part, const vf (&four)[4]) {
        for (int j = 0; j < 4; j += 2) {
            const vu pair = (as_bits(four[j]) >> 16) | (as_bits(four[j + 1]) & 0xffff0000);
            store_as(to + (quad * 4 + j) * bytes + part * LANES * 4, pair);
        }
    }
    template <int R>
    static void multiply(const uint8_t* panel, const uint16_t* x, int64_t stride, int64_t inputs, float* y) {
        multiply_bf16<R>(panel, x, stride, inputs / 2, Ahead{panel, 0}, true, y);
    }
};
#endif

template <class Format, class Form, class S>
struct DecodedKernel {
    static const int rows = LANES == 16 ? 8 : 6, width = Form::bytes, input_bytes = 2;
    typedef typename Form::X::Element Element;
    const linear_args& a;
    const Format format;
    Rows<typename Form::X> x;
    int64_t groups, step, count = 0;
    float* sums = nullptr;  // [rows][groups] of x, where the weight has a shift

    explicit DecodedKernel(const linear_args& args)
        : a(args), format(args, Form::type == ENGINE_BF16), x{args, round_up(args.inputs, args.group)} {
        groups = x.padded / a.group;
        for (step = DECODE; a.group % step;) step /= 2;
    }
    int64_t inputs() const { return x.padded; }
    int64_t unit() const { return step; }
    int64_t panel_bytes() const { return x.padded * PANEL * Format::bits / 8; }
    const uint8_t* weights(int64_t panel) const { return static_cast<const uint8_t*>(a.weight) + panel * panel_bytes(); }

    void prepare(int64_t first, int64_t number) {
        x.prepare(Form::type, first, number);
        count = number;
        if (!a.shift) return;
        sums = static_cast<float*>(thread_scratch(SHIFT_SCRATCH, number * groups * 4));
        for (int64_t row = 0; row < number; row++)
            for (int64_t g = 0; g < groups; g++) {
                float total = 0;
                for (int64_t i = g * a.group; i < (g + 1) * a.group && i < x.padded; i++)
                    total += Form::X::get(x.x + row * x.stride + i);
                sums[row * groups + g] = total;
            }
    }

    void decode(const uint8_t* panel, int64_t first, int64_t inputs, Ahead& ahead, uint8_t* to) const {
        decode_panel(format, Form(), panel, first, inputs, ahead, to);
    }

#if defined(__AVX512BF16__)
    template <class F>
    static typename std::enable_if<F::table>::type decode_panel(const F& format, AsBF16, const uint8_t* panel, int64_t first,
                                                                                     int64_t inputs, Ahead& ahead, uint8_t* to) {
        const auto& codes = codes_of(format);
        const int together = F::bits == 4 ? 8 : 4;
        panel += first / together * PANEL * 4;
        for (int64_t k = 0; k < inputs; k += together, panel += PANEL * 4) {
            ahead.fetch();
            for (int half = 0; half < 2; half++) {
                const __m512i dwords = _mm512_loadu_si512(panel + half * 64);
                uint8_t* pair = to + k * PANEL * 2 + half * 64;
                const __m512i left = spread<0>(dwords), right = spread<1>(dwords);
                _mm512_store_si512(pair, look_up(codes, left));
                _mm512_store_si512(pair + PANEL * 4, look_up(codes, right));
                if (F::bits != 4) continue;
                _mm512_store_si512(pair + PANEL * 8, look_up(codes, _mm512_srli_epi16(left, 4)));
                _mm512_store_si512(pair + PANEL * 12, look_up(codes, _mm512_srli_epi16(right, 4)));
            }
        }
    }
#endif

    template <class F, class Any>
    static void decode_panel(const F& format, Any, const uint8_t* panel, int64_t first, int64_t inputs, Ahead& ahead, uint8_t* to) {
        for (int64_t quad = 0; quad < inputs / 4; quad++) {
            if (quad * F::bits % 8 < F::bits) ahead.fetch();
            for (int part = 0; part < PANEL / LANES; part++) {
                vf four[4];
                format.read(panel, first / 4 + quad, part, four);
                Form::put(to, quad, part, four);
            }
        }
    }

    // Few rows: step by step through the first-level cache. Many: the part once, for all of them.
    template <int R>
    void run(const Part& part, float* y) const {
        const uint8_t* weight = weights(part.panel);
        const bool whole = count > rows;
        Ahead ahead = part.ahead;
        uint8_t* memory = static_cast<uint8_t*>(thread_scratch(PANEL_SCRATCH, (whole ? part.end - part.begin : step) * Form::bytes));
        if (whole && part.row == 0) {
            ahead.step = LINES;
            decode(weight, part.begin, part.end - part.begin, ahead, memory);
        }
        alignas(64) float piece[R * PANEL];
        if (!part.begin)
            for (int i = 0; i < R * PANEL; i++) y[i] = 0;
        for (int64_t i = part.begin; i < part.end; i += step) {
            if (!whole) decode(weight, i, step, ahead, memory);
            const uint8_t* panel = whole ? memory + (i - part.begin) * Form::bytes : memory;
            Form::template multiply<R>(panel, x.x + part.row * x.stride + i, x.stride, step, piece);
            add_scaled<R>(part.panel, i / a.group, piece, y);
        }
        if (part.end < x.padded) return;
        if (a.shift) add_shift<R>(part.panel, part.row, y);
        const float* outer = a.outer ? a.outer + part.panel * PANEL : nullptr;
        for (int i = 0; i < R * PANEL; i++) y[i] *= outer ? a.factor * outer[i % PANEL] : a.factor;
    }

    template <int R>
    void add_scaled(int64_t panel, int64_t g, const float* piece, float* y) const {
        const typename S::Element* scale = static_cast<const typename S::Element*>(a.scale) + (panel * groups + g) * PANEL;
        for (int i = 0; i < PANEL; i += LANES) {
            const vf s = S::load(scale + i);
            for (int r = 0; r < R; r++) {
                float* to = y + r * PANEL + i;
                store_as(to, load_as<vf>(to) + load_as<vf>(piece + r * PANEL + i) * s);
            }
        }
    }

    template <int R>
    void add_shift(int64_t panel, int64_t row, float* y) const {
        for (int64_t g = 0; g < groups; g++) {
            const typename S::Element* shift = static_cast<const typename S::Element*>(a.shift) + (panel * groups + g) * PANEL;
            for (int i = 0; i < PANEL; i += LANES) {
                const vf z = S::load(shift + i);
                for (int r = 0; r < R; r++) {
                    float* to = y + r * PANEL + i;
                    store_as(to, load_as<vf>(to) + z * sums[(row + r) * groups + g]);
                }
            }
        }
    }

    __attribute__((noinline)) void multiply(const Part& part, float* y) const { run_rows(*this, part, y); }
};

// x as it is: two bf16 of it multiplied at once where the machine does that.
template <class Format, class S>
void run_decoded_as(const linear_args& a, int thread, int threads) {
#if defined(__AVX512BF16__)
    if (a.x_type == ENGINE_BF16) return run_kernel<DecodedKernel<Format, AsBF16, S>>(a, thread, threads);
#endif
    run_kernel<DecodedKernel<Format, AsFloats, S>>(a, thread, threads);
}

}  // namespace engine
