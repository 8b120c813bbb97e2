/* SPDX-License-Identifier: Apache-2.0
 * Runs the network once on input.bin (row-major) and writes output.bin; for test_drivers.py. */
#include "codesign_accelerator.c"
#include "network.h"

static uint8_t memory[NETWORK_MEMORY_BYTES];
static uint8_t image[NETWORK_IMAGE_BYTES];
static uint8_t values[NETWORK_LARGEST_BYTES];

static size_t transfer(const char *name, void *at, size_t bytes, const char *mode) {
    FILE *file = fopen(name, mode);
    size_t count = *mode == 'r' ? fread(at, 1, bytes, file) : fwrite(at, 1, bytes, file);
    fclose(file);
    return count;
}

static size_t bytes_of(const csa_tensor *t) {
    return (size_t)t->channels * t->rows * t->columns * t->bytes;
}

int main(void) {
    csa_device device;
    const csa_tensor *in = TENSOR_IN, *out = TENSOR_OUT;
    csa_memory = memory;
    if (csa_open(&device, 0, memory, 0)) return 2;
    transfer("image.bin", image, sizeof image, "rb");
    csa_load(&device, image, NETWORK_IMAGE_BYTES, NETWORK_MEMORY_BYTES);
    transfer("input.bin", values, bytes_of(in), "rb");
    csa_put(&device, in, values);
    for (int s = 0; s < NETWORK_SEGMENTS; s++) {
        int failed = csa_run(&device, network_segments[s], 100000);
        if (failed) return printf("failed %d\n", failed), 3;
    }
    csa_get(&device, out, values);
    transfer("output.bin", values, bytes_of(out), "wb");
    printf("done %llu\n", (unsigned long long)device.cycles);
    return 0;
}
