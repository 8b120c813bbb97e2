/* SPDX-License-Identifier: Apache-2.0
 * Runs the network once on zeros and prints the cycles; a start for an application.
 * Build in Vitis with the standalone BSP of design.xsa, together with image.S.
 */
#include <stdio.h>

#include "codesign_accelerator.h"
#include "network.h"

#ifndef CSA_REGISTERS
#define CSA_REGISTERS @REGISTERS@
#endif

extern const uint8_t network_image[];
static uint8_t memory[NETWORK_MEMORY_BYTES] __attribute__((aligned(4096)));
static uint8_t values[NETWORK_LARGEST_BYTES];

int main(void) {
    csa_device device;
    int failed = csa_open(&device, CSA_REGISTERS, memory, (uintptr_t)memory);
    if (failed) return printf("no accelerator (%d)\n", failed), 1;
    csa_load(&device, network_image, NETWORK_IMAGE_BYTES, NETWORK_MEMORY_BYTES);
    for (int i = 0; i < NETWORK_INPUTS; i++) csa_put(&device, network_inputs[i], values);
    for (int s = 0; s < NETWORK_SEGMENTS; s++) {
        failed = csa_run(&device, network_segments[s], 0);
        if (failed) return printf("segment %d failed (%d)\n", s, failed), 1;
        printf("segment %d: %llu cycles\n", s, (unsigned long long)device.cycles);
    }
    for (int i = 0; i < NETWORK_OUTPUTS; i++) csa_get(&device, network_outputs[i], values);
    return 0;
}
