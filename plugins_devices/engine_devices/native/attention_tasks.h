// What one thread computes of attention at a time, and what it fetches for the next.
#pragma once
#include "attention.h"
#include "attention_tiles.h"
#include "fetch.h"

namespace tasks {
namespace {

struct Task {
    int sequence, head;      // head: of keys and values
    int first_row, queries;  // rows of the step
    int position;            // of first_row
    int begin, end;          // tokens that any of its rows sees
    int segments() const { return end > begin ? (end - 1) / tiles::SEGMENT - begin / tiles::SEGMENT + 1 : 0; }
};

// Queries that are read next, and lines that results go to, come into the cache a few at a time.
struct Coming {
    const char *queries = nullptr, *results = nullptr;  // of the first row of a task's head
    int64_t query, head, out_query, out_head, bytes;    // in bytes: to the next query, to its next head
    int group, rows = 0;

    Coming() {}
    template <class A>
    Coming(const engine_attend_arguments& a, const Task& reads, bool reading, const Task& writes, bool writing, A) {
        group = a.heads / a.cache.kv_heads;
        query = a.q_row * sizeof(A), head = a.q_head * sizeof(A), out_query = a.out_row * sizeof(A), out_head = a.out_head * sizeof(A);
        bytes = a.cache.head_dim * sizeof(A);
        if (reading) queries = (const char*)a.q + reads.first_row * query + reads.head * group * head, rows = reads.queries * group;
        if (writing) results = (const char*)a.out + writes.first_row * out_query + writes.head * group * out_head;
    }
    void fetch(int begin, int end) const {
        for (int row = begin; row < end; row++)
            for (int64_t at = 0; at < bytes; at += 64) {
                if (row < rows) __builtin_prefetch(queries + row / group * query + row % group * head + at);
                if (results) fetch_to_write(results + row / group * out_query + row % group * out_head + at);
            }
    }
};

}  // namespace
}  // namespace tasks
