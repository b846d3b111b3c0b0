// The largest of a row and its place: the first among equals; what is no number is larger than all numbers.
#pragma once
#include <stdint.h>

struct Best {
    float value;
    int64_t place;
};

// Of two candidates, the first of which stands before the second.
inline Best better(const Best& a, const Best& b) {
    if (a.value != a.value) return a;
    return b.value > a.value || b.value != b.value ? b : a;
}
