// From a decode step to the next: each sequence goes on with its largest logit's token.
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Of a step of `rows` rows, one per sequence: its results and its inputs (which become those of the next step), the next step's slots, and
// which tokens may end row r: ends[end_of[r - 1]] … ends[end_of[r] - 1], from 0 for the first.
typedef struct {
    const float* value;    // [rows], the largest logits
    const int64_t* place;  // [rows], their ids
    int64_t* found;        // [rows], where the ids are kept
    int64_t* token_ids;    // [rows], inputs, as the next three
    int64_t* positions;
    int64_t* slots;
    int32_t* seq_lens;
    const int64_t* next_slots;  // [rows]
    const int64_t* ends;
    const int32_t* end_of;  // [rows]
    int32_t rows;
} engine_advance_arguments;

// Keeps the ids in `found`. Changes the inputs and returns 1, or returns 0 where a row may end by its token or has no finite logit.
int engine_advance(const engine_advance_arguments* arguments);

#ifdef __cplusplus
}
#endif
