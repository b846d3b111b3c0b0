// From a decode step to the next.
#include "advance.h"

#include <string.h>

namespace {

bool finite(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (bits >> 23 & 0xff) != 0xff;
}

}  // namespace

extern "C" int engine_advance(const engine_advance_arguments* arguments) {
    const engine_advance_arguments& a = *arguments;
    bool goes_on = true;
    for (int row = 0; row < a.rows; row++) {
        const int64_t token = a.found[row] = a.place[row];
        goes_on = goes_on && finite(a.value[row]);
        for (int i = row ? a.end_of[row - 1] : 0; i < a.end_of[row]; i++) goes_on = goes_on && token != a.ends[i];
    }
    if (!goes_on) return 0;
    for (int row = 0; row < a.rows; row++) {
        a.token_ids[row] = a.found[row];
        a.positions[row]++;
        a.seq_lens[row]++;
        a.slots[row] = a.next_slots[row];
    }
    return 1;
}
