// Drawing tokens from logits.
#pragma once
#include <stdint.h>

#include "abi.h"

#ifdef __cplusplus
extern "C" {
#endif

// One token per row of logits [rows, size] with stride `row`. A token's depth is (best - logit) / temperature, its weight
// exp(-depth). Allowed are tokens of depth up to `deepest`, among the top_k (<= 0: all) least deep, and among the least deep whose
// weight reaches top_p of what top_k leaves; ties with the last one allowed stay. The token drawn is the first whose inclusive sum
// of allowed weights, in the order of ids, exceeds chance · their total. `best`: the largest logit of each row.
typedef struct {
    const void* logits;
    const float *best, *temperature, *top_p, *deepest;
    const int64_t* top_k;
    const double* chance;
    int64_t* token;
    int64_t row, size;
    int32_t rows, type;
} engine_sample_arguments;

void engine_sample(const void* arguments, int thread, int threads);

#ifdef __cplusplus
}

// One row, on this thread.
void engine_sample_row(const engine_sample_arguments* arguments, int64_t index);
#endif
