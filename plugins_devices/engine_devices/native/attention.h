// Attention over pages: the arguments.
#pragma once
#include "pages.h"

#ifdef __cplusplus
extern "C" {
#endif

// Rows [query_start[b], query_start[b+1]) belong to sequence b; its last row has position seq_lens[b] - 1. Rows of no sequence, and
// rows before position 0, become zeros. Strides in elements; head_dim elements of a head are adjacent.
typedef struct {
    engine_pages cache;
    const void* q;
    void* out;
    const int32_t* query_start;
    const int32_t* seq_lens;
    const void* sinks;        // [heads] or null
    float* scratch;           // for contexts that several threads share; all zeros before its first use; may be null
    int64_t scratch_floats;
    int64_t q_row, q_head, out_row, out_head;
    int32_t sequences, rows, heads;
    int32_t type;             // of q and out: ENGINE_F32, ENGINE_BF16 or ENGINE_F16
    int32_t window;           // keys that a query sees; 0: all
    int32_t sinks_type;
    float scale;
    float soft_cap;           // 0: none
    float out_factor;         // results are multiplied by it; 0: left as they are
} engine_attend_arguments;

void engine_attend(const void* arguments, int thread, int threads);

#ifdef __cplusplus
}
#endif
