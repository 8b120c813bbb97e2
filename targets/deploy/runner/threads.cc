// SPDX-License-Identifier: Apache-2.0
// Threads that share the parallel loops of a network's kernels. Linked into network.so, where they
// end before it is unloaded, or loaded once into a process that compiles in memory.
//
// TVM's own pool waits until every thread has come once to every loop, and its threads yield while
// they wait: a core that another program uses, or a slow wake-up, then costs each of a network's
// hundred loops. Here the calling thread takes every task that no other thread has begun, so that
// it only waits for work that is being done. Between loops threads spin for a millisecond, then
// sleep; nobody waits for one to wake up.
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace {

constexpr int kMost = 256;
constexpr int64_t kSpinNanoseconds = 1000000;
constexpr int kYieldAfter = 512;  // the thread waited for may be on the same core

struct Group {  // TVMParallelGroupEnv
  void* sync_handle;
  int32_t num_task;
};
typedef int (*Lambda)(int task, Group* group, void* data);

// One loop at a time. The high half of `open` counts loops, the next 16 bits are the number of
// tasks, the low 16 the next one to be taken: a thread takes a task by counting up, which fails if
// the loop is another by then. What a task reads of the loop stays until the last task is done.
struct Pool {
  alignas(64) uint64_t open = 0;
  alignas(64) int32_t done = 0;
  alignas(64) int32_t failed = 0;
  Lambda lambda = nullptr;
  void* data = nullptr;
  Group group = {nullptr, 1};
  alignas(64) int32_t sleeping = 0;
  alignas(64) uint32_t calls = 0;  // what sleeping threads wait on
  alignas(64) int32_t busy = 0;    // a loop is running: others run theirs alone
  int32_t started = 0;
  int32_t ending = 0;
  pthread_t threads[kMost];
  int32_t wanted = 0;  // threads, the caller's included; 0 if nobody has said
};
Pool pool;

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

int64_t now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * int64_t{1000000000} + time.tv_nsec;
}

int default_threads() {
  const char* given = getenv("TVM_NUM_THREADS");
  if (given && atoi(given) > 0) return atoi(given);
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
  return 1;
}

bool available(uint64_t open) { return (open & 0xffff) < (open >> 16 & 0xffff); }

// Take and run a task of the loop that is open; whether there was one.
bool take() {
  uint64_t open = __atomic_load_n(&pool.open, __ATOMIC_ACQUIRE);
  while (available(open)) {
    if (!__atomic_compare_exchange_n(&pool.open, &open, open + 1, true, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE))
      continue;
    Group group = pool.group;
    if (pool.lambda(static_cast<int>(open & 0xffff), &group, pool.data) != 0)
      __atomic_store_n(&pool.failed, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&pool.done, 1, __ATOMIC_RELEASE);
    return true;
  }
  return false;
}

void* serve(void*) {
  for (;;) {
    int64_t until = 0;
    for (int spins = 0;; ++spins) {
      if (__atomic_load_n(&pool.ending, __ATOMIC_ACQUIRE)) return nullptr;
      if (take()) {
        spins = 0;
        until = 0;
      }
      relax();
      if (spins % 64 == 63) {
        sched_yield();  // the caller may be on the same core
        int64_t time = now();
        if (until == 0) until = time + kSpinNanoseconds;
        if (time > until) break;
      }
    }
    uint32_t seen = __atomic_load_n(&pool.calls, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&pool.sleeping, 1, __ATOMIC_SEQ_CST);
    if (!available(__atomic_load_n(&pool.open, __ATOMIC_SEQ_CST)) &&
        !__atomic_load_n(&pool.ending, __ATOMIC_SEQ_CST))
      syscall(SYS_futex, &pool.calls, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
    __atomic_fetch_sub(&pool.sleeping, 1, __ATOMIC_SEQ_CST);
  }
}

void wake(int most) {
  __atomic_fetch_add(&pool.calls, 1, __ATOMIC_SEQ_CST);
  syscall(SYS_futex, &pool.calls, FUTEX_WAKE_PRIVATE, most, nullptr, nullptr, 0);
}

// At the end of the process, or before the library is unloaded, with which the code would go.
__attribute__((destructor)) void end() {
  __atomic_store_n(&pool.ending, 1, __ATOMIC_SEQ_CST);
  wake(kMost);
  for (int i = 0; i < pool.started; ++i) pthread_join(pool.threads[i], nullptr);
  pool.started = 0;
}

void forked() {  // the child has none of the threads
  pool.started = pool.sleeping = pool.busy = 0;
}

void start(int threads) {
  static int32_t watched = 0;
  if (!watched) {
    watched = 1;
    pthread_atfork(nullptr, nullptr, forked);
  }
  while (pool.started < threads - 1 && pool.started < kMost) {
    pthread_t* thread = &pool.threads[pool.started];
    if (pthread_create(thread, nullptr, serve, nullptr) != 0) return;  // fewer do it, too
    ++pool.started;
  }
}

int alone(Lambda lambda, void* data, int tasks) {
  Group group = {nullptr, tasks};
  int failed = 0;
  for (int task = 0; task < tasks; ++task) failed |= lambda(task, &group, data);
  return failed ? -1 : 0;
}

}  // namespace

extern "C" {

// Threads that loops are shared by from now on, the calling one included; 0 for one a core.
__attribute__((visibility("default"))) void codesign_threads(int threads) {
  __atomic_store_n(&pool.wanted, threads > 0 ? threads : default_threads(), __ATOMIC_RELAXED);
}

struct Any {  // TVMFFIAny
  int32_t kind;
  uint32_t unused;
  int64_t value;
};

// The same as a function of TVM's, `codesign_threads` of the module that is loaded.
__attribute__((visibility("default"))) int __tvm_ffi_codesign_threads(
    void*, const Any* arguments, int32_t count, Any* result) {
  if (count == 1 && arguments[0].kind == 1) codesign_threads(static_cast<int>(arguments[0].value));
  *result = Any{0, 0, 0};
  return 0;
}

// In the place of TVMBackendParallelLaunch: `tasks` 0 is one a thread.
__attribute__((visibility("default"))) int codesign_launch(Lambda lambda, void* data, int tasks) {
  int threads = __atomic_load_n(&pool.wanted, __ATOMIC_RELAXED);
  if (threads == 0) {
    threads = default_threads();
    codesign_threads(threads);
  }
  if (tasks <= 0) tasks = threads;
  if (tasks > kMost) return alone(lambda, data, tasks);
  if (threads == 1 || tasks == 1) return alone(lambda, data, tasks);
  if (__atomic_exchange_n(&pool.busy, 1, __ATOMIC_ACQUIRE)) return alone(lambda, data, tasks);
  if (pool.started < threads - 1) start(threads);
  pool.lambda = lambda;
  pool.data = data;
  pool.group.num_task = tasks;
  pool.failed = 0;
  __atomic_store_n(&pool.done, 0, __ATOMIC_RELAXED);
  uint64_t loop = (__atomic_load_n(&pool.open, __ATOMIC_RELAXED) >> 32) + 1;
  __atomic_store_n(&pool.open, loop << 32 | static_cast<uint64_t>(tasks) << 16, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&pool.sleeping, __ATOMIC_SEQ_CST) > 0) wake(tasks - 1);
  while (take()) {
  }
  for (int spins = 0; __atomic_load_n(&pool.done, __ATOMIC_ACQUIRE) < tasks; ++spins) {
    if (spins < kYieldAfter) {
      relax();
    } else {
      sched_yield();
    }
  }
  int failed = pool.failed;
  __atomic_store_n(&pool.busy, 0, __ATOMIC_RELEASE);
  return failed ? -1 : 0;
}

}  // extern "C"
