/* SPDX-License-Identifier: Apache-2.0
 * Bare-metal driver of an accelerator made by codesign. C99, no operating system, no heap.
 *
 * The program gives two hooks where the defaults do not suit: define CSA_PLATFORM as a header that
 * has csa_read32, csa_write32, csa_to_device and csa_to_cpu.
 */
#ifndef CODESIGN_ACCELERATOR_H
#define CODESIGN_ACCELERATOR_H

#include <stddef.h>
#include <stdint.h>

enum {
    CSA_OK = 0,
    CSA_NOT_FOUND = -1,    /* no accelerator at the address of the registers */
    CSA_BUS_ERROR = -2,    /* memory answered with an error */
    CSA_BAD_COMMAND = -3,  /* the command list is damaged */
    CSA_STUCK = -4,        /* the watchdog saw no progress */
    CSA_TIMEOUT = -5       /* not done after the polls that were asked for */
};

typedef struct {
    uintptr_t registers; /* address of the AXI-Lite registers */
    uint8_t *memory;     /* the network's memory as the processor sees it */
    uint64_t base;       /* the same as the accelerator sees it */
    uint64_t cycles;     /* of the last run */
} csa_device;

/* One tensor in memory: [blocks of 8 channels][rows][columns][8], 1 or 2 bytes a value. */
typedef struct {
    const char *name;
    uint32_t address, channels, rows, columns;
    uint8_t bytes, is_signed;
} csa_tensor;

/* Checks that an accelerator is there. */
int csa_open(csa_device *device, uintptr_t registers, void *memory, uint64_t base);
/* Copies the image (weights, parameters, command lists) and clears the rest of the memory. */
void csa_load(csa_device *device, const uint8_t *image, size_t image_bytes, size_t memory_bytes);
/* Writes a tensor given in row-major order: int8_t/uint8_t, or int16_t where it has 2 bytes. */
void csa_put(csa_device *device, const csa_tensor *tensor, const void *values);
/* Reads a tensor into row-major order. */
void csa_get(csa_device *device, const csa_tensor *tensor, void *values);
/* Runs the command list at `commands`; polls at most `polls` times (0: for ever). */
int csa_run(csa_device *device, uint32_t commands, uint32_t polls);
/* Finished commands of load, dense, depthwise and drain, modulo 2^16. */
void csa_finished(const csa_device *device, uint16_t counts[4]);
/* Which units wait, as the register WAITING says. */
uint32_t csa_waiting(const csa_device *device);

#endif
