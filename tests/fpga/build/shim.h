/* SPDX-License-Identifier: Apache-2.0
 * The C driver's platform in tests: every access becomes a line to the simulated accelerator. */
#include <stdio.h>

static uint32_t csa_read32(uintptr_t address) {
    unsigned value = 0;
    printf("read %lu\n", (unsigned long)address);
    fflush(stdout);
    if (scanf("%u", &value) != 1) return 0;
    return value;
}

static void csa_write32(uintptr_t address, uint32_t value) {
    printf("write %lu %u\n", (unsigned long)address, (unsigned)value);
    fflush(stdout);
    if (scanf("%u", &value) != 1) return;
}

/* Memory that the driver hands over: its bytes as hexadecimal digits, one line. */
static uint8_t *csa_memory;

static void csa_to_device(void *at, size_t bytes) {
    printf("load %lu ", (unsigned long)((uint8_t *)at - csa_memory));
    for (size_t i = 0; i < bytes; i++) printf("%02x", ((uint8_t *)at)[i]);
    printf("\n");
    fflush(stdout);
    unsigned ok = 0;
    if (scanf("%u", &ok) != 1) return;
}

static void csa_to_cpu(void *at, size_t bytes) {
    printf("save %lu %lu\n", (unsigned long)((uint8_t *)at - csa_memory), (unsigned long)bytes);
    fflush(stdout);
    for (size_t i = 0; i < bytes; i++) {
        unsigned byte = 0;
        if (scanf("%2x", &byte) != 1) return;
        ((uint8_t *)at)[i] = (uint8_t)byte;
    }
}
