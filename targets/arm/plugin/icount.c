/* SPDX-License-Identifier: Apache-2.0
 *
 * A QEMU TCG plugin that counts executed aarch64 instructions by class and the products that
 * vector multiplications make. Classes are told from the instruction words, not from QEMU's
 * disassembler, which does not know the dot products.
 *
 * Written against version 1 of QEMU's plugin interface (QEMU 4.2 to 8.2), declared here because
 * distributions ship no header for it.
 *
 *     qemu-aarch64 -plugin ./icount.so,out=FILE program
 *
 * FILE gets one line "NAME COUNT" a class when the program ends.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
typedef struct {
  const char *target_name;
  struct {
    int min, cur;
  } version;
  bool system_emulation;
  union {
    struct {
      int smp_vcpus, max_vcpus;
    } system;
  };
} qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
typedef void (*tb_trans_cb)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*atexit_cb)(qemu_plugin_id_t, void *);

extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, tb_trans_cb);
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, atexit_cb, void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *,
                                                       enum qemu_plugin_op, void *, uint64_t);

EXPORT int qemu_plugin_version = 1;

enum { LOAD, STORE, MULTIPLY, SIMD, BRANCH, OTHER, CLASSES };
static const char *const names[CLASSES] = {"load", "store", "multiply", "simd", "branch", "other"};
static uint64_t counts[CLASSES], products;
static char path[4096];

static uint32_t bits(uint32_t word, int high, int low) {
  return (word >> low) & ((1u << (high - low + 1)) - 1);
}

/* Products of a vector multiplication, 0 of anything else (Arm ARM, C4.1, "Data processing --
 * scalar floating-point and advanced SIMD"). */
static uint64_t vector_products(uint32_t w) {
  uint32_t q = bits(w, 30, 30), size = bits(w, 23, 22);
  uint32_t lanes = (q ? 16u : 8u) >> size; /* of elements with this size */
  if (bits(w, 31, 31)) return 0;
  if (bits(w, 28, 24) == 0x0e) {
    if (!bits(w, 21, 21)) /* three registers, extra: sdot, udot, usdot */
      return bits(w, 15, 10) == 0x25 || bits(w, 15, 10) == 0x27 ? (q ? 16 : 8) : 0;
    if (bits(w, 11, 10) == 0) { /* three different: smlal, smlsl, smull, halves */
      uint32_t op = bits(w, 15, 12);
      return op == 8 || op == 10 || op == 12 ? 8u >> size : 0;
    }
    if (bits(w, 10, 10)) { /* three same: mla, mls, mul, fmla, fmls, fmul */
      uint32_t op = bits(w, 15, 11);
      if (op == 0x12 || op == 0x13) return lanes;
      if (op == 0x19 || op == 0x1b) return size & 1 ? (q ? 2 : 1) : (q ? 4 : 2);
    }
    return 0;
  }
  if (bits(w, 28, 24) == 0x0f && !bits(w, 10, 10)) { /* by element */
    uint32_t op = bits(w, 15, 12);
    if (op == 14) return q ? 16 : 8;                  /* sdot, udot */
    if (op == 2 || op == 6 || op == 10) return 8u >> size; /* smlal, smlsl, smull */
    if (op == 0 || op == 4 || op == 8) return lanes;  /* mla, mls, mul */
    if (op == 1 || op == 5 || op == 9) return size & 1 ? (q ? 2 : 1) : (q ? 4 : 2);
  }
  return 0;
}

static int class_of(uint32_t w) {
  uint32_t group = bits(w, 28, 25);
  if ((group & 0xe) == 0xa) return BRANCH;
  if ((group & 0x5) == 0x4) { /* loads and stores */
    bool vector = bits(w, 26, 26);
    if (bits(w, 29, 28) == 1 && !bits(w, 24, 24) && bits(w, 27, 27)) return LOAD; /* literal */
    if (bits(w, 29, 28) == 3 && !vector) return bits(w, 23, 22) ? LOAD : STORE;
    return bits(w, 22, 22) ? LOAD : STORE;
  }
  if ((group & 0x7) == 0x7) return vector_products(w) ? MULTIPLY : SIMD;
  return OTHER;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
  size_t count = qemu_plugin_tb_n_insns(block);
  (void)id;
  for (size_t i = 0; i < count; ++i) {
    struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(block, i);
    uint32_t word;
    memcpy(&word, qemu_plugin_insn_data(insn), sizeof word);
    int kind = class_of(word);
    qemu_plugin_register_vcpu_insn_exec_inline(insn, QEMU_PLUGIN_INLINE_ADD_U64, &counts[kind], 1);
    if (kind == MULTIPLY)
      qemu_plugin_register_vcpu_insn_exec_inline(insn, QEMU_PLUGIN_INLINE_ADD_U64, &products,
                                                 vector_products(word));
  }
}

static void finish(qemu_plugin_id_t id, void *unused) {
  FILE *file = path[0] ? fopen(path, "w") : stderr;
  (void)id;
  (void)unused;
  if (!file) return;
  for (int i = 0; i < CLASSES; ++i) fprintf(file, "%s %" PRIu64 "\n", names[i], counts[i]);
  fprintf(file, "products %" PRIu64 "\n", products);
  fflush(file);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                               char **argv) {
  if (strcmp(info->target_name, "aarch64") != 0) {
    fprintf(stderr, "icount: counts aarch64 programs only\n");
    return -1;
  }
  for (int i = 0; i < argc; ++i)
    if (!strncmp(argv[i], "out=", 4)) snprintf(path, sizeof path, "%s", argv[i] + 4);
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, finish, NULL);
  return 0;
}
