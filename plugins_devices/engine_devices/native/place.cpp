// Norm and rotation of queries and keys, and the store of keys and values into pages.
#include "place.h"

#include "heads.h"
#include "lanes.h"
#include "pool.h"

namespace {

using namespace lanes;

const int LARGEST_HEAD = 1024;

// Where one token's keys and values of one head stand: keys every `stride` steps of S elements, values one pair row.
template <class C, int S>
void store_token(const engine_pages& p, int64_t slot, int head, const float* keys, const float* values) {
    const int dim = pages::padded(p.head_dim), width = p.block_size < 16 ? p.block_size : 16;
    const int64_t half = pages::half_bytes(p);
    const int64_t page = slot / p.block_size;
    const int token = int(slot % p.block_size);
    char* base = (char*)p.pages + page * p.page_bytes + head * 2 * half;
    C* to = (C*)base + int64_t(token / 16) * 16 * dim + token % 16 * S;
    alignas(64) C narrow[LARGEST_HEAD];
    heads::write(narrow, dim, keys);
    for (int d = 0; d < dim / S; d++) memcpy((void*)(to + int64_t(d) * width * S), narrow + d * S, S * sizeof(C));
    C* row = (C*)(base + half) + int64_t(token / S) * dim * S + token % S;
    heads::write(narrow, dim, values);
    if (S == 1) memcpy((void*)row, narrow, dim * sizeof(C));
    else for (int d = 0; d < dim; d++) row[d * S] = narrow[d];
}

void store_any(const engine_pages& p, int64_t slot, int head, const float* keys, const float* values) {
    switch (p.type) {
        case ENGINE_BF16: return store_token<bf16, 2>(p, slot, head, keys, values);
        case ENGINE_F16: return store_token<f16, 1>(p, slot, head, keys, values);
        case ENGINE_F8_E4M3: return store_token<e4m3, 1>(p, slot, head, keys, values);
        case ENGINE_F8_E5M2: return store_token<e5m2, 1>(p, slot, head, keys, values);
        default: return store_token<float, 1>(p, slot, head, keys, values);
    }
}

template <class A>
struct Angles {
    alignas(64) float cos[LARGEST_HEAD / 2], sin[LARGEST_HEAD / 2];
    int64_t row = -1;

    void read(const engine_place_arguments& a, int64_t wanted) {
        if (!a.cos || row == wanted) return;
        heads::read((const A*)a.cos + wanted * a.angle_row, a.half, cos);
        heads::read((const A*)a.sin + wanted * a.angle_row, a.half, sin);
        row = wanted;
    }
};

template <class A>
void turn(const engine_place_arguments& a, const Angles<A>& angles, const void* norm, float* x) {
    if (norm) heads::normalise(x, a.cache.head_dim, (const A*)norm, a.eps, a.offset);
    if (!a.cos) return;
    heads::rotate(x, angles.cos, angles.sin, a.half, a.interleaved);
    heads::round_to<A>(x, a.cache.head_dim);
}

template <class A>
void place(const engine_place_arguments& a) {
    const int dim = a.cache.head_dim, kv_heads = a.cache.kv_heads, queries = a.q_out ? a.heads : 0;
    const int64_t units = int64_t(a.rows) * (queries + kv_heads), claim = a.rows >= 64 ? queries + kv_heads : 1;
    alignas(64) float x[LARGEST_HEAD] = {}, values[LARGEST_HEAD] = {};
    Angles<A> angles;
    for (int64_t first; (first = engine_claim(0, claim)) < units;)
        for (int64_t unit = first; unit < first + claim && unit < units; unit++) {
            const int64_t row = unit / (queries + kv_heads);
            const int head = int(unit % (queries + kv_heads));
            angles.read(a, row);
            if (head < queries) {
                heads::read((const A*)a.q + row * a.q_row + head * a.q_head, dim, x);
                turn<A>(a, angles, a.q_norm, x);
                heads::write((A*)a.q_out + row * a.out_row + head * a.out_head, dim, x);
            } else if (a.slots[row] >= 0) {
                const int kv = head - queries;
                heads::read((const A*)a.k + row * a.k_row + kv * a.k_head, dim, x);
                turn<A>(a, angles, a.k_norm, x);
                heads::read((const A*)a.v + row * a.v_row + kv * a.v_head, dim, values);
                store_any(a.cache, a.slots[row], kv, x, values);
            }
        }
}

}  // namespace

extern "C" void engine_place(const void* arguments, int, int) {
    const engine_place_arguments& a = *(const engine_place_arguments*)arguments;
    switch (a.type) {
        case ENGINE_BF16: return place<bf16>(a);
        case ENGINE_F16: return place<f16>(a);
        default: return place<float>(a);
    }
}
