// Embedding, choice of rows, angles of positions, rotation of heads, and the best of a vocabulary.
#include <math.h>

#include "best.h"
#include "heads.h"
#include "lanes.h"
#include "pool.h"
#include "rows.h"
#include "share.h"

namespace {

using namespace lanes;

const int LARGEST_HEAD = 1024;

template <class A>
void embed(const engine_embed_arguments& a, int thread, int threads) {
    const share::Share rows = share::of(a.rows, a.size, thread, threads);
    A narrowed[16];
    store(narrowed, all(a.scale));
    const F scale = load(narrowed);
    for (int64_t row = rows.begin; row < rows.end; row++) {
        const A* from = (const A*)a.weight + (a.ids[row] + a.offset) * a.size;
        A* to = (A*)a.out + row * a.size;
        if (!a.scaled) memcpy((void*)to, from, a.size * sizeof(A));
        else for (int64_t i = 0; i < a.size; i += 16) put(to + i, take(from + i, a.size - i) * scale, a.size - i);
    }
}

template <class A>
void select(const engine_select_arguments& a, int thread, int threads) {
    const share::Share units = share::of(a.count * a.inner, a.size, thread, threads);
    for (int64_t unit = units.begin; unit < units.end; unit++) {
        const A* from = (const A*)a.x + a.rows[unit / a.inner] * a.x_row + unit % a.inner * a.x_inner;
        memcpy((void*)((A*)a.out + unit * a.size), from, a.size * sizeof(A));
    }
}

template <class A>
void angles(const engine_angles_arguments& a, int thread, int threads) {
    const share::Share units = share::of(a.rows * int64_t(a.count), 32, thread, threads);
    for (int64_t unit = units.begin; unit < units.end; unit++) {
        const float angle = float(a.positions[unit / a.count]) * a.frequencies[unit % a.count];
        narrow(cosf(angle) * a.scale, (A*)a.cos + unit);
        narrow(sinf(angle) * a.scale, (A*)a.sin + unit);
    }
}

template <class A>
void rotate(const engine_rotate_arguments& a, int thread, int threads) {
    const share::Share units = share::of(int64_t(a.rows) * a.heads, a.size, thread, threads);
    alignas(64) float x[LARGEST_HEAD];
    for (int64_t unit = units.begin; unit < units.end; unit++) {
        const int64_t row = unit / a.heads, head = unit % a.heads, angle = row * a.angle_row;
        heads::read((const A*)a.x + row * a.x_row + head * a.x_head, a.size, x);
        heads::rotate(x, (const A*)a.cos + angle, (const A*)a.sin + angle, a.half, a.interleaved);
        heads::write((A*)a.out + unit * a.size, a.size, x);
    }
}

template <class A>
Best best_of(const A* x, int64_t count) {
    if (count < 16) {
        Best best{load_some(x, 1).p[0][0], 0};
        for (int64_t i = 1; i < count; i++) best = better(best, {load_some(x + i, 1).p[0][0], i});
        return best;
    }
    F most = load(x);
    struct { vi p[LANES_PARTS]; } at{}, where{};
    for (int64_t i = 16; i < count; i += 16) {
        const int64_t from = i + 16 <= count ? i : count - 16;  // the last register overlaps the one before
        const F v = load(x + from);
#define STEP(n)                                                                    \
    {                                                                              \
        at.p[n] = vi{} + int32_t(from);                                            \
        const vi win = (v.p[n] > most.p[n]) | ((v.p[n] != v.p[n]) & (most.p[n] == most.p[n])); \
        where.p[n] = win ? at.p[n] : where.p[n];                                   \
        most.p[n] = win ? v.p[n] : most.p[n];                                      \
    }
        LANES_EACH(STEP)
#undef STEP
    }
    Best best{most.p[0][0], where.p[0][0]};
    for (int lane = 1; lane < 16; lane++) {
        const float value = most.p[lane / WIDTH][lane % WIDTH];
        const int64_t place = where.p[lane / WIDTH][lane % WIDTH] + lane;
        const bool same = value == best.value && place < best.place;
        if (same || (best.value == best.value && (value > best.value || value != value))) best = {value, place};
    }
    return best;
}

template <class A>
void best(const engine_best_arguments& a, int threads) {
    const int64_t chunks = (a.size + ENGINE_BEST_CHUNK - 1) / ENGINE_BEST_CHUNK;
    Best* found = (Best*)a.scratch;
    for (int64_t unit; (unit = engine_claim(0, 1)) < a.rows * chunks;) {
        const int64_t row = unit / chunks, begin = unit % chunks * ENGINE_BEST_CHUNK;
        const int64_t end = begin + ENGINE_BEST_CHUNK < a.size ? begin + ENGINE_BEST_CHUNK : a.size;
        found[unit] = best_of((const A*)a.logits + row * a.row + begin, end - begin);
        found[unit].place += begin;
    }
    if (engine_claim(1, 1) < threads - 1) return;  // the last call sees what all found
    for (int64_t row = 0; row < a.rows; row++) {
        Best chosen = found[row * chunks];
        for (int64_t chunk = 1; chunk < chunks; chunk++) chosen = better(chosen, found[row * chunks + chunk]);
        a.value[row] = chosen.value;
        a.place[row] = chosen.place;
    }
}

}  // namespace

extern "C" {

void engine_embed(const void* arguments, int thread, int threads) {
    const engine_embed_arguments& a = *(const engine_embed_arguments*)arguments;
    ENGINE_FOR_TYPE(a.type, embed<A>(a, thread, threads))
}

void engine_select(const void* arguments, int thread, int threads) {
    const engine_select_arguments& a = *(const engine_select_arguments*)arguments;
    ENGINE_FOR_TYPE(a.type, select<A>(a, thread, threads))
}

void engine_angles(const void* arguments, int thread, int threads) {
    const engine_angles_arguments& a = *(const engine_angles_arguments*)arguments;
    ENGINE_FOR_TYPE(a.type, angles<A>(a, thread, threads))
}

void engine_rotate(const void* arguments, int thread, int threads) {
    const engine_rotate_arguments& a = *(const engine_rotate_arguments*)arguments;
    ENGINE_FOR_TYPE(a.type, rotate<A>(a, thread, threads))
}

void engine_best(const void* arguments, int, int threads) {
    const engine_best_arguments& a = *(const engine_best_arguments*)arguments;
    ENGINE_FOR_TYPE(a.type, best<A>(a, threads))
}

}  // extern "C"

float engine_best_of_row(const void* row, int64_t size, int type) {
    ENGINE_FOR_TYPE(type, return best_of((const A*)row, size).value)
    return 0.0f;
}
