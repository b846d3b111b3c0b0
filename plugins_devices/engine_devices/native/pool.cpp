// The thread pool: runs a list of operations, one after the other. The caller works with it, or lets it begin and comes later.
//
// An operation is `threads` shares; a thread takes its own first, then those that are left, and the operation is over when all are done. So
// nobody waits for a thread that the system let sleep or gave to another process: its share is taken by somebody else, and it joins
// again where the others are by then. Only a share that was begun is waited for.
// A thread without a share fetches what its own share of the next product will read first: memory has something to do while few threads
// have. Measured, one row of 0.6 billion 16-bit weights: half a percent of the step in the median of eight comparisons (-0.5 to 1.4).
// Waiting then spins for some microseconds, then sleeps in the kernel: an idle engine costs nothing. A child of fork() has none of the
// threads and starts its own at the first run.
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "abi.h"
#include "advance.h"
#include "coming.h"
#include "cores.h"
#include "waiting.h"

extern "C" void engine_linear(const void* arguments, int thread, int threads);

namespace {

using namespace cores;
using namespace waiting;

const int COUNTERS = 4;
// Shares that are marked one by one; of more than these none belongs to a thread.
const int MOST_MARKED = 32;
const int64_t SPIN_NANOSECONDS = 30000;
// Moving the caller to its core and back costs two system calls: worth it for a step, not for single operations.
const int OPERATIONS_WORTH_PINNING = 8;

struct alignas(64) Counter {
    std::atomic<int64_t> next{0};
};

struct Pool {
    // The number of the running operation (upper half; it never goes back), and of its shares which are taken, or how many (lower half).
    alignas(64) std::atomic<uint64_t> place{0};
    alignas(64) std::atomic<int> done{0};  // shares of the running operation
    Signal passed;                         // the number of the running operation, for waiting
    Counter counters[COUNTERS];
    // The list: written before its first operation becomes the running one, and not before the last of the one before is over.
    const engine_operation* operations = nullptr;
    uint32_t first = 0, count = 0;
    double* seconds = nullptr;  // of each operation, if they are wanted
    int64_t since = 0;
    std::atomic<int> threads{1};  // changes before the first list only
    std::atomic<int> shares{1};   // of the running operation
    std::atomic<bool> away{false};  // the caller does something else: operations that are opened have no share for it
    std::atomic<bool> cut{false};   // no further operation of the list is opened
    std::atomic<uint32_t> over{0};  // the number at which the last list was over
    int64_t spin = SPIN_NANOSECONDS;
    std::atomic<bool> stopping{false};
    std::vector<std::thread> workers;

    engine::Coming coming;

    Pool() { place.store(exhausted(0)); }

    static uint64_t exhausted(uint32_t number) { return uint64_t(number) << 32 | 0xffffffffu; }
    bool marked() const { return threads.load(std::memory_order_relaxed) <= MOST_MARKED; }

    // Before operation `number` of a list is opened: its shares, and what comes behind it. Returns its place.
    uint64_t prepared(uint32_t number) {
        const int all = threads.load(std::memory_order_relaxed), here = away.load(std::memory_order_relaxed) && marked() ? all - 1 : all;
        if (shares.load(std::memory_order_relaxed) != here) shares.store(here, std::memory_order_relaxed);
        foresee(number - first, here);
        return uint64_t(number) << 32 | (marked() ? ~uint64_t(0) << here & 0xffffffffu : 0);
    }

    // Which share thread `self` begins with: without the caller's, those of the others count from 0.
    uint32_t own(int self) const {
        const int absent = threads.load(std::memory_order_relaxed) - shares.load(std::memory_order_relaxed);
        return uint32_t(self > absent ? self - absent : 0);
    }

    // Takes a share, thread `self` its own first, and does it; false if there is none to take.
    bool work(int self) {
        uint64_t seen = place.load(std::memory_order_acquire), taken;
        uint32_t share;
        do {
            const uint32_t low = uint32_t(seen);
            if (marked()) {
                if (!~low) return false;
                share = ~low >> own(self) & 1 ? own(self) : uint32_t(__builtin_ctz(~low));
                taken = seen | uint64_t(1) << share;
            } else {
                if (low >= uint32_t(threads.load(std::memory_order_relaxed))) return false;
                share = low;
                taken = seen + 1;
            }
        } while (!place.compare_exchange_weak(seen, taken, std::memory_order_acq_rel, std::memory_order_acquire));
        const uint32_t number = uint32_t(seen >> 32);
        const engine_operation& operation = operations[number - first];
        const int all = shares.load(std::memory_order_relaxed);
        operation.kernel(operation.arguments, int(share), all);
        if (done.fetch_add(1, std::memory_order_acq_rel) + 1 == all) pass(number);
        return true;
    }

    // The operation is over: whoever did its last share opens the next one.
    void pass(uint32_t number) {
        if (seconds) {
            const int64_t time = now();
            seconds[number - first] += double(time - since) * 1e-9;
            since = time;
        }
        done.store(0, std::memory_order_relaxed);
        for (Counter& counter : counters) counter.next.store(0, std::memory_order_relaxed);
        const uint32_t next = number + 1;
        if (next - first < count && !cut.load(std::memory_order_relaxed)) {
            place.store(prepared(next), std::memory_order_release);
        } else {
            over.store(next, std::memory_order_relaxed);
            place.store(exhausted(next), std::memory_order_release);
        }
        passed.advance();
    }

    // While the list is sure to be there: which product comes behind its operation `index`, which has so many shares.
    void foresee(uint32_t index, int parts) {
        const engine::linear_args* product = nullptr;
        for (uint32_t i = index + 1; !product && i < count && i <= index + engine::FORESIGHT; i++)
            if (operations[i].kernel == engine_linear) product = static_cast<const engine::linear_args*>(operations[i].arguments);
        coming.set(product, parts);
    }

    // Does shares, or waits for `seen` to be over.
    void work_or_wait(int self, uint32_t seen, engine::Fetched& fetched) {
        if (work(self)) return;
        coming.fetch(int(own(self)), fetched, [&] { return passed.value.load(std::memory_order_acquire) != seen; });
        passed.wait(seen, spin);
    }

    // Opens a list for the threads, and for the caller unless it is `gone`; join() follows, once.
    // The number of no operation lies between two lists: it is what idle threads wait at.
    void begin(const engine_operation* list, int length, double* times, bool gone) {
        operations = list;
        first = uint32_t(place.load(std::memory_order_relaxed) >> 32) + 1;
        count = uint32_t(length);
        seconds = times;
        since = times ? now() : 0;
        away.store(gone, std::memory_order_relaxed);
        cut.store(false, std::memory_order_relaxed);
        place.store(prepared(first), std::memory_order_release);
        passed.advance();
    }

    // The caller helps until the list is over; whether all of it was done.
    bool join() {
        away.store(false, std::memory_order_relaxed);
        engine::Fetched fetched;
        for (;;) {
            const uint32_t seen = passed.value.load(std::memory_order_acquire);
            if (seen == over.load(std::memory_order_relaxed)) return seen == first + count;
            work_or_wait(0, seen, fetched);
        }
    }

    // Ends the list after the operation that runs.
    void end() {
        cut.store(true, std::memory_order_relaxed);
        join();
    }

    void serve(int self) {
        engine::Fetched fetched;
        for (;;) {
            // The number first, then the question: stop() advances after it has asked, so a thread that did not hear it does not sleep.
            const uint32_t seen = passed.value.load(std::memory_order_acquire);
            if (stopping.load(std::memory_order_acquire)) return;
            work_or_wait(self, seen, fetched);
        }
    }
};

enum Begun { NOTHING, SURE, DOUBTFUL };  // a list that the caller did not come back to yet
// One pool per process. It is never destroyed: threads may still sleep in it while the process ends.
struct Process {
    std::mutex mutex;
    Pool* pool = nullptr;
    int threads = 1;
    std::vector<int> cores;
    bool forked = false;
    Begun begun = NOTHING;
    bool profiling = false;
    const engine_operation* profiled = nullptr;
    std::vector<double> seconds;
};

Process& process() {
    static Process* made = new Process;
    return *made;
}

void forget_in_child() {
    Process& here = process();
    new (&here.mutex) std::mutex;  // the parent's holder does not exist here
    here.forked = here.pool != nullptr;
    here.begun = NOTHING;
}

// Before anything else is done: what was begun for sure is waited for, what is doubtful ends.
void settle(Process& here) {
    if (here.begun == SURE) here.pool->join();
    if (here.begun == DOUBTFUL) here.pool->end();
    here.begun = NOTHING;
}

void stop(Process& here) {
    settle(here);
    Pool* pool = here.pool;
    here.pool = nullptr;
    if (!pool) return;
    if (here.forked) {  // the threads stayed in the parent: the memory is given up, nothing is waited for
        here.forked = false;
        return;
    }
    pool->stopping.store(true, std::memory_order_release);
    pool->passed.advance();
    for (std::thread& worker : pool->workers) worker.join();
    delete pool;
}

int start(Process& here) {
    stop(here);
    Pool* pool = new Pool;
    const int cores = usable_cores();
    if (here.threads > cores) pool->spin = 0;
    pool->threads = here.threads < 1 ? 1 : here.threads;
    int running = 1;
    for (int thread = 1; thread < pool->threads; thread++) {
        try {
            pool->workers.emplace_back([pool, thread] { pool->serve(thread); });
        } catch (...) {  // no more threads to be had: none of them has work yet, so the number can still shrink
            break;
        }
        running++;
#ifdef __linux__
        if (!here.cores.empty()) pin(pool->workers.back().native_handle(), here.cores[thread]);
#endif
    }
    pool->threads = running;
    here.pool = pool;
    return running;
}

void run_alone(Pool& pool, const engine_operation* operations, int count) {
    for (int index = 0; index < count; index++) {
        operations[index].kernel(operations[index].arguments, 0, 1);
        for (Counter& counter : pool.counters) counter.next.store(0, std::memory_order_relaxed);
    }
}

void run_all(Process& here, const engine_operation* operations, int count) {
    Pool& pool = *here.pool;
    CallerPin pinned(here.cores, count >= OPERATIONS_WORTH_PINNING);
    settle(here);
    if (here.profiling && (here.profiled != operations || int(here.seconds.size()) != count)) {
        here.profiled = operations;
        here.seconds.assign(count, 0.0);
    }
    if (pool.threads == 1 && !here.profiling) return run_alone(pool, operations, count);
    pool.begin(operations, count, here.profiling ? here.seconds.data() : nullptr, false);
    pool.join();
}

}  // namespace

extern "C" {

int64_t engine_claim(int counter, int64_t amount) {
    return process().pool->counters[counter].next.fetch_add(amount, std::memory_order_acq_rel);
}

int engine_start(int threads, const int* cores) {
    static std::once_flag registered;
    std::call_once(registered, [] { pthread_atfork(nullptr, nullptr, forget_in_child); });
    Process& here = process();
    std::lock_guard<std::mutex> lock(here.mutex);
    here.threads = threads;
    here.cores.clear();
    if (cores) here.cores.assign(cores, cores + (threads < 1 ? 1 : threads));
    return start(here);
}

void engine_run(const engine_operation* operations, int count) {
    Process& here = process();
    std::lock_guard<std::mutex> lock(here.mutex);
    if (count <= 0) return;
    if (!here.pool || here.forked) start(here);
    run_all(here, operations, count);
}

int engine_lead(const engine_operation* operations, int count) {
    Process& here = process();
    std::lock_guard<std::mutex> lock(here.mutex);
    if (count <= 0 || !here.pool || here.forked || here.profiling || here.pool->threads == 1) return 0;
    settle(here);
    here.pool->begin(operations, count, nullptr, true);
    here.begun = DOUBTFUL;
    return 1;
}

int engine_follow(void) {
    Process& here = process();
    std::lock_guard<std::mutex> lock(here.mutex);
    if (here.begun != DOUBTFUL) return 0;
    here.begun = NOTHING;
    CallerPin pinned(here.cores, true);
    return here.pool->join();
}

int engine_follow_on(const engine_operation* operations, int count, const engine_advance_arguments* advance) {
    Process& here = process();
    std::lock_guard<std::mutex> lock(here.mutex);
    if (here.begun != DOUBTFUL) return 0;
    here.begun = NOTHING;
    CallerPin pinned(here.cores, true);
    if (!here.pool->join()) return 0;
    if (!engine_advance(advance)) return 1;
    here.pool->begin(operations, count, nullptr, true);
    here.begun = DOUBTFUL;
    return 2;
}

void engine_drop(void) {
    Process& here = process();
    std::lock_guard<std::mutex> lock(here.mutex);
    if (here.begun == DOUBTFUL) settle(here);
}

void engine_begin(const engine_operation* operations, int count) {
    Process& here = process();
    std::lock_guard<std::mutex> lock(here.mutex);
    if (count <= 0) return;
    if (!here.pool || here.forked) start(here);
    if (here.pool->threads == 1 || here.profiling) return run_all(here, operations, count);
    settle(here);
    here.pool->begin(operations, count, nullptr, false);
    here.begun = SURE;
}

void engine_finish(void) {
    Process& here = process();
    std::lock_guard<std::mutex> lock(here.mutex);
    if (here.begun == SURE) settle(here);
}

void engine_profile(int enabled) {
    Process& here = process();
    std::lock_guard<std::mutex> lock(here.mutex);
    here.profiling = enabled != 0;
    here.profiled = nullptr;
    here.seconds.clear();
}

int engine_profile_read(double* seconds, int count) {
    Process& here = process();
    std::lock_guard<std::mutex> lock(here.mutex);
    const int known = int(here.seconds.size());
    for (int index = 0; index < known && index < count; index++) seconds[index] = here.seconds[index];
    here.profiled = nullptr;
    here.seconds.clear();
    return known;
}

}  // extern "C"
