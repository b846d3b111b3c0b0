// Operations on rows: norms, sums, activations, rotation, embedding, the best of a vocabulary. Arguments; strides in elements.
#pragma once
#include <stdint.h>

#include "abi.h"

#ifdef __cplusplus
extern "C" {
#endif

// The order of ACTIVATIONS in core/engine/plugin/contracts/operations.py.
enum engine_activation {
    ENGINE_SILU = 0,
    ENGINE_GELU = 1,
    ENGINE_GELU_TANH = 2,
    ENGINE_GELU_QUICK = 3,
    ENGINE_RELU = 4,
    ENGINE_RELU2 = 5,
    ENGINE_TANH = 6,
    ENGINE_SIGMOID = 7,
    ENGINE_SOFT_CAP = 8,
};

// x [outer, inner, size] with strides x_outer, x_inner, 1 → out, contiguous. All of one type.
//   engine_rms_norm    out = norm(x) · weight; with y: norm of x + y, which is also written to `sum`
//   engine_layer_norm  the same with bias; weight and bias may be null
//   engine_add         out = x + y
//   engine_activate    out = function(x)
//   engine_gate        x [.., 2 · size] → out = function(x[:size]) · x[size:]
typedef struct {
    const void *x, *y, *weight, *bias;
    void *out, *sum;
    int64_t x_outer, x_inner, y_outer, y_inner;
    int64_t outer, inner, size;
    int32_t type, function;
    float eps, offset, cap;
} engine_rows_arguments;

// x [rows, heads, size] → out, contiguous; cos and sin [rows, half] with stride angle_row.
typedef struct {
    const void *x, *cos, *sin;
    void* out;
    int64_t x_row, x_head, angle_row;
    int32_t rows, heads, size, half, type, interleaved;
} engine_rotate_arguments;

// cos and sin [rows, count] of position · frequency, times scale.
typedef struct {
    const int64_t* positions;
    const float* frequencies;
    void *cos, *sin;
    int32_t rows, count, type;
    float scale;
} engine_angles_arguments;

// out [rows, size] = weight[ids + offset] (times scale in that type, where scaled).
typedef struct {
    const int64_t* ids;
    const void* weight;
    void* out;
    int64_t size, offset;
    int32_t rows, type, scaled;
    float scale;
} engine_embed_arguments;

// out [count, inner, size] = x[rows], x with strides x_row, x_inner, 1.
typedef struct {
    const void* x;
    const int64_t* rows;
    void* out;
    int64_t x_row, x_inner, count, inner, size;
    int32_t type;
} engine_select_arguments;

// The largest of each row of logits [rows, size] and its place, the first among equals; NaN where the row holds one.
// scratch: 2 · rows · ceil(size / ENGINE_BEST_CHUNK) words of 8 bytes.
#define ENGINE_BEST_CHUNK 8192
typedef struct {
    const void* logits;
    float* value;
    int64_t* place;
    void* scratch;
    int64_t row, size;
    int32_t rows, type;
} engine_best_arguments;

void engine_rms_norm(const void* arguments, int thread, int threads);
void engine_layer_norm(const void* arguments, int thread, int threads);
void engine_add(const void* arguments, int thread, int threads);
void engine_activate(const void* arguments, int thread, int threads);
void engine_gate(const void* arguments, int thread, int threads);
void engine_rotate(const void* arguments, int thread, int threads);
void engine_angles(const void* arguments, int thread, int threads);
void engine_embed(const void* arguments, int thread, int threads);
void engine_select(const void* arguments, int thread, int threads);
void engine_best(const void* arguments, int thread, int threads);

#ifdef __cplusplus
}

// The largest value of one row, on this thread; NaN where it holds one.
float engine_best_of_row(const void* row, int64_t size, int type);
#endif
