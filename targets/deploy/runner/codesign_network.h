/* SPDX-License-Identifier: Apache-2.0
 *
 * A network compiled by codesign: load it, run it, time it. C and C++.
 *
 *     codesign_network* net = codesign_load("build/rpi4", 0);
 *     if (!net) { fputs(codesign_error(), stderr); exit(1); }
 *     const void* in[1] = {image};
 *     void* out[1] = {scores};
 *     codesign_run(net, in, out);
 *     codesign_free(net);
 *
 * Link with -lcodesign (lib/ of the build folder). Buffers are row-major in the shape that
 * codesign_input and codesign_output tell; formats below a byte take a byte an element.
 * A network is used by one thread at a time; networks of a process share one thread pool.
 */
#ifndef CODESIGN_NETWORK_H_
#define CODESIGN_NETWORK_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct codesign_network codesign_network;

typedef struct {
  const char* name;
  const char* type;    /* of codesign: f32, u8, s4, ... */
  const char* storage; /* as kept in memory: float32, uint8, int8, ... */
  int rank;
  const int64_t* shape;
  size_t bytes; /* of the whole buffer */
} codesign_tensor;

/* The network in a build folder, or NULL (see codesign_error). threads 0: one a core. */
codesign_network* codesign_load(const char* folder, int threads);
void codesign_free(codesign_network* network);

int codesign_inputs(const codesign_network* network);
int codesign_outputs(const codesign_network* network);
const codesign_tensor* codesign_input(const codesign_network* network, int index);
const codesign_tensor* codesign_output(const codesign_network* network, int index);

/* 0 if all went well. Results are written to the caller's buffers. */
int codesign_run(codesign_network* network, const void* const* inputs, void* const* outputs);

/* Milliseconds of `repeats` single calls after `warmup` that do not count. 0 if all went well. */
int codesign_time(codesign_network* network, const void* const* inputs, int repeats, int warmup,
                  double* samples_ms);

/* What went wrong last in this thread; never NULL. */
const char* codesign_error(void);

#ifdef __cplusplus
}
#endif
#endif
