// A row per turn: how long one takes nobody knows before.
#include "grammars.h"

#include <time.h>

#include "pool.h"
#include "rows.h"

namespace {

int64_t now() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return int64_t(time.tv_sec) * 1000000000 + time.tv_nsec;
}

int step(const engine_step_grammars_arguments& a, int64_t row) {
    const engine_foreign_call* calls = a.calls + row * a.per_row;
    for (int i = 0; i < a.per_row; i++) {
        const engine_foreign_call& call = calls[i];
        const int status = call.function(call.object, call.arguments, int32_t(call.count), call.result);
        if (status != 0) return status;
    }
    return 0;
}

void finish(const engine_step_grammars_arguments& a, int64_t row) {
    uint32_t* bits = a.bits + row * a.words;
    if (const uint32_t* kept = a.kept[row])
        for (int64_t w = 0; w < a.words; w++) bits[w] &= kept[w];
    if (!(bits[a.end >> 5] >> (a.end & 31) & 1)) return;
    for (int i = 0; i < a.extra; i++) {
        const int64_t token = a.ends[row * a.extra + i];
        if (token >= 0 && token >> 5 < a.words) bits[token >> 5] |= uint32_t(1) << (token & 31);
    }
}

void step_row(const engine_step_grammars_arguments& a, int64_t row) {
    const int64_t began = now();
    a.status[row] = step(a, row);
    if (a.status[row] == 0) finish(a, row);
    if (now() - began > a.limit) __atomic_store_n(a.late, 1, __ATOMIC_RELAXED);
}

// Which mask is that of a row; -1: none.
int64_t mask_of(const engine_forbid_arguments& a, int64_t row) {
    if (row < a.count && a.rows[row] == row) return row;
    for (int64_t i = 0; i < a.count; i++)
        if (a.rows[i] == row) return i;
    return -1;
}

size_t element_size(int type) { return type == ENGINE_F32 ? 4 : 2; }

}  // namespace

extern "C" void engine_step_grammars(const void* arguments, int, int) {
    const engine_step_grammars_arguments& a = *(const engine_step_grammars_arguments*)arguments;
    for (int64_t row; (row = engine_claim(0, 1)) < a.rows;) step_row(a, row);
}

extern "C" void engine_sample_masked(const void* arguments, int, int) {
    const engine_sample_masked_arguments& a = *(const engine_sample_masked_arguments*)arguments;
    const engine_sample_arguments& draw = *a.draw;
    for (int64_t row; (row = engine_claim(0, 1)) < draw.rows;) {
        const int64_t index = mask_of(*a.masks, row);
        if (index >= 0) {
            if (a.steps) step_row(*a.steps, index);
            engine_forbid_row(a.masks, index);
        }
        const char* logits = (const char*)draw.logits + row * draw.row * element_size(draw.type);
        ((float*)draw.best)[row] = engine_best_of_row(logits, draw.size, draw.type);
        engine_sample_row(a.draw, row);
    }
}
