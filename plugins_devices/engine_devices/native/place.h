// From the projections to attention: norm and rotation of queries and keys, keys and values into pages.
#pragma once
#include "pages.h"

#ifdef __cplusplus
extern "C" {
#endif

// For every row: q and k are normalised per head (where a weight is given), rotated (where cos is given), k and v are stored at
// slots[row] (page · block_size + offset; -1: nowhere), and q is written to q_out (may be q; null: queries are left alone).
// Strides in elements; cos and sin [rows, half] of type `type`.
typedef struct {
    engine_pages cache;
    const void *q, *k, *v;
    void* q_out;
    const int64_t* slots;
    const void *q_norm, *k_norm;  // [head_dim] of type `type`, or null
    const void *cos, *sin;        // or null
    int64_t q_row, q_head, k_row, k_head, v_row, v_head, out_row, out_head, angle_row;
    int32_t rows, heads;
    int32_t type;
    int32_t half;                 // pairs that rotate
    int32_t interleaved;          // pairs are (2i, 2i + 1) instead of (i, i + half)
    float eps, offset;            // of the norms; offset is added to their weights
    float k_factor, v_factor;     // keys and values are multiplied by them before they are stored; 0: left as they are
} engine_place_arguments;

void engine_place(const void* arguments, int thread, int threads);

#ifdef __cplusplus
}
#endif
