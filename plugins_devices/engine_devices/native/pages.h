// How keys and values stand in a page, and which threads' argument structs describe it.
//
// A page is [kv head][keys, values]. With S = 4 for types of 8 bits, 2 for bf16 and 1 for others, and D the head size padded to 16:
//   keys   [tokens / 16][D / S][16 tokens][S]   one register = 16 tokens × S dimensions, multiplied by a broadcast of q
//   values [tokens / S][D][S]                   one register = 16 dimensions × S tokens, multiplied by a broadcast of p
// Pages of fewer than 16 tokens have keys [D / S][tokens][S]; pages of fewer than S tokens have values [D][tokens].
#pragma once
#include <stdint.h>

#include "abi.h"

typedef struct {
    void* pages;                 // first byte of page 0
    const int32_t* block_table;  // [sequences, columns]
    int64_t columns;             // row stride of the block table
    int64_t page_bytes;
    int32_t type;                // engine_type of keys and values
    int32_t block_size;          // tokens in a page: even, and a multiple or a divisor of 16
    int32_t kv_heads;
    int32_t head_dim;
} engine_pages;

namespace pages {
namespace {

inline int element_bytes(int type) {
    switch (type) {
        case ENGINE_F32: return 4;
        case ENGINE_BF16:
        case ENGINE_F16: return 2;
        default: return 1;
    }
}

inline int padded(int head_dim) { return (head_dim + 15) & ~15; }

// Bytes of the keys (or the values) of one head in one page.
inline int64_t half_bytes(const engine_pages& p) {
    return int64_t(p.block_size) * padded(p.head_dim) * element_bytes(p.type);
}

}  // namespace
}  // namespace pages
