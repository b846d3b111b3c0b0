// Causal attention over pages: decode rows and prefill chunks in one list of tasks.
//
// A context is cut into segments of 256 tokens at fixed positions. Inside a segment: scores of all its tokens, their softmax, the sum
// of values. Segments are merged in order. So a row's result depends on its own keys alone: not on its batch mates, on how many rows
// are computed together, on the number of threads, nor on whether threads share one context.
#include "attention.h"

#include <stdlib.h>

#include <atomic>
#include <type_traits>

#include "attention_amx.h"
#include "attention_tasks.h"
#include "attention_tiles.h"
#include "lanes.h"
#include "pool.h"

namespace {

using namespace lanes;
using namespace tasks;
using namespace tiles;

// Rows that one task computes over each segment while its keys and values are in the cache.
const int TASK_ROWS = 32;
const int TASKS_PER_THREAD = 4;
// Tasks whose contexts may be shared: as many counters stand at the scratch's beginning.
const int MOST_SHARED = 4096;

// Walks the tasks in order; `seek` goes forward only.
struct Cursor {
    const engine_attend_arguments& a;
    int block;  // queries in a task
    int sequence = 0, inside = 0;
    int64_t index = 0;

    explicit Cursor(const engine_attend_arguments& arguments) : a(arguments) {
        const int group = a.heads / a.cache.kv_heads;
        block = group >= TASK_ROWS ? 1 : TASK_ROWS / group;
    }
    int queries_of(int b) const { return a.query_start[b + 1] - a.query_start[b]; }
    int64_t tasks_of(int b) const { return int64_t((queries_of(b) + block - 1) / block) * a.cache.kv_heads; }

    bool seek(int64_t wanted, Task& task) {
        for (; sequence < a.sequences; sequence++) {
            const int64_t here = tasks_of(sequence);
            if (wanted < index + here) break;
            index += here;
        }
        if (sequence == a.sequences) return false;
        describe(int(wanted - index), task);
        return true;
    }

    void describe(int number, Task& task) const {
        // Neighbours in the list share a head, and with it the keys and values that a core has in its cache.
        const int count = queries_of(sequence), parts = (count + block - 1) / block, part = number % parts;
        task.sequence = sequence;
        task.head = number / parts;
        task.queries = count - part * block < block ? count - part * block : block;
        task.first_row = a.query_start[sequence] + part * block;
        task.position = a.seq_lens[sequence] - count + part * block;
        task.end = task.position + task.queries;
        const int first = task.position < 0 ? 0 : task.position;
        task.begin = a.window > 0 && first >= a.window ? first - a.window + 1 : 0;
        if (task.end < 0) task.end = 0;
    }
};

// What a thread needs for one task: rows are (query, head of the group).
struct Room {
    float* q;        // [rows][D], or bf16 in the same place
    float* scores;   // [MOST_ROWS][SEGMENT]
    float* weights;  // [MOST_ROWS][SEGMENT], or bf16 in the same place
    float* sum;      // [rows][D]: of the segment
    float* whole;    // [rows][D]: merged
    float *sum_top, *sum_weight, *top, *weight;  // [rows]
    char* copies;    // tiles put together from small pages, or with hidden tokens cleared
    char* block = nullptr;
    size_t bytes = 0;
#if defined(ENGINE_AMX)
    amx::Registers registers;
#endif

    ~Room() { free(block); }
    void prepare(int rows, int dim) {
        const size_t per_row = (size_t(rows) * dim * 4 + 63) & ~size_t(63), scalars = (size_t(rows) * 4 + 63) & ~size_t(63);
        const size_t square = MOST_ROWS * SEGMENT * 4, copy = size_t(SEGMENT) * dim * 4 * 4;
        const size_t need = 3 * per_row + 2 * square + 4 * scalars + copy;
        if (need > bytes) {
            free(block);
            if (posix_memalign((void**)&block, 4096, need)) abort();
            bytes = need;
        }
        char* at = block;
        auto cut = [&](size_t size) { char* here = at; at += size; return here; };
        q = (float*)cut(per_row), sum = (float*)cut(per_row), whole = (float*)cut(per_row);
        scores = (float*)cut(square), weights = (float*)cut(square);
        sum_top = (float*)cut(scalars), sum_weight = (float*)cut(scalars);
        top = (float*)cut(scalars), weight = (float*)cut(scalars);
        copies = cut(copy);
    }
};

Room& room() {
    static thread_local Room here;
    return here;
}

template <class A, class Q>
void read_queries(const engine_attend_arguments& a, const Task& task, Q* to) {
    const int group = a.heads / a.cache.kv_heads, dim = a.cache.head_dim, padded = pages::padded(dim);
    for (int query = 0; query < task.queries; query++)
        for (int head = 0; head < group; head++, to += padded) {
            const A* from = (const A*)a.q + (task.first_row + query) * a.q_row + (task.head * group + head) * a.q_head;
            if (std::is_same_v<A, Q> && dim == padded) memcpy((void*)to, from, dim * sizeof(A));
            else for (int d = 0; d < padded; d += 16) store(to + d, d < dim ? take(from + d, dim - d) : all(0));
        }
}

// o, weight and top of one more segment join those of the segments before it, where the row sees it. `rows` <= 16 from `first` on.
void merge_some(const Room& r, int first, int rows, int dim, const float* sums, const float* tops, const float* weights) {
    float top[16], before[16] = {}, after[16] = {};
    for (int i = 0; i < rows; i++) {
        const float own = r.top[first + i];
        top[i] = (own > tops[i] || own != own) ? own : tops[i];
        before[i] = own - top[i], after[i] = tops[i] - top[i];
    }
    store(before, exponential(load(before)));
    store(after, exponential(load(after)));
    for (int i = 0; i < rows; i++) {
        const int row = first + i;
        if (weights[i] == 0.0f) continue;
        if (r.weight[row] == 0.0f) before[i] = 0.0f;
        float* whole = r.whole + int64_t(row) * dim;
        const float* sum = sums + int64_t(i) * dim;
        const F was = all(before[i]), more = all(after[i]);
        for (int d = 0; d < dim; d += 16) store(whole + d, fma(load(sum + d), more, load(whole + d) * was));
        r.weight[row] = r.weight[row] * before[i] + weights[i] * after[i];
        r.top[row] = top[i];
    }
}

void merge(const Room& r, int rows, int dim, const float* sums, const float* tops, const float* weights) {
    for (int row = 0; row < rows; row += 16)
        merge_some(r, row, rows - row < 16 ? rows - row : 16, dim, sums + int64_t(row) * dim, tops + row, weights + row);
}

float sink_of(const engine_attend_arguments& a, int head) {
    switch (a.sinks_type) {
        case ENGINE_BF16: return load_some((const bf16*)a.sinks + head, 1).p[0][0];
        case ENGINE_F16: return load_some((const f16*)a.sinks + head, 1).p[0][0];
        default: return ((const float*)a.sinks)[head];
    }
}

void begin_rows(const engine_attend_arguments& a, const Task& task, const Room& r, int dim) {
    const int group = a.heads / a.cache.kv_heads;
    for (int row = 0; row < task.queries * group; row++) {
        memset(r.whole + int64_t(row) * dim, 0, dim * 4);
        r.top[row] = a.sinks ? sink_of(a, task.head * group + row % group) : -__builtin_inff();
        r.weight[row] = a.sinks ? 1.0f : 0.0f;
    }
}

// `sums` and `weights`: of all that the rows see.
template <class A>
void write_rows(const engine_attend_arguments& a, const Task& task, const float* sums, const float* weights) {
    const int group = a.heads / a.cache.kv_heads, dim = a.cache.head_dim, padded = pages::padded(dim);
    for (int query = 0, row = 0; query < task.queries; query++)
        for (int head = 0; head < group; head++, row++) {
            A* to = (A*)a.out + (task.first_row + query) * a.out_row + (task.head * group + head) * a.out_head;
            const float* from = sums + int64_t(row) * padded;
            const bool hidden = task.position + query < 0;
            const F factor = all(hidden ? 0.0f : (a.out_factor != 0.0f ? a.out_factor : 1.0f) / weights[row]);
            for (int d = 0; d < dim; d += 16) put(to + d, hidden ? all(0) : load(from + d) * factor, dim - d);
        }
}

// The tiles of segment number `index` of a task.
template <class C>
void find_tiles(const engine_attend_arguments& a, const Task& task, int index, Segment& s) {
    const int start = (task.begin / SEGMENT + index) * SEGMENT;
    s.begin = start > task.begin ? start : task.begin;
    s.end = start + SEGMENT < task.end ? start + SEGMENT : task.end;
    s.first = s.begin & ~15;
    s.count = (s.end - s.first + 15) / 16;
    const int32_t* table = a.cache.block_table + task.sequence * a.cache.columns;
    for (int t = 0; t < s.count; t++) locate<C>(a.cache, table, task.head, s.first + t * 16, task.end, s, t);
}

// Rows of a task over one segment, as many as are computed together from `row` on; returns how many. `next`: see rows_of_segment.
template <class C, bool DOT, int DIM, bool FIRST>
int compute_some(const engine_pages& p, Segment& s, const Segment* next, const Softmax& softmax, const Room& r, int row, int left) {
    if (LANES_PARTS == 1 && left >= 8) return rows_of_segment<C, DOT, 8, DIM, FIRST>(p, s, next, softmax, r, row), 8;
    if (left >= 4) return rows_of_segment<C, DOT, 4, DIM, FIRST>(p, s, next, softmax, r, row), 4;
    if (left == 3) return rows_of_segment<C, DOT, 3, DIM, FIRST>(p, s, next, softmax, r, row), 3;
    if (left == 2) return rows_of_segment<C, DOT, 2, DIM, FIRST>(p, s, next, softmax, r, row), 2;
    return rows_of_segment<C, DOT, 1, DIM, FIRST>(p, s, next, softmax, r, row), 1;
}

template <class C, bool DOT, int DIM>
void compute_rows(const engine_pages& p, Segment& s, const Segment* next, const Softmax& softmax, const Room& r, int rows,
                  const Coming& coming) {
    int row = compute_some<C, DOT, DIM, true>(p, s, next, softmax, r, 0, rows);
    coming.fetch(0, row);
    while (row < rows) {
        const int done = row;
        row += compute_some<C, DOT, DIM, false>(p, s, nullptr, softmax, r, row, rows - row);
        coming.fetch(done, row);
    }
}

// All rows of a task over one segment: r.sum, r.sum_top, r.sum_weight. Rows that see none of it get sum_weight 0.
template <class C, bool DOT>
void compute(const engine_attend_arguments& a, const Task& task, Segment& s, const Segment* next, Room& r, const Coming& coming) {
    const int group = a.heads / a.cache.kv_heads, rows = task.queries * group;
    const Softmax softmax{a.scale, a.soft_cap, a.window, task.position, group};
#if defined(ENGINE_AMX)
    if constexpr (DOT && std::is_same_v<C, bf16>)
        if (fills_registers(a.cache.head_dim)) {
            tile_rows_of_segment(a.cache, s, next, softmax, r, rows);
            return coming.fetch(0, rows);
        }
#endif
    if (DOT && a.cache.head_dim == 128) return compute_rows<C, DOT, 128>(a.cache, s, next, softmax, r, rows, coming);
    compute_rows<C, DOT, 0>(a.cache, s, next, softmax, r, rows, coming);
}

// One segment of one task.
struct Item {
    Task task;
    int index, count;  // number of the segment, of how many
    int64_t unit;      // where its partial result goes, if contexts are shared
    Segment segment;
};

// What a thread does: whole tasks segment by segment, or (parts > 0) single segments, `parts` numbers to a task.
template <class C>
struct Feed {
    const engine_attend_arguments& a;
    Cursor cursor;
    int64_t tasks;
    int parts;

    // The thread's next item after `before`; a task that sees nothing has an item without tokens.
    bool next(Item& item, const Item* before) {
        if (!parts && before && before->index + 1 < before->count) {
            item.task = before->task, item.count = before->count, item.index = before->index + 1;
        } else if (!claim(item)) {
            return false;
        }
        item.segment.count = 0;
        if (item.count) find_tiles<C>(a, item.task, item.index, item.segment);
        return true;
    }

    bool claim(Item& item) {
        for (;;) {
            item.unit = engine_claim(0, 1);
            if (item.unit >= tasks * (parts ? parts : 1)) return false;
            cursor.seek(parts ? item.unit / parts : item.unit, item.task);
            item.count = item.task.segments();
            item.index = parts ? int(item.unit % parts) : 0;
            if (!parts || item.index < item.count || item.index == 0) return true;
        }
    }
};

// Computes the thread's items; consume(item) follows each. The next item's keys are fetched meanwhile, also those of the next task.
template <class A, class C, bool DOT, class CONSUME>
void work_through(const engine_attend_arguments& a, Feed<C> feed, Room& r, CONSUME consume) {
    const int dim = pages::padded(a.cache.head_dim), copy = SEGMENT * dim * 8;
    Item items[2];
    items[0].segment.copies = r.copies, items[1].segment.copies = r.copies + copy;
    int at = 0;
    for (bool have = feed.next(items[0], nullptr); have; at ^= 1) {
        Item &item = items[at], &coming = items[at ^ 1];
        have = feed.next(coming, &item);
        if (item.index == 0 || feed.parts) {
            if (DOT) read_queries<A>(a, item.task, (bf16*)r.q);
            else read_queries<A>(a, item.task, r.q);
        }
        const Coming rows(a, coming.task, have && (coming.index == 0 || feed.parts), item.task, item.index + 1 >= item.count && !feed.parts, A{});
        if (item.count) compute<C, DOT>(a, item.task, item.segment, have && coming.count ? &coming.segment : nullptr, r, rows);
        consume(item);
    }
}

// Each task walks its segments in order.
template <class A, class C, bool DOT>
void attend_whole(const engine_attend_arguments& a, int64_t tasks, Room& r) {
    const int dim = pages::padded(a.cache.head_dim), group = a.heads / a.cache.kv_heads;
    work_through<A, C, DOT>(a, Feed<C>{a, Cursor(a), tasks, 0}, r, [&](const Item& item) {
        if (item.count == 1 && !a.sinks) return write_rows<A>(a, item.task, r.sum, r.sum_weight);  // as merged with nothing
        if (item.index == 0) begin_rows(a, item.task, r, dim);
        if (item.count) merge(r, item.task.queries * group, dim, r.sum, r.sum_top, r.sum_weight);
        if (item.index + 1 >= item.count) write_rows<A>(a, item.task, r.whole, r.weight);
    });
}

// Few tasks with long contexts: the segments are shared out. Whoever finishes a task's last one merges them, in the same order.
template <class A, class C, bool DOT>
void attend_shared(const engine_attend_arguments& a, int64_t tasks, int most, Room& r) {
    const int dim = pages::padded(a.cache.head_dim), group = a.heads / a.cache.kv_heads;
    const int rows = Cursor(a).block * group;
    const int64_t unit = int64_t(rows) * (dim + 2);
    std::atomic<int32_t>* finished = (std::atomic<int32_t>*)a.scratch;
    float* partial = a.scratch + MOST_SHARED;
    work_through<A, C, DOT>(a, Feed<C>{a, Cursor(a), tasks, most}, r, [&](const Item& item) {
        const int here = item.task.queries * group;
        const int64_t task = item.unit / most;
        float* to = partial + item.unit * unit;
        memcpy(to, r.sum, size_t(here) * dim * 4);
        memcpy(to + int64_t(rows) * dim, r.sum_top, here * 4);
        memcpy(to + int64_t(rows) * (dim + 1), r.sum_weight, here * 4);
        if (item.count && finished[task].fetch_add(1, std::memory_order_acq_rel) + 1 < item.count) return;
        finished[task].store(0, std::memory_order_relaxed);  // as the next call wants it
        begin_rows(a, item.task, r, dim);
        for (int index = 0; index < item.count; index++) {
            const float* from = partial + (task * most + index) * unit;
            const float *tops = from + int64_t(rows) * dim, *weights = tops + rows;
            merge(r, here, dim, from, tops, weights);
        }
        write_rows<A>(a, item.task, r.whole, r.weight);
    });
}

template <class A>
void clear_rows(const engine_attend_arguments& a, int thread, int threads) {
    for (int row = a.query_start[a.sequences] + thread; row < a.rows; row += threads)
        for (int head = 0; head < a.heads; head++)
            memset((A*)a.out + row * a.out_row + head * a.out_head, 0, a.cache.head_dim * sizeof(A));
}

template <class A, class C, bool DOT>
void attend(const engine_attend_arguments& a, int thread, int threads) {
    clear_rows<A>(a, thread, threads);
    Cursor cursor(a);
    int64_t tasks = 0;
    int most = 0;
    for (int b = 0; b < a.sequences; b++) {
        const int64_t here = cursor.tasks_of(b);
        tasks += here;
        // Windows only make it fewer; so this counts a segment too many at times, which costs nothing but room.
        const int length = a.window > 0 && a.window + cursor.block < a.seq_lens[b] ? a.window + cursor.block : a.seq_lens[b];
        if (here && (length + SEGMENT - 1) / SEGMENT + 1 > most) most = (length + SEGMENT - 1) / SEGMENT + 1;
    }
    const int64_t unit = int64_t(cursor.block) * (a.heads / a.cache.kv_heads) * (pages::padded(a.cache.head_dim) + 2);
    const bool fits = a.scratch && tasks <= MOST_SHARED && MOST_SHARED + tasks * most * unit <= a.scratch_floats;
    Room& r = room();
    r.prepare(cursor.block * (a.heads / a.cache.kv_heads), pages::padded(a.cache.head_dim));
    if (threads > 1 && tasks < int64_t(TASKS_PER_THREAD) * threads && most > 2 && fits)
        attend_shared<A, C, DOT>(a, tasks, most, r);
    else
        attend_whole<A, C, DOT>(a, tasks, r);
#if defined(ENGINE_AMX)
    r.registers.release();
#endif
}

// A cache of 8 bits.
template <class A, class C>
void attend_codes(const engine_attend_arguments& a, int thread, int threads) {
    if constexpr (HAS_DOT && std::is_same_v<A, bf16>)
        if (codes::can_widen()) return attend<A, C, true>(a, thread, threads);
    attend<A, C, false>(a, thread, threads);
}

template <class A>
void choose_cache(const engine_attend_arguments& a, int thread, int threads) {
    switch (a.cache.type) {
        case ENGINE_BF16:
            if (HAS_DOT && a.type == ENGINE_BF16) return attend<A, bf16, HAS_DOT>(a, thread, threads);
            return attend<A, bf16, false>(a, thread, threads);
        case ENGINE_F16: return attend<A, f16, false>(a, thread, threads);
        case ENGINE_F8_E4M3: return attend_codes<A, e4m3>(a, thread, threads);
        case ENGINE_F8_E5M2: return attend_codes<A, e5m2>(a, thread, threads);
        default: return attend<A, float, false>(a, thread, threads);
    }
}

}  // namespace

extern "C" void engine_attend(const void* arguments, int thread, int threads) {
    const engine_attend_arguments& a = *(const engine_attend_arguments*)arguments;
    switch (a.type) {
        case ENGINE_BF16: return choose_cache<bf16>(a, thread, threads);
        case ENGINE_F16: return choose_cache<f16>(a, thread, threads);
        default: return choose_cache<float>(a, thread, threads);
    }
}
