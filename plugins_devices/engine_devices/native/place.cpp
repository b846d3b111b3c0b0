// Norm and rotation of queries and keys, and the store of keys and values into pages.
#include "place.h"

#include <type_traits>

#include "fetch.h"
#include "heads.h"
#include "lanes.h"
#include "place_tiles.h"
#include "pool.h"

namespace {

using namespace lanes;

const int LARGEST_HEAD = 1024;

// Rows that one thread takes together where there are many: they mostly share a tile, which then stays in its cache.
const int BLOCK = 16;

// Pieces that a thread takes of few rows, one after the other.
const int SHARES = 3;

// One token's (or two neighbours') keys and values of one head, in the cache's type.
template <class C>
struct Token {
    alignas(64) C keys[LARGEST_HEAD], values[LARGEST_HEAD];
};

// Where they stand in the page: keys every `width` steps of S elements, values every `step` elements.
template <class C, int S>
struct Spot {
    C *keys, *values;
    int64_t width, step;

    Spot(const engine_pages& p, int64_t slot, int head) {
        const int dim = pages::padded(p.head_dim), token = int(slot % p.block_size);
        step = p.block_size < S ? p.block_size : S;
        const int64_t half = pages::half_bytes(p);
        char* base = (char*)p.pages + slot / p.block_size * p.page_bytes + head * 2 * half;
        width = p.block_size < 16 ? p.block_size : 16;
        keys = (C*)base + int64_t(token / 16) * 16 * dim + token % 16 * S;
        values = (C*)(base + half) + int64_t(token / step) * dim * step + token % step;
    }
};

// The lines that a token's store will write come into the cache: they were last used a step ago.
template <class C, int S>
void expect(const engine_place_arguments& a, int64_t row, int head) {
    if (row >= a.rows || a.slots[row] < 0) return;
    const int dim = pages::padded(a.cache.head_dim);
    const Spot<C, S> spot(a.cache, a.slots[row], head);
    for (int d = 0; d < dim / S; d++) fetch_to_write(spot.keys + d * spot.width * S);
    for (int64_t at = 0; at < int64_t(dim) * S * int64_t(sizeof(C)); at += 64) fetch_to_write((char*)spot.values + at);
}

template <class C, int S>
void store_one(const engine_pages& p, int64_t slot, int head, const Token<C>& token) {
    const int dim = pages::padded(p.head_dim);
    const Spot<C, S> spot(p, slot, head);
    for (int d = 0; d < dim / S; d++) memcpy((void*)(spot.keys + d * spot.width * S), token.keys + d * S, S * sizeof(C));
    if (S == 1) memcpy((void*)spot.values, token.values, dim * sizeof(C));
    else for (int d = 0; d < dim; d++) spot.values[d * spot.step] = token.values[d];
}

// Two neighbours of which the first has an even place: whole words. A word is never read to be written, as another thread may
// write its other half.
void store_two(const engine_pages& p, int64_t slot, int head, const Token<bf16>& a, const Token<bf16>& b) {
    const int dim = pages::padded(p.head_dim);
    const Spot<bf16, 2> spot(p, slot, head);
    for (int d = 0; d < dim; d += 2) {
        uint32_t both[2];
        memcpy(both, a.keys + d, 4);
        memcpy(both + 1, b.keys + d, 4);
        memcpy((void*)(spot.keys + d * spot.width), both, 8);
    }
    for (int d = 0; d < dim; d++) {
        const uint32_t both = a.values[d].bits | uint32_t(b.values[d].bits) << 16;
        memcpy((void*)(spot.values + d * 2), &both, 4);
    }
}

template <class A>
void turn(const engine_place_arguments& a, int64_t row, const void* norm, float* x) {
    if (norm) heads::normalise(x, a.cache.head_dim, (const A*)norm, a.eps, a.offset);
    const int64_t angle = row * a.angle_row;
    if (a.cos) heads::rotate(x, (const A*)a.cos + angle, (const A*)a.sin + angle, a.half, a.interleaved);
}

// Heads of 64 and 128 that rotate wholly, in halves, or not at all: their elements stay in registers.
bool is_simple(const engine_place_arguments& a) {
    const int dim = a.cache.head_dim;
    return (dim == 64 || dim == 128) && LANES_PARTS == 1 && (!a.cos || (2 * a.half == dim && !a.interleaved));
}

template <class A, int N>
INLINE void take_angles(const engine_place_arguments& a, int64_t row, heads::Turn<A, N>& turn) {
    const int64_t angle = a.cos ? row * a.angle_row : 0;
    turn.take_angles((const A*)a.cos + angle, (const A*)a.sin + angle);
}

// All queries of one row.
template <class A, int N>
void turn_queries(const engine_place_arguments& a, int64_t row) {
    heads::Turn<A, N> turn;
    turn.take_weight((const A*)a.q_norm);
    take_angles(a, row, turn);
    const A* from = (const A*)a.q + row * a.q_row;
    A* to = (A*)a.q_out + row * a.out_row;
    for (int head = 0; head < a.heads; head++) turn.apply(from + head * a.q_head, a.eps, a.offset, to + head * a.out_head);
}

// One head's keys of sixteen rows.
template <class A, int N>
void turn_keys(const engine_place_arguments& a, int64_t row, int head, A (&to)[16][128]) {
    heads::Turn<A, N> turn;
    turn.take_weight((const A*)a.k_norm);
    for (int i = 0; i < 16; i++) {
        take_angles(a, row + i, turn);
        turn.apply((const A*)a.k + (row + i) * a.k_row + head * a.k_head, a.eps, a.offset, to[i]);
    }
}

// One head of one row.
template <class A, int N>
void turn_head(const engine_place_arguments& a, int64_t row, const A* from, const void* norm, A* to) {
    heads::Turn<A, N> turn;
    turn.take_weight((const A*)norm);
    take_angles(a, row, turn);
    turn.apply(from, a.eps, a.offset, to);
}

// The same where it is simple; false if not.
template <class A>
bool turn_simple(const engine_place_arguments& a, int64_t row, const A* from, const void* norm, A* to) {
    if (!is_simple(a)) return false;
    if (a.cache.head_dim == 128) turn_head<A, 8>(a, row, from, norm, to);
    else turn_head<A, 4>(a, row, from, norm, to);
    return true;
}

template <class A>
void place_query(const engine_place_arguments& a, int64_t row, int head, float* x) {
    const A* from = (const A*)a.q + row * a.q_row + head * a.q_head;
    A* to = (A*)a.q_out + row * a.out_row + head * a.out_head;
    if (turn_simple<A>(a, row, from, a.q_norm, to)) return;
    heads::read(from, a.cache.head_dim, x);
    turn<A>(a, row, a.q_norm, x);
    heads::write(to, a.cache.head_dim, x);
}

// The largest finite value: 8-bit floats saturate there.
template <class C>
constexpr float largest() {
    return std::is_same_v<C, e4m3> ? 448.0f : std::is_same_v<C, e5m2> ? 57344.0f : 0.0f;
}

template <class C>
INLINE F fit(float factor, const F& x) {
    constexpr float most = largest<C>();
    const F scaled = factor != 0.0f ? x * all(factor) : x;
    return most != 0.0f ? within(scaled, most) : scaled;
}

template <class C>
void fit(float factor, int dim, float* x) {
    for (int d = 0; (factor != 0.0f || largest<C>() != 0.0f) && d < dim; d += 16) store(x + d, fit<C>(factor, load(x + d)));
}

template <class A, class C>
void read_token(const engine_place_arguments& a, int64_t row, int head, float* x, Token<C>& token) {
    const int dim = a.cache.head_dim, padded = pages::padded(dim);
    const A* keys = (const A*)a.k + row * a.k_row + head * a.k_head;
    alignas(64) A turned[128];
    if (turn_simple<A>(a, row, keys, a.k_norm, turned)) {
        heads::read(turned, dim, x);
    } else {
        heads::read(keys, dim, x);
        turn<A>(a, row, a.k_norm, x);
    }
    fit<C>(a.k_factor, dim, x);
    heads::write(token.keys, padded, x);
    heads::read((const A*)a.v + row * a.v_row + head * a.v_head, dim, x);
    fit<C>(a.v_factor, dim, x);
    heads::write(token.values, padded, x);
}

template <class A, class C, int S>
void place_keys(const engine_place_arguments& a, int64_t row, int64_t end, int head, float* x, Token<C> (&tokens)[2]) {
    for (; row < end; row++) {
        const int64_t slot = a.slots[row];
        if (slot < 0) continue;
        read_token<A>(a, row, head, x, tokens[0]);
        if constexpr (S == 2)
            if (slot % 2 == 0 && row + 1 < end && a.slots[row + 1] == slot + 1) {
                read_token<A>(a, ++row, head, x, tokens[1]);
                store_two(a.cache, slot, head, tokens[0], tokens[1]);
                continue;
            }
        store_one<C, S>(a.cache, slot, head, tokens[0]);
    }
}

// Rows of a tile in the cache's type: as they are, or as fit() and store() make them.
template <class C>
struct Narrow {
    alignas(64) C rows[16][128];
    const C* of(int i, const bf16* from, float factor, int dim) {
        for (int d = 0; d < dim; d += 16) store(rows[i] + d, fit<C>(factor, load(from + d)));
        return rows[i];
    }
};
template <>
struct Narrow<bf16> {
    const bf16* of(int, const bf16* from, float, int) { return from; }
};

// Keys and values of `row` … `row` + 15, if they are a tile that can be stored whole; false if not.
template <class A, class C, int S>
bool place_tile(const engine_place_arguments& a, int64_t row, int64_t end, int head) {
    if constexpr (!std::is_same_v<A, bf16> || S == 1) {
        return false;
    } else {
        const int dim = a.cache.head_dim;
        const int64_t slot = a.slots[row];
        const bool scaled = a.k_factor != 0.0f || a.v_factor != 0.0f;
        if (!is_simple(a) || (S == 2 && scaled) || end - row != 16 || slot < 0 || slot % 16 || a.cache.block_size % 16) return false;
        for (int i = 1; i < 16; i++)
            if (a.slots[row + i] != slot + i) return false;
        alignas(64) bf16 turned[16][128];
        Narrow<C> narrow_keys, narrow_values;
        const C *keys[16], *values[16];
        if (dim == 128) turn_keys<bf16, 8>(a, row, head, turned);
        else turn_keys<bf16, 4>(a, row, head, turned);
        for (int i = 0; i < 16; i++) {
            keys[i] = narrow_keys.of(i, turned[i], a.k_factor, dim);
            values[i] = narrow_values.of(i, (const bf16*)a.v + (row + i) * a.v_row + head * a.v_head, a.v_factor, dim);
        }
        const Spot<C, S> spot(a.cache, slot, head);
        place_tiles::store_tile(keys, values, dim, (char*)spot.keys, (char*)spot.values);
        return true;
    }
}

// Row by row, as they lie in memory; then the keys and values that share tiles.
template <class A, class C, int S>
void place_block(const engine_place_arguments& a, int64_t row, int64_t end, float* x, Token<C> (&tokens)[2]) {
    const bool simple = is_simple(a);
    for (int64_t each = row; a.q_out && each < end; each++) {
        if (simple && a.cache.head_dim == 128) turn_queries<A, 8>(a, each);
        else if (simple) turn_queries<A, 4>(a, each);
        else for (int head = 0; head < a.heads; head++) place_query<A>(a, each, head, x);
    }
    for (int head = 0; head < a.cache.kv_heads; head++)
        if (!place_tile<A, C, S>(a, row, end, head)) place_keys<A, C, S>(a, row, end, head, x, tokens);
}

template <class A, class C, int S>
void place(const engine_place_arguments& a, int threads) {
    alignas(64) float x[LARGEST_HEAD] = {};
    Token<C> tokens[2];
    if (a.rows >= 4 * BLOCK) {
        for (int64_t row; (row = engine_claim(0, 1) * BLOCK) < a.rows;)
            place_block<A, C, S>(a, row, row + BLOCK < a.rows ? row + BLOCK : a.rows, x, tokens);
        return;
    }
    const int queries = a.q_out ? a.heads : 0, heads = queries + a.cache.kv_heads;
    const int64_t units = int64_t(a.rows) * heads, share = units / (SHARES * threads), claim = share > heads ? heads : share < 1 ? 1 : share;
    for (int64_t first; (first = engine_claim(0, claim)) < units;)
        for (int64_t unit = first, stop = first + claim < units ? first + claim : units; unit < stop; unit++) {
            const int64_t row = unit / heads;
            const int head = int(unit % heads), coming = int((unit + 1) % heads);
            if (unit == first && head >= queries) expect<C, S>(a, row, head - queries);
            if (unit + 1 < stop && coming >= queries) expect<C, S>(a, (unit + 1) / heads, coming - queries);
            if (head >= queries) place_keys<A, C, S>(a, row, row + 1, head - queries, x, tokens);
            else place_query<A>(a, row, head, x);
        }
}

template <class A>
void place_any(const engine_place_arguments& a, int threads) {
    switch (a.cache.type) {
        case ENGINE_BF16: return place<A, bf16, 2>(a, threads);
        case ENGINE_F16: return place<A, f16, 1>(a, threads);
        case ENGINE_F8_E4M3: return place<A, e4m3, 4>(a, threads);
        case ENGINE_F8_E5M2: return place<A, e5m2, 4>(a, threads);
        default: return place<A, float, 1>(a, threads);
    }
}

}  // namespace

extern "C" void engine_place(const void* arguments, int, int threads) {
    const engine_place_arguments& a = *(const engine_place_arguments*)arguments;
    switch (a.type) {
        case ENGINE_BF16: return place_any<bf16>(a, threads);
        case ENGINE_F16: return place_any<f16>(a, threads);
        default: return place_any<float>(a, threads);
    }
}
