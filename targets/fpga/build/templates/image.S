/* SPDX-License-Identifier: Apache-2.0
 * The network's memory image, from image.bin in the assembler's search path. */
    .section .rodata
    .balign 64
    .global network_image
network_image:
    .incbin "image.bin"
