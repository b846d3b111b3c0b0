// Drawing tokens. A row's nearest tokens are listed once; selecting and drawing look at the list alone. Rows go to threads whole.
#include "sample.h"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <vector>

#include "lanes.h"
#include "pool.h"
#include "share.h"

namespace {

using namespace lanes;

const float FOREVER = __builtin_inff();
// Tokens deeper than this weigh less than a 10^-6 of the best: they are listed only if a row needs them.
const float NEAR = 14.0f;
// Beyond, a weight is 0: expf gives numbers without all their digits there.
const float NOTHING = 87.0f;
const int64_t BLOCK = 512;

struct Near {
    std::vector<float> depth, weight;
    std::vector<int32_t> token;
    std::vector<int32_t> left, kept;  // candidates of a selection
    std::vector<double> sums;
    int64_t count;      // listed
    double mass, tail;  // of the list, of the rest
};

template <class A>
struct Row {
    const A* x;
    int64_t size;
    float best, temperature;

    INLINE F depths(int64_t i) const {
        if (i + 16 <= size) return (all(best) - load(x + i)) / all(temperature);
        float some[16];
        for (int lane = 0; lane < 16; lane++) some[lane] = i + lane < size ? load_some(x + i + lane, 1).p[0][0] : -FOREVER;
        return (all(best) - load(some)) / all(temperature);
    }
};

INLINE F weights(const F& depths) {
    F r = exponential(all(0.0f) - depths);
#define STEP(i) r.p[i] = depths.p[i] <= NOTHING ? r.p[i] : vf{};
    LANES_EACH(STEP)
#undef STEP
    return r;
}

INLINE float least(const F& x) { return -largest(all(0.0f) - x); }

// Lists the tokens of depth up to `reach`.
template <class A>
void gather(const Row<A>& row, float reach, Near& near) {
    const size_t room = size_t(row.size) + 16;
    if (near.weight.size() < room) {
        near.weight.resize(room);
        near.token.resize(room);
    }
    if (near.depth.size() < room) near.depth.resize(room);
    float *depths = near.depth.data(), *listed = near.weight.data();
    int32_t* tokens = near.token.data();
    near.count = 0;
    near.mass = near.tail = 0;
    F rest = all(0);
    for (int64_t i = 0; i < row.size; i += 16) {
        const F depth = row.depths(i), weight = weights(depth);
        if (!(least(depth) <= reach)) {
            rest = rest + weight;
        } else {
            float d[16], w[16];
            store(d, depth);
            store(w, weight);
            const int lanes_here = row.size - i < 16 ? int(row.size - i) : 16;
            int64_t end = near.count;
            for (int lane = 0; lane < lanes_here; lane++) {  // Without branches: written always, kept if near.
                const bool close = d[lane] <= reach;
                depths[end] = d[lane];
                listed[end] = w[lane];
                tokens[end] = int32_t(i + lane);
                end += close;
                near.mass += close ? w[lane] : 0.0f;
                near.tail += close ? 0.0f : w[lane];
            }
            near.count = end;
        }
        if (i % 4096 == 4080) {
            near.tail += total(rest);
            rest = all(0);
        }
    }
    near.tail += total(rest);
}

// The depth at which the running sum of tokens, from the least deep on, reaches `target`: of their weights or (counted) of ones.
// Only depths up to `limit` count. Digit by digit of the depth's bits, whose order is that of non-negative floats.
float reaching(Near& near, double target, float limit, bool counted) {
    static thread_local double bins[2048];
    near.left.resize(size_t(near.count));
    near.kept.resize(size_t(near.count));
    int64_t left = 0;
    for (int64_t i = 0; i < near.count; i++) {
        near.left[left] = int32_t(i);
        left += near.depth[i] <= limit;
    }
    uint32_t prefix = 0;
    double before = 0;
    const struct { int shift, bits; } digits[3] = {{21, 11}, {10, 11}, {0, 10}};
    for (const auto& digit : digits) {
        const uint32_t mask = (1u << digit.bits) - 1;
        memset(bins, 0, sizeof(double) * (mask + 1));
        const auto bin_of = [&](int32_t i) {
            uint32_t bits;
            memcpy(&bits, &near.depth[i], 4);
            return bits >> digit.shift & mask;
        };
        for (int64_t n = 0; n < left; n++) bins[bin_of(near.left[n])] += counted ? 1.0 : double(near.weight[near.left[n]]);
        uint32_t bin = 0;
        for (; bin <= mask; before += bins[bin++])
            if (bins[bin] > 0 && before + bins[bin] >= target) break;
        if (bin > mask) return limit;
        int64_t kept = 0;
        for (int64_t n = 0; n < left; n++) {
            near.kept[kept] = near.left[n];
            kept += bin_of(near.left[n]) == bin;
        }
        near.left.swap(near.kept);
        left = kept;
        prefix |= bin << digit.shift;
    }
    float depth;
    memcpy(&depth, &prefix, 4);
    return depth;
}

// A depth that at least `count` tokens reach: the count-th least among the least depths of groups of 64.
template <class A>
float within_reach(const Row<A>& row, int64_t count, Near& near) {
    const int64_t groups = (row.size + 63) / 64;
    if (near.depth.size() < size_t(groups)) near.depth.resize(size_t(groups));
    if (count > groups) return NEAR;
    for (int64_t begin = 0; begin < row.size; begin += 64) {
        float best = FOREVER;
        for (int64_t i = begin; i < begin + 64 && i < row.size; i += 16) {
            const float one = least(row.depths(i));
            best = one < best ? one : best;
        }
        near.depth[begin / 64] = best;
    }
    std::nth_element(near.depth.begin(), near.depth.begin() + (count - 1), near.depth.begin() + groups);
    return near.depth[size_t(count - 1)];
}

// The depth up to which tokens are allowed. Lists more of the row where the near ones do not settle it.
template <class A>
float depth_allowed(const Row<A>& row, int64_t top_k, float top_p, float& reach, Near& near) {
    const bool some = top_k > 0 && top_k < row.size;
    if (!some && !(top_p < 1.0f)) return FOREVER;
    if (some) reach = within_reach(row, top_k, near);
    for (;;) {
        gather(row, reach, near);
        const bool everything = reach == FOREVER || near.count == row.size;
        if (some && near.count < top_k && !everything) {
            reach = FOREVER;
            continue;
        }
        float allowed = some ? reaching(near, double(top_k), FOREVER, true) : FOREVER;
        if (!(top_p < 1.0f)) return allowed;
        double mass = near.mass + near.tail, listed = near.mass;
        if (some) {
            mass = 0;
            for (int64_t i = 0; i < near.count; i++) mass += near.depth[i] <= allowed ? double(near.weight[i]) : 0.0;
            listed = mass;
        }
        const double target = double(top_p) * mass;
        if (listed >= target || everything) return reaching(near, target, allowed, false);
        reach = FOREVER;
    }
}

int64_t draw_listed(const Near& near, float allowed, double chance) {
    double sum = 0;
    for (int64_t i = 0; i < near.count; i++)
        if (near.depth[i] <= allowed) sum += near.weight[i];
    const double target = chance * sum;
    double running = 0;
    int64_t last = 0;
    for (int64_t i = 0; i < near.count; i++) {
        if (!(near.depth[i] <= allowed) || near.weight[i] == 0.0f) continue;
        running += near.weight[i];
        last = near.token[i];
        if (running > target) break;
    }
    return last;
}

template <class A>
int64_t draw_row(const Row<A>& row, float allowed, double chance, Near& near) {
    const auto permitted = [&](int64_t i) {
        const F depth = row.depths(i);
        F weight = weights(depth);
        const vf limit = spread(allowed);
#define STEP(n) weight.p[n] = depth.p[n] <= limit ? weight.p[n] : vf{};
        LANES_EACH(STEP)
#undef STEP
        return weight;
    };
    near.sums.clear();
    double sum = 0;
    for (int64_t begin = 0; begin < row.size; begin += BLOCK) {
        F block = all(0);
        for (int64_t i = begin; i < begin + BLOCK && i < row.size; i += 16) block = block + permitted(i);
        near.sums.push_back(sum += total(block));
    }
    const double target = chance * sum;
    size_t block = 0;
    while (block + 1 < near.sums.size() && !(near.sums[block] > target)) block++;
    double running = block ? near.sums[block - 1] : 0.0;
    int64_t last = -1;
    // A block's sum in another order may be larger than this one by rounding: then its last allowed token is the one.
    for (; block < near.sums.size(); block++) {
        const int64_t begin = int64_t(block) * BLOCK;
        for (int64_t i = begin; i < begin + BLOCK && i < row.size; i += 16) {
            float weight[16];
            store(weight, permitted(i));
            for (int lane = 0; lane < 16; lane++) {
                if (!(weight[lane] > 0.0f)) continue;
                running += weight[lane];
                last = i + lane;
                if (running > target) return last;
            }
        }
        if (last >= 0) return last;
    }
    return 0;
}

template <class A>
void sample_row(const engine_sample_arguments& a, int64_t index) {
    static thread_local Near near;
    const Row<A> row{(const A*)a.logits + index * a.row, a.size, a.best[index], a.temperature[index]};
    float reach = NEAR;
    float allowed = depth_allowed(row, a.top_k[index], a.top_p[index], reach, near);
    const bool listed = allowed < FOREVER && allowed <= reach;
    if (a.deepest[index] < allowed) allowed = a.deepest[index];
    a.token[index] = listed ? draw_listed(near, allowed, a.chance[index]) : draw_row(row, allowed, a.chance[index], near);
}

}  // namespace

extern "C" void engine_sample(const void* arguments, int, int) {
    const engine_sample_arguments& a = *(const engine_sample_arguments*)arguments;
    for (int64_t index; (index = engine_claim(0, 1)) < a.rows;) engine_sample_row(&a, index);
}

void engine_sample_row(const engine_sample_arguments* arguments, int64_t index) {
    ENGINE_FOR_TYPE(arguments->type, sample_row<A>(*arguments, index))
}
