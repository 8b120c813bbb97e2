// SPDX-License-Identifier: Apache-2.0
// Drives every packing of proof.py with all operands and compares with plain products.
// Arguments: the step between activations of the 8-bit sweeps (1: all of them).
// Prints "NAME cases wrong" lines; see proof.py.
#include "Vproof.h"
#include "verilated.h"
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

static Vproof top;
struct Case { int a0, a1, w0, w1, twice; };
static const int STAGES = 8;
static Case past[STAGES];
static uint64_t now = 0;

static void tick(const Case &c) {
    top.a0 = c.a0 & 0x1ff, top.a1 = c.a1 & 0x1ff, top.w0 = c.w0 & 0xff, top.w1 = c.w1 & 0xff;
    top.twice = c.twice;
    top.clk = 0;
    top.eval();
    top.clk = 1;
    top.eval();
    past[now++ % STAGES] = c;
}

struct Count { const char *name; uint64_t cases, wrong; };
static Count counts[64];
static int used = 0;
static Count *find(const char *name) {
    for (int i = 0; i < used; i++)
        if (!strcmp(counts[i].name, name)) return counts + i;
    counts[used] = {name, 0, 0};
    return counts + used++;
}

static inline int sx(uint64_t v, int bits) { return int(int64_t(v << (64 - bits)) >> (64 - bits)); }
#define WATCH(latency, ok) \
    if (n >= (latency) && n - (latency) < total) { \
        const Case &c = past[(now - (latency)) % STAGES]; \
        counter->cases++; counter->wrong += !(ok); }
#define BYTES(port) sx(top.port, 16)

// Dense, 8 bits: two weights share a0 (po = 2). A product's port is <dut>_<x><o>.
#define DENSE8_(dut, latency) WATCH(latency, \
    BYTES(dut##_00) == c.a0 * c.w0 && BYTES(dut##_01) == c.a0 * c.w1)
// Dense at the doubled rate: a0 lower pixel, a1 upper pixel.
#define TWICE_(dut, latency) WATCH(latency, \
    BYTES(dut##_00) == c.a0 * c.w0 && BYTES(dut##_01) == c.a0 * c.w1 \
    && sx(top.dut##_h0, 8) == c.a1 * c.w0 && sx(top.dut##_h1, 8) == c.a1 * c.w1)
#define NARROW_(dut, latency) WATCH(latency, \
    sx(top.dut##_00, 8) == c.a0 * c.w0 && sx(top.dut##_01, 8) == c.a0 * c.w1 \
    && sx(top.dut##_10, 8) == c.a1 * c.w0 && sx(top.dut##_11, 8) == c.a1 * c.w1)
#define DEPTH_(dut, latency) WATCH(latency, \
    BYTES(dut##_00) == c.a0 * c.w0 && BYTES(dut##_10) == c.a1 * c.w0)

int main(int argc, char **argv) {
    Verilated::commandArgs(argc, argv);
    int step = argc > 1 ? atoi(argv[1]) : 1;
    uint64_t n = 0, total = ~0ull;  // ticks of this sweep, and cases once all were given
    const Case none = {0, 0, 0, 0, 0};
#include "watches.h"
    // 8 bits: both weights and one activation
    for (int a = -128; a < 256; a += step)
        for (int w0 = -128; w0 < 128; w0++)
            for (int w1 = -128; w1 < 128; w1++) {
                tick({a, 0, w0, w1, 0});
                n++;
                SWEEP_DENSE8
            }
    total = n;
    for (int i = 0; i < STAGES; i++) {
        tick(none);
        n++;
        SWEEP_DENSE8
    }
    n = 0, total = ~0ull;
    // depthwise, 8 bits: one weight and both activations
    for (int a1 = -128; a1 < 256; a1 += step)
        for (int a0 = -128; a0 < 256; a0++)
            for (int w = -128; w < 128; w++) {
                tick({a0, a1, w, 0, 0});
                n++;
                SWEEP_DEPTH
            }
    total = n;
    for (int i = 0; i < STAGES; i++) {
        tick(none);
        n++;
        SWEEP_DEPTH
    }
    n = 0, total = ~0ull;
    // 4 bits: two weights, two activations, doubled rate of the wide arrays, and the narrow ones
    for (int a1 = -8; a1 < 16; a1++)
        for (int a0 = -8; a0 < 16; a0++)
            for (int w0 = -8; w0 < 8; w0++)
                for (int w1 = -8; w1 < 8; w1++) {
                    tick({a0, a1, w0, w1, 1});
                    n++;
                    SWEEP_NARROW
                }
    total = n;
    for (int i = 0; i < STAGES; i++) {
        tick({0, 0, 0, 0, 1});
        n++;
        SWEEP_NARROW
    }
    n = 0, total = ~0ull;
    // arrays of odd sizes against plain ones, random operands and enable
    Count *random = find("random");
    for (int i = -32; i < 20000; i++) {
        top.random_clk = 0;
        top.eval();
        top.random_clk = 1;
        top.eval();
        if (i < 0) continue;  // until the pipelines are full
        random->cases++;
        random->wrong += top.mismatch;
    }
    for (int i = 0; i < used; i++)
        printf("%s %llu %llu\n", counts[i].name, (unsigned long long)counts[i].cases,
               (unsigned long long)counts[i].wrong);
    return 0;
}
