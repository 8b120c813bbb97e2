/* SPDX-License-Identifier: Apache-2.0 */
#include "codesign_accelerator.h"

#include <string.h>

#ifdef CSA_PLATFORM
#include CSA_PLATFORM
#else
static uint32_t csa_read32(uintptr_t address) { return *(volatile uint32_t *)address; }
static void csa_write32(uintptr_t address, uint32_t value) {
    *(volatile uint32_t *)address = value;
}
#if defined(__has_include)
#if __has_include("xil_cache.h")
#define CSA_XILINX
#endif
#endif
#ifdef CSA_XILINX
#include "xil_cache.h"
static void csa_to_device(void *at, size_t bytes) { Xil_DCacheFlushRange((INTPTR)at, bytes); }
static void csa_to_cpu(void *at, size_t bytes) { Xil_DCacheInvalidateRange((INTPTR)at, bytes); }
#else
#error "no cache operations here: define CSA_PLATFORM"
#endif
#endif

enum { IDENTITY = 0x00, CONTROL = 0x04, STATUS = 0x08, COMMANDS = 0x10, BASE_LOW = 0x14,
       BASE_HIGH = 0x18, CYCLES_LOW = 0x20, CYCLES_HIGH = 0x24, FINISHED_LOW = 0x28,
       FINISHED_HIGH = 0x2C, WAITING = 0x40 };
enum { DONE = 2, BUS_ERROR = 4, BAD_COMMAND = 8, STUCK = 16 };

int csa_open(csa_device *device, uintptr_t registers, void *memory, uint64_t base) {
    device->registers = registers;
    device->memory = memory;
    device->base = base;
    device->cycles = 0;
    return (csa_read32(registers + IDENTITY) & 0xFFFFFF00u) == 0xC0DE5100u ? CSA_OK
                                                                           : CSA_NOT_FOUND;
}

void csa_load(csa_device *device, const uint8_t *image, size_t image_bytes, size_t memory_bytes) {
    memcpy(device->memory, image, image_bytes);
    if (memory_bytes > image_bytes)
        memset(device->memory + image_bytes, 0, memory_bytes - image_bytes);
    csa_to_device(device->memory, memory_bytes > image_bytes ? memory_bytes : image_bytes);
}

static size_t csa_place(const csa_tensor *t, uint32_t channel, size_t pixel) {
    size_t pixels = (size_t)t->rows * t->columns;
    return t->address + ((size_t)(channel / 8) * pixels * 8 + pixel * 8 + channel % 8) * t->bytes;
}

static size_t csa_size(const csa_tensor *t) {
    return (size_t)((t->channels + 7) / 8) * 8 * t->rows * t->columns * t->bytes;
}

void csa_put(csa_device *device, const csa_tensor *t, const void *values) {
    const uint8_t *from = values;
    size_t pixels = (size_t)t->rows * t->columns;
    memset(device->memory + t->address, 0, csa_size(t));
    for (uint32_t c = 0; c < t->channels; c++)
        for (size_t p = 0; p < pixels; p++)
            memcpy(device->memory + csa_place(t, c, p), from + (c * pixels + p) * t->bytes,
                   t->bytes);
    csa_to_device(device->memory + t->address, csa_size(t));
}

void csa_get(csa_device *device, const csa_tensor *t, void *values) {
    uint8_t *to = values;
    size_t pixels = (size_t)t->rows * t->columns;
    csa_to_cpu(device->memory + t->address, csa_size(t));
    for (uint32_t c = 0; c < t->channels; c++)
        for (size_t p = 0; p < pixels; p++)
            memcpy(to + (c * pixels + p) * t->bytes, device->memory + csa_place(t, c, p),
                   t->bytes);
}

int csa_run(csa_device *device, uint32_t commands, uint32_t polls) {
    uintptr_t at = device->registers;
    uint32_t status, left = polls;
    csa_write32(at + COMMANDS, commands);
    csa_write32(at + BASE_LOW, (uint32_t)device->base);
    csa_write32(at + BASE_HIGH, (uint32_t)(device->base >> 32));
    csa_write32(at + STATUS, DONE | BUS_ERROR | BAD_COMMAND | STUCK);
    csa_write32(at + CONTROL, 1);
    do {
        status = csa_read32(at + STATUS);
        if (polls && !(status & DONE) && left-- == 0) return CSA_TIMEOUT;
    } while (!(status & DONE));
    device->cycles = csa_read32(at + CYCLES_LOW);
    device->cycles |= (uint64_t)csa_read32(at + CYCLES_HIGH) << 32;
    if (!(status & (BUS_ERROR | BAD_COMMAND | STUCK))) return CSA_OK;
    csa_write32(at + CONTROL, 2);
    return status & BUS_ERROR ? CSA_BUS_ERROR : status & BAD_COMMAND ? CSA_BAD_COMMAND : CSA_STUCK;
}

void csa_finished(const csa_device *device, uint16_t counts[4]) {
    uint32_t low = csa_read32(device->registers + FINISHED_LOW);
    uint32_t high = csa_read32(device->registers + FINISHED_HIGH);
    counts[0] = (uint16_t)low;
    counts[1] = (uint16_t)(low >> 16);
    counts[2] = (uint16_t)high;
    counts[3] = (uint16_t)(high >> 16);
}

uint32_t csa_waiting(const csa_device *device) { return csa_read32(device->registers + WAITING); }
