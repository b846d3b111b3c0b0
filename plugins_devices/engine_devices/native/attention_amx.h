// Rows of queries against the tiles of one segment, in the matrix unit: a tile of keys is as many weights of 16 outputs as it has 32
// dimensions, one of values half the depth of one for every 16 dimensions.
#pragma once
#include "amx.h"
#include "attention_tiles.h"

#if defined(ENGINE_AMX)
namespace tiles {
namespace {

// Whether heads of that many dimensions fill registers.
INLINE bool fills_registers(int head_dim) { return head_dim % 32 == 0; }

INLINE void fetch_lines(const char* from, int lines) {
    for (int i = 0; i < lines; i++) __builtin_prefetch(from + 64 * i);
}

// Scores [..][SEGMENT] of up to 32 rows q with the 16 tokens of one tile of keys, or with those of two (PAIR); BOTH: more than 16 rows.
// `ahead`: as many tiles to fetch, or null.
template <bool BOTH, bool PAIR>
INLINE void score_tiles(const char* const* keys, const char* const* ahead, const bf16* q, int dim, float* scores) {
    amx::clear<0>();
    if (PAIR) amx::clear<1>();
    if (BOTH) amx::clear<2>();
    if (BOTH && PAIR) amx::clear<3>();
    for (int d = 0; d < dim; d += 32, q += 32) {
        const int64_t at = int64_t(d) * 32;
        if (ahead) fetch_lines(ahead[0] + at, 16);
        if (ahead && PAIR) fetch_lines(ahead[1] + at, 16);
        amx::load<6>(keys[0] + at, amx::LINE);
        amx::load<4>(q, 2 * dim);
        amx::multiply_bf16<0, 4, 6>();
        if (PAIR) amx::load<7>(keys[1] + at, amx::LINE), amx::multiply_bf16<1, 4, 7>();
        if (BOTH) amx::load<5>(q + 16 * dim, 2 * dim), amx::multiply_bf16<2, 5, 6>();
        if (BOTH && PAIR) amx::multiply_bf16<3, 5, 7>();
    }
    const int64_t row = SEGMENT * 4;
    amx::store<0>(scores, row);
    if (PAIR) amx::store<1>(scores + 16, row);
    if (BOTH) amx::store<2>(scores + 16 * SEGMENT, row);
    if (BOTH && PAIR) amx::store<3>(scores + 16 * SEGMENT + 16, row);
}

// Σ weight · value over a segment for up to 32 rows and 32 dimensions from d0 on. `coming`: tiles to fetch meanwhile, `known` of them.
template <bool BOTH>
INLINE void weigh_tiles(const Segment& s, const char* const* coming, int known, const bf16* weights, int dim, int d0, float* sums) {
    const int64_t line = int64_t(dim) * 4, row = SEGMENT * 2;
    amx::clear<0>(), amx::clear<1>();
    if (BOTH) amx::clear<2>(), amx::clear<3>();
    for (int tile = 0; tile < s.count; tile++, weights += 16) {
        if (tile < known) fetch_lines(coming[tile], dim / 2);
        const char* values = s.values[tile] + d0 * 4;
        amx::load<4>(weights, row);
        amx::load<6>(values, line);
        amx::multiply_bf16<0, 4, 6>();
        amx::load<7>(values + 64, line);
        amx::multiply_bf16<1, 4, 7>();
        if (!BOTH) continue;
        amx::load<5>(weights + 16 * SEGMENT, row);
        amx::multiply_bf16<2, 5, 6>();
        amx::multiply_bf16<3, 5, 7>();
    }
    const int64_t out = int64_t(dim) * 4;
    amx::store<0>(sums + d0, out), amx::store<1>(sums + d0 + 16, out);
    sums += 16 * dim;
    if (BOTH) amx::store<2>(sums + d0, out), amx::store<3>(sums + d0 + 16, out);
}

// soften() of `rows` rows from `row` on, whose scores and weights come first in the room.
template <class ROOM>
INLINE void soften_rows(const Softmax& softmax, const Segment& s, const ROOM& room, int row, int rows) {
    int done = 0;
    const auto some = [&](auto count) {
        constexpr int R = decltype(count)::value;
        for (; rows - done >= R; done += R)
            soften<bf16, R>(softmax, s, row + done, room.scores + done * SEGMENT, (bf16*)room.weights + done * SEGMENT,
                            room.sum_top + row + done, room.sum_weight + row + done);
    };
    some(std::integral_constant<int, 8>()), some(std::integral_constant<int, 4>());
    some(std::integral_constant<int, 2>()), some(std::integral_constant<int, 1>());
}

template <bool BOTH, class ROOM>
void some_tile_rows(const engine_pages& p, Segment& s, const Segment* next, const Softmax& softmax, ROOM& room, int row, int rows, bool first) {
    const int dim = p.head_dim;
    const bf16* q = (const bf16*)room.q + int64_t(row) * dim;
    const char* order[2 * SEGMENT / 16 + NEAR<bf16>];
    if (first) in_order(s, next, NEAR<bf16>, order);
    const char* const* ahead = first ? order + NEAR<bf16> : nullptr;
    room.registers.shape(rows);
    int tile = 0;
    for (; tile + 2 <= s.count; tile += 2)
        score_tiles<BOTH, true>(s.keys + tile, ahead ? ahead + tile : nullptr, q, dim, room.scores + tile * 16);
    if (tile < s.count) score_tiles<BOTH, false>(s.keys + tile, ahead ? ahead + tile : nullptr, q, dim, room.scores + tile * 16);
    soften_rows(softmax, s, room, row, rows);
    if (first) clear_ends<bf16>(p, s);
    room.registers.shape(rows, 8);
    for (int d = 0; d < dim; d += 32)
        weigh_tiles<BOTH>(s, order + s.count + NEAR<bf16>, first && !d ? s.count : 0, (const bf16*)room.weights, dim, d,
                          room.sum + int64_t(row) * dim);
}

// All rows of a task over one segment, as rows_of_segment() for some.
template <class ROOM>
void tile_rows_of_segment(const engine_pages& p, Segment& s, const Segment* next, const Softmax& softmax, ROOM& room, int rows) {
    for (int row = 0; row < rows; row += amx::ROWS) {
        const int count = rows - row < amx::ROWS ? rows - row : amx::ROWS;
        if (count > 16) some_tile_rows<true>(p, s, next, softmax, room, row, count, row == 0);
        else some_tile_rows<false>(p, s, next, softmax, room, row, count, row == 0);
    }
}

}  // namespace
}  // namespace tiles
#endif
