// Rows of queries against the tiles of one segment: scores, softmax, sum of values.
#pragma once
#include "amx.h"
#include "attention_products.h"
#include "lanes.h"
#include "pages.h"

namespace tiles {
namespace {

using namespace lanes;

const int SEGMENT = 256;
#if defined(ENGINE_AMX)
const int MOST_ROWS = amx::ROWS;
#else
const int MOST_ROWS = 8;
#endif

// Tokens [begin, end) of a segment, from token `first` on in tiles of 16. `copies`: room for tiles that are put together or changed.
struct Segment {
    int begin, end, first, count;
    char* copies;
    const char* keys[SEGMENT / 16];
    const char* values[SEGMENT / 16];
};

struct Softmax {
    float scale, soft_cap;
    int window, position, group;
};

template <class C>
INLINE int64_t tile_bytes(int dim) {
    return int64_t(16) * dim * sizeof(C);
}

// Puts a tile together from pages of fewer than 16 tokens; tokens from `end` on become zeros.
template <class C>
void gather(const engine_pages& p, const int32_t* table, int head, int token, int end, char* keys, char* values) {
    const int S = Pairing<C>::step, dim = pages::padded(p.head_dim), size = p.block_size;
    const int64_t half = pages::half_bytes(p);
    memset(keys, 0, tile_bytes<C>(dim));
    memset(values, 0, tile_bytes<C>(dim));
    for (int at = 0; at < 16 && token + at < end; at += size) {
        const char* page = (const char*)p.pages + table[(token + at) / size] * p.page_bytes + head * 2 * half;
        for (int d = 0; d < dim / S; d++)
            memcpy(keys + (int64_t(d) * 16 + at) * S * sizeof(C), page + int64_t(d) * size * S * sizeof(C), size * S * sizeof(C));
        if (size >= S) memcpy(values + int64_t(at) * dim * sizeof(C), page + half, half);
        else for (int d = 0; d < dim; d++)
            memcpy(values + ((int64_t(at / S) * dim + d) * S + at % S) * sizeof(C), page + half + int64_t(d) * size * sizeof(C), size * sizeof(C));
    }
}

template <class C>
INLINE void locate(const engine_pages& p, const int32_t* table, int head, int token, int end, Segment& s, int t) {
    const int dim = pages::padded(p.head_dim);
    const int64_t tile = tile_bytes<C>(dim);
    if (p.block_size < 16) {
        char *keys = s.copies + t * tile, *values = keys + SEGMENT / 16 * tile;
        gather<C>(p, table, head, token, end, keys, values);
        s.keys[t] = keys, s.values[t] = values;
        return;
    }
    const int64_t half = pages::half_bytes(p);
    const char* page = (const char*)p.pages + table[token / p.block_size] * p.page_bytes + head * 2 * half;
    s.keys[t] = page + token % p.block_size / 16 * tile;
    s.values[t] = s.keys[t] + half;
}

// Values of tokens [from, to) of a tile, which may be any bits, become zeros in a copy: 0 · NaN is NaN.
template <class C>
void clear_hidden(const engine_pages& p, Segment& s, int t, int from, int to) {
    const int S = Pairing<C>::step, dim = pages::padded(p.head_dim);
    const int64_t tile = tile_bytes<C>(dim), line = int64_t(dim) * S * sizeof(C);
    const char* source = s.values[t];
    char* copy = s.copies + (SEGMENT / 16 + t) * tile;
    for (int token = 0; token < 16; token += S, source += line, copy += line) {
        uint32_t shown = 0;  // bits of a word
        for (int i = 0; i < S; i++)
            if (token + i < from || token + i >= to) shown |= (~0u >> (32 - 32 / S)) << (32 / S * i);
        if (!shown) {
            memset(copy, 0, line);
        } else if (shown == ~0u) {
            if (copy != source) memcpy(copy, source, line);
        } else {
            for (int64_t at = 0; at < line; at += 4) {
                uint32_t word;
                memcpy(&word, source + at, 4);
                word &= shown;
                memcpy(copy + at, &word, 4);
            }
        }
    }
    s.values[t] = copy - tile;
}

// The same for the tokens of the first and the last tile that no row sees. Late, when the values have come into the cache.
template <class C>
INLINE void clear_ends(const engine_pages& p, Segment& s) {
    if (s.begin & 15) clear_hidden<C>(p, s, 0, 0, s.begin & 15);
    if (s.end & 15) clear_hidden<C>(p, s, s.count - 1, s.end & 15, 16);
}

// Scores of R rows with T tiles of 16 tokens, into `scores` [R][SEGMENT]; fetches `ahead` meanwhile, where it is given.
template <class C, bool DOT, int R, int T, bool FETCH>
INLINE void score(const char* const* keys, const char* const* ahead, const float* q, int64_t row_floats, int dim, float* scores) {
    const int S = Pairing<C>::step, bytes = 16 * S * sizeof(C), P = Sums<C, DOT>::parts;
    F sum[R][T * P];
    const float* x[R];
    for (int r = 0; r < R; r++) {
        x[r] = q + r * row_floats;
        for (int t = 0; t < T * P; t++) sum[r][t] = all(0);
    }
    for (int d = 0; d < dim / S; d++) {
        const char* from[T];
        for (int t = 0; t < T; t++) from[t] = keys[t] + d * bytes;
        if (FETCH)
            for (int t = 0; t < T; t++) __builtin_prefetch(ahead[t] + d * bytes);
        Multiply<C, DOT, R, T>::step(sum, from, x, d);
    }
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) store(scores + r * SEGMENT + t * 16, Sums<C, DOT>::whole(sum[r] + t * P));
}

// e^(score · scale - top), 16 times. As weights are held in W: bf16 has 8 bits of them.
template <class W>
struct Weights {
    F scale, below;
    Weights() {}
    Weights(const F& factor, float top) : scale(factor), below(all(-top)) {}
    INLINE F of(const float* scores) const { return exponential(fma(load(scores), scale, below)); }
};

#if defined(__AVX512BF16__) && defined(__AVX512F__)
template <>
struct Weights<bf16> {  // within 4e-6: a polynomial of degree 4 for the exponent's fraction, then its whole powers of two
    __m512 scale, below;
    Weights() {}
    Weights(const F& factor, float top)
        : scale(_mm512_mul_ps((__m512)factor.p[0], _mm512_set1_ps(1.44269504f))), below(_mm512_set1_ps(-top * 1.44269504f)) {}
    INLINE F of(const float* scores) const {
        const __m512 x = _mm512_fmadd_ps(_mm512_loadu_ps(scores), scale, below);
        const __m512 r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);  // 0 where x is infinite; NaN stays
        __m512 y = _mm512_fmadd_ps(r, _mm512_set1_ps(0.013426746f), _mm512_set1_ps(0.052242376f));
        y = _mm512_fmadd_ps(r, y, _mm512_set1_ps(0.24128025f));
        y = _mm512_fmadd_ps(r, y, _mm512_set1_ps(0.69304484f));
        y = _mm512_fmadd_ps(r, y, _mm512_set1_ps(1.0f));
        F weight;
        weight.p[0] = (vf)_mm512_scalef_ps(y, x);  // it takes the floor of x
        return weight;
    }
};
#endif

// The tokens of a segment that one row sees, [low, high), counted from its first tile; both are its end where the row sees none.
struct Sight {
    int low, high;
    Sight(const Softmax& s, const Segment& segment, int row) {
        const int position = s.position + row / s.group;
        low = segment.begin - segment.first, high = (position + 1 < segment.end ? position + 1 : segment.end) - segment.first;
        if (s.window > 0 && position - s.window + 1 - segment.first > low) low = position - s.window + 1 - segment.first;
        if (low >= high) low = high = segment.count * 16;
    }
};

// The largest of 16 lanes (of those that are numbers) and their sum, for R rows.
template <int R>
INLINE void largest_of(const F (&x)[R], float (&to)[R]) {
    for (int r = 0; r < R; r++) to[r] = largest(x[r]);
}
template <int R>
INLINE void total_of(const F (&x)[R], float (&to)[R]) {
    for (int r = 0; r < R; r++) to[r] = total(x[r]);
}

#if defined(__AVX512F__)
// Eight rows at once, each in the order of total().
template <class STEP>
INLINE void reduce_eight(const F (&x)[8], float (&to)[8], STEP step) {
    __m512 half[4], quarter[2];
    for (int i = 0; i < 4; i++) {
        const __m512 a = (__m512)x[2 * i].p[0], b = (__m512)x[2 * i + 1].p[0];
        half[i] = step(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    }
    for (int i = 0; i < 2; i++)
        quarter[i] = step(_mm512_shuffle_f32x4(half[2 * i], half[2 * i + 1], 0x88), _mm512_shuffle_f32x4(half[2 * i], half[2 * i + 1], 0xdd));
    const __m512d a = (__m512d)quarter[0], b = (__m512d)quarter[1];
    const __m512 pair = step((__m512)_mm512_unpacklo_pd(a, b), (__m512)_mm512_unpackhi_pd(a, b));
    const __m512 each = step(pair, _mm512_movehdup_ps(pair));  // rows 0 4 1 5 2 6 3 7 in even lanes
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm256_storeu_ps(to, _mm512_castps512_ps256(_mm512_permutexvar_ps(order, each)));
}
template <>
INLINE void largest_of<8>(const F (&x)[8], float (&to)[8]) {
    reduce_eight(x, to, [](__m512 a, __m512 b) { return _mm512_max_ps(a, b); });
}
template <>
INLINE void total_of<8>(const F (&x)[8], float (&to)[8]) {
    reduce_eight(x, to, [](__m512 a, __m512 b) { return _mm512_add_ps(a, b); });
}
#endif

// Scores of R rows [R][SEGMENT] → weights e^(score · scale - top) [R][SEGMENT], their sums (0 where the row sees none of the segment).
template <class W, int R>
void soften(const Softmax& s, const Segment& segment, int row, float* scores, W* weights, float* tops, float* sums) {
    const int size = segment.count * 16;
    int from = size, to = 0;
    for (int r = 0; r < R; r++) {
        const Sight sight(s, segment, row + r);
        from = sight.low < from ? sight.low & ~15 : from;
        to = sight.low < size && sight.high > to ? (sight.high + 15) & ~15 : to;
    }
    for (int r = 0; r < R; r++) {
        for (int i = 0; i < from; i += 16) store(weights + r * SEGMENT + i, all(0));
        for (int i = to > from ? to : from; i < size; i += 16) store(weights + r * SEGMENT + i, all(0));
    }
    F scale = all(s.scale);
    if (s.soft_cap > 0) {
        for (int r = 0; r < R; r++)
            for (int i = from; i < to; i += 16) {
                float* at = scores + r * SEGMENT + i;
                store(at, hyperbolic_tangent(load(at) * all(s.scale / s.soft_cap)) * all(s.soft_cap));
            }
        scale = all(1.0f);
    }
    for (int r = 0; r < R; r++) {
        const Sight sight(s, segment, row + r);
        float* hidden = scores + r * SEGMENT;
        for (int i = from; i < to && i < sight.low; i++) hidden[i] = -__builtin_inff();
        for (int i = sight.high; i < to; i++) hidden[i] = -__builtin_inff();
    }
    F highest[R], sum[R];
    for (int r = 0; r < R; r++) highest[r] = all(-__builtin_inff()), sum[r] = all(0);
    for (int i = from; i < to; i += 16)
        for (int r = 0; r < R; r++) highest[r] = most(load(scores + r * SEGMENT + i), highest[r]);
    float top[R], weight[R];
    largest_of(highest, top);
    Weights<W> powers[R];
    for (int r = 0; r < R; r++) {
        top[r] *= scale.p[0][0];
        powers[r] = Weights<W>(scale, top[r] == -__builtin_inff() ? 0.0f : top[r]);
    }
    for (int i = from; i < to; i += 16)
        for (int r = 0; r < R; r++) {
            const F power = powers[r].of(scores + r * SEGMENT + i);
            store(weights + r * SEGMENT + i, power);
            sum[r] = sum[r] + power;
        }
    total_of(sum, weight);
    for (int r = 0; r < R; r++) tops[r] = top[r], sums[r] = weight[r];
}

// Σ weight · value over a segment for R rows and T · 16 dimensions from `d0` on. DIM: the head's dimensions where they are known.
template <class C, bool DOT, int R, int T, int DIM, bool FETCH>
INLINE void weigh(const Segment& s, const char* const* coming, int known, const float* weights, int64_t row_floats, int dim, int d0, float* sums) {
    const int S = Pairing<C>::step, P = Sums<C, DOT>::parts;
    const int64_t line = int64_t(DIM ? DIM : dim) * S * sizeof(C);
    F sum[R][T * P];
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T * P; t++) sum[r][t] = all(0);
    for (int tile = 0; tile < s.count; tile++) {
        const char* values = s.values[tile] + d0 * S * sizeof(C);
        const char* fetch = FETCH && tile < known ? coming[tile] : nullptr;
        const float* x[R];
        for (int r = 0; r < R; r++) x[r] = weights + r * row_floats + (DOT ? tile * 8 : tile * 16);
#pragma GCC unroll 8
        for (int i = 0; i < 16 / S; i++) {
            const char* from[T];
            for (int t = 0; t < T; t++) from[t] = values + i * line + t * 16 * S * sizeof(C);
            if (FETCH && fetch)
                for (int64_t at = 0; at < line; at += 64) __builtin_prefetch(fetch + i * line + at);
            Multiply<C, DOT, R, T>::step(sum, from, x, i);
        }
    }
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) store(sums + int64_t(r) * dim + d0 + t * 16, Sums<C, DOT>::whole(sum[r] + t * P));
}

// Registers at once: 16 sums where there are 32 registers of 64 bytes, else about 4 (of two or four registers each).
template <int R>
struct Width {
    static const int tokens = LANES_PARTS == 1 ? (R == 8 ? 2 : 4) : (R >= 3 ? 1 : 2);
    static const int dims = LANES_PARTS == 1 ? (R == 8 ? 2 : R >= 3 ? 4 : 8) : (R >= 3 ? 1 : R == 2 ? 2 : 4);
};

// How many tiles ahead of their use few rows fetch. A tile of bf16 of 128 dimensions is 4 KiB at a page's start, so that each takes one way
// of every set of the first-level cache, of which there are 8 or 12 (measured, 32 sequences of 160 tokens, against 3: 2 take 0.97 of the
// time on one core, 0.98 on four, 4 take 1.03 and 1.02, 1 takes 1.33 and 1.1).
// Tiles of 8 bits are half as large (4 against 2: 0.92 on one core, 0.97 on four; 3 take 0.94 and 0.98, 6 take 0.94 and 0.98).
template <class C>
constexpr int NEAR = sizeof(C) == 1 ? 4 : 2;

// The tile of a segment that is read as number `t`: keys, then values, the last of which first, as they may be copied.
INLINE const char* tile_read(const Segment& s, int t) { return t < s.count ? s.keys[t] : t == s.count ? s.values[t - 1] : s.values[t - s.count - 1]; }

// The addresses of a segment's tiles as they are read, then of the first `near` of the next one's.
INLINE void in_order(const Segment& s, const Segment* next, int near, const char** order) {
    const int tiles = 2 * s.count, more = next ? 2 * next->count : 0;
    for (int t = 0; t < tiles; t++) order[t] = tile_read(s, t);
    for (int t = 0; t < near; t++) order[tiles + t] = t < more ? tile_read(*next, t) : order[0];
}

// R rows of a task over one segment; room is the thread's. FIRST: the first rows that meet the segment fetch. Eight, which have much
// to compute, the next segment's keys and values while they read their own; fewer, which wait for memory, what they read soon.
template <class C, bool DOT, int R, int DIM, bool FIRST, class ROOM>
void rows_of_segment(const engine_pages& p, Segment& s, const Segment* next, const Softmax& softmax, const ROOM& room, int row) {
    constexpr int T = Width<R>::tokens / Sums<C, DOT>::parts, D = Width<R>::dims / Sums<C, DOT>::parts;
    const int dim = DIM ? DIM : pages::padded(p.head_dim);
    const int64_t q_floats = DOT ? dim / 2 : dim, weight_floats = DOT ? SEGMENT / 2 : SEGMENT;
    const float* q = room.q + row * q_floats;
    constexpr bool near = R < 8;
    const char* order[2 * SEGMENT / 16 + NEAR<C>];
    if (FIRST && near) in_order(s, next, NEAR<C>, order);
    const char* const* ahead = near ? order + NEAR<C> : FIRST && next && next->count >= s.count ? next->keys : s.values;
    int tile = 0;
    for (; tile + T <= s.count; tile += T)
        score<C, DOT, R, T, FIRST>(s.keys + tile, ahead + tile, q, q_floats, dim, room.scores + tile * 16);
    if (T > 2)
        for (; tile + 2 <= s.count; tile += 2)
            score<C, DOT, R, 2, FIRST>(s.keys + tile, ahead + tile, q, q_floats, dim, room.scores + tile * 16);
    for (; tile < s.count; tile++)
        score<C, DOT, R, 1, FIRST>(s.keys + tile, ahead + tile, q, q_floats, dim, room.scores + tile * 16);
    if (DOT) soften<bf16, R>(softmax, s, row, room.scores, (bf16*)room.weights, room.sum_top + row, room.sum_weight + row);
    else soften<float, R>(softmax, s, row, room.scores, room.weights, room.sum_top + row, room.sum_weight + row);
    float* sums = room.sum + int64_t(row) * dim;
    int d = 0;
    if (FIRST) {
        clear_ends<C>(p, s);
        const char* const* coming = near ? order + s.count + NEAR<C> : next ? next->values : nullptr;
        const int known = near ? s.count : next ? next->count : 0;
        if (D * 16 <= dim) weigh<C, DOT, R, D, DIM, true>(s, coming, known, room.weights, weight_floats, dim, 0, sums), d = D * 16;
        else weigh<C, DOT, R, 1, DIM, true>(s, coming, known, room.weights, weight_floats, dim, 0, sums), d = 16;
    }
    for (; d + D * 16 <= dim; d += D * 16) weigh<C, DOT, R, D, DIM, false>(s, nullptr, 0, room.weights, weight_floats, dim, d, sums);
    for (; d < dim; d += 16) weigh<C, DOT, R, 1, DIM, false>(s, nullptr, 0, room.weights, weight_floats, dim, d, sums);
}

}  // namespace
}  // namespace tiles
