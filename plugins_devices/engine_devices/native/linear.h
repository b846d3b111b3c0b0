// Linear layers: y = x Wᵀ (+ bias) (then a gate or a residual) over weights packed in panels of 32 outputs.
//
// Packed layouts, outputs padded to 32 and inputs to PADDED with zeros; a panel is contiguous and read once, front to back:
//   bf16                  [outputs/32][inputs/2][32][2]; [outputs/32][inputs/32][2][16][16][2] for the matrix unit (pairs.h)
//   f32, f16              [outputs/32][inputs][32]
//   8 bit integer, float8 [outputs/32][inputs/4][32][4]        (integers as value + 128)
//   4 bit integer         [outputs/32][inputs/8][32][4 bytes]  (byte j: input 8c+j low, 8c+4+j high; as value + 8)
//   codes of 4 or 8 bits  as integers of 4 and 8 bits, but the code itself
//   2, 3, 5, 6 bits       [outputs/32][inputs/32] blocks (planes.h)
// Scales and shifts of groups of inputs: [outputs/32][inputs/group][32].
#pragma once
#include <stdint.h>

#include "abi.h"

namespace engine {

const int PANEL = 32;
// Rows up to which a product's beginning is worth fetching (beginning_of): of more rows' time it is a small part.
const int MOST_BEGUN_ROWS = 64;

enum Gate { GATE_NONE = 0, GATE_SILU = 1, GATE_GELU_TANH = 2 };

// Arguments of engine_linear. Strides are in elements. weight[o][i] = factor · scale[o][g] · q[o][i] + factor · shift[o][g] for
// quantized weights; of codes q is table[code], and all is multiplied by outer[o] where that is given. With a gate, out is [rows, outputs/2]: gate(y[:, n]) · y[:, n + outputs/2]; half of the outputs must be a
// multiple of 32. The residual has the type of out. The steps round to the type of out as separate layers would.
struct linear_args {
    const void* x;
    const void* weight;
    const void* scale;     // null: dense
    const void* shift;     // may be null
    const void* bias;      // may be null
    const void* residual;  // may be null; may be out
    void* out;
    float* best_value;    // the largest of each row of out and its place, as engine_best finds them; null: not looked for
    int64_t* best_place;
    void* best_found;     // scratch: 2 · threads · rows words of 8 bytes
    void* quantized;  // x as engine_quantize left it there, or null: for many rows, which each thread would else quantize again
    const float* table;  // of codes
    const float* outer;  // [outputs padded to 32], or null; with codes alone
    int64_t x_stride;
    int64_t residual_stride;
    int64_t out_stride;
    int32_t rows;
    int32_t inputs;
    int32_t outputs;
    int32_t x_type;
    int32_t weight_type;
    int32_t scale_type;  // of scale and shift: f32 or f16
    int32_t bias_type;
    int32_t out_type;
    int32_t group;    // inputs per scale: a multiple of 16 (of 32 for integers of 2, 3, 5 and 6 bits), or the padded inputs
    int32_t x_group;  // inputs per scale of 8-bit activations: 16, 32, 64 or 128, a part or a multiple of group; 0: not quantized
    int32_t gate;
    float factor;
    int32_t once;  // the weights will be out of every cache when they are used again
    int32_t first_unit;  // of the panels (with a gate: of the gates') only `units` from here on; 0 units: all
    int32_t units;
};

inline int64_t round_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

// What call `thread` of a product reads first of its weights: [from, from + bytes), then as many from `other` on (null: none).
struct Beginning {
    const uint8_t* from;
    const uint8_t* other;
    int64_t bytes;
};

// The beginning of call 0, and by how many bytes that of each further call lies behind. False where that is not worth fetching: the weights
// stay in a cache, many rows share them, or calls have no shares of their own.
bool beginning_of(const linear_args& a, int threads, Beginning& first, int64_t& step);

// engine_linear of a weight with scales: with activations rounded to 8 bits, and as they are.
void run_integer(const linear_args& a, int thread, int threads);
void run_decoded(const linear_args& a, int thread, int threads);
// Codes, and integers of 2, 3, 5 and 6 bits, either way.
void run_codebook(const linear_args& a, int thread, int threads);
void run_planes(const linear_args& a, int thread, int threads);

// Memory of the calling thread that lasts until its next use for the same `slot`; 64-byte aligned.
enum Scratch { ROWS_SCRATCH, SHIFT_SCRATCH, PANEL_SCRATCH, SUMS_SCRATCH, EXPERT_SCRATCH, SCRATCHES };
void* thread_scratch(int slot, int64_t bytes);

}  // namespace engine
