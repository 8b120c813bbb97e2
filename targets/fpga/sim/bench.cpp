// SPDX-License-Identifier: Apache-2.0
// Runs command lists on the verilated accelerator against a model of its memory.
//
// Directives come on standard input, one a line, and are done in order (see main); answers are lines
// of JSON on standard output. Built by sim/verilate.py with PORT_BITS and, with waveforms, WAVES.
#include <chrono>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "Vtop.h"
#include "verilated.h"
#ifdef WAVES
#include "verilated_fst_c.h"
#endif

using u8 = uint8_t;
using u32 = uint32_t;
using u64 = uint64_t;

static const int BYTES = PORT_BITS / 8;
static const int UNITS = 4;
double sc_time_stamp() { return 0; }

[[noreturn]] static void fail(const std::string &what) {
  printf("{\"kind\":\"error\",\"what\":\"%s\"}\n", what.c_str());
  fflush(stdout);
  exit(3);
}

// Memory and its timing: sim/dram.py says what the parameters mean and sim/slow.py does the same.
struct Dram {
  int64_t latency = 0, num = 1, den = 1, granule = 1, refresh_interval = 0, refresh_cycles = 0,
          turnaround = 0, outstanding = 16, write_latency = 0, batch = 2048, stall = 0;
  u32 seed = 1;
  struct Read { u64 address; int beats; u64 ready; };
  struct Write { u64 address; int beats, length; };
  struct Beat { u64 address; bool last, bad; };
  std::vector<u8> bytes;
  std::deque<Read> reads;
  std::deque<Write> writes;
  std::deque<u64> responses;
  std::deque<Beat> slot;
  static const size_t ROOM = 4096 / BYTES;  // beats that the controller holds for each direction
  bool writing = false, ar = false, aw = false, w = false, r = false, b = false, bad_write = false;
  int64_t budget = 0, streak = 0;
  size_t held = 0;                 // beats taken from the port, not yet moved
  std::deque<int> lengths;         // beats still to be moved of each burst that was begun
  u64 hold = 0;

  bool chance() {  // xorshift32
    if (!stall) return false;
    seed ^= seed << 13; seed ^= seed >> 17; seed ^= seed << 5;
    return (int64_t)(seed & 255) < stall;
  }
  int64_t cost() const { return BYTES * den; }
  int64_t extra(u64 address, int beats) const {  // bytes around a burst that are moved in vain
    u64 low = address / granule * granule;
    u64 high = (address + beats * BYTES + granule - 1) / granule * granule;
    return (int64_t)(high - low - beats * BYTES) * den;
  }
  void drive(u64 now) {
    budget += num;
    if (budget > 4 * cost()) budget = 4 * cost();
    bool refreshing = refresh_interval && (int64_t)(now % refresh_interval) < refresh_cycles;
    if (!refreshing && now >= hold)
      while (budget >= cost()) {
        bool can_read = !reads.empty() && reads.front().ready <= now && slot.size() < ROOM;
        bool can_write = held > 0;
        bool tired = streak >= batch;
        if (writing ? can_read && (!can_write || tired) : can_write && (!can_read || tired)) {
          writing = !writing;
          streak = 0;
          hold = now + turnaround;
          if (turnaround) break;
        }
        if (writing ? !can_write : !can_read) break;
        if (writing) {
          held--;
          if (--lengths.front() == 0) {
            responses.push_back(now + write_latency);
            lengths.pop_front();
          }
        } else {
          Read &head = reads.front();
          slot.push_back({head.address, head.beats == 1, head.address + BYTES > bytes.size()});
          head.address += BYTES;
          if (--head.beats == 0) reads.pop_front();
        }
        budget -= cost();
        streak += BYTES;
      }
    w = !writes.empty() && held < ROOM && !chance();
    ar = (int64_t)reads.size() < outstanding && !chance();
    aw = (int64_t)writes.size() < outstanding && !chance();
    r = !slot.empty() && (r || !chance());
    b = !responses.empty() && responses.front() <= now && (b || !chance());
  }
};

struct Check {
  int unit;
  u64 count, address;
  u64 tail, lanes, size;  // last block's first byte, its lanes that are compared, bytes of a lane
  std::string file, label;
};
struct Mismatch { std::string label; u64 address, offset; int expected, got; u64 cycle, bytes; };

struct Bench {
  Vtop top;
  Dram dram;
  u64 now = 0;
  std::vector<Check> checks[UNITS];
  size_t next_check[UNITS] = {};
  std::vector<u64> starts[UNITS], ends[UNITS];
  u64 waits[UNITS][6] = {};  // on the four units, without a command, busy
  u64 flight[UNITS] = {};
  u64 read_bytes[4] = {}, write_bytes = 0, read_busy = 0, write_busy = 0;
  std::vector<Mismatch> mismatches;
  bool stop_at_mismatch = true;
#ifdef WAVES
  VerilatedFstC *waves = nullptr;
  u64 wave_from = 0, wave_to = ~0ull;
#endif

  void cycle() {
    dram.drive(now);
    top.m_axi_arready = dram.ar;
    top.m_axi_awready = dram.aw;
    top.m_axi_wready = dram.w;
    top.m_axi_rvalid = dram.r;
    if (dram.r) {
      const Dram::Beat &beat = dram.slot.front();
      if (!beat.bad) memcpy((void *)&top.m_axi_rdata, &dram.bytes[beat.address], BYTES);
      top.m_axi_rlast = beat.last;
      top.m_axi_rresp = beat.bad ? 2 : 0;
    }
    top.m_axi_bvalid = dram.b;
    top.m_axi_bresp = dram.bad_write ? 2 : 0;
    top.clk = 0;
    top.eval();
#ifdef WAVES
    if (waves && now >= wave_from && now < wave_to) waves->dump(2 * now);
#endif
    if (top.m_axi_arvalid && dram.ar) {
      u64 at = top.m_axi_araddr;
      int beats = top.m_axi_arlen + 1;
      burst_rules("read", at, beats);
      dram.reads.push_back({at, beats, now + dram.latency});
      dram.budget -= dram.extra(at, beats);
      read_bytes[top.trace_client] += beats * BYTES;
    }
    if (dram.r && top.m_axi_rready) {
      dram.slot.pop_front();
      dram.r = false;
      read_busy++;
    }
    if (top.m_axi_awvalid && dram.aw) {
      u64 at = top.m_axi_awaddr;
      int beats = top.m_axi_awlen + 1;
      burst_rules("write", at, beats);
      dram.writes.push_back({at, beats, beats});
      dram.budget -= dram.extra(at, beats);
    }
    if (top.m_axi_wvalid && dram.w) {
      Dram::Write &head = dram.writes.front();
      const u8 *data = (const u8 *)&top.m_axi_wdata;
      bool bad = head.address + BYTES > dram.bytes.size();
      for (int k = 0; k < BYTES; k++)
        if (top.m_axi_wstrb >> k & 1) {
          if (!bad) dram.bytes[head.address + k] = data[k];
          write_bytes++;
        }
      dram.bad_write |= bad;
      if (head.beats == head.length) dram.lengths.push_back(head.length);
      head.address += BYTES;
      dram.held++;
      write_busy++;
      head.beats--;
      if ((head.beats == 0) != (bool)top.m_axi_wlast) fail("WLAST at the wrong beat");
      if (head.beats == 0) dram.writes.pop_front();
    }
    if (dram.b && top.m_axi_bready) {
      dram.responses.pop_front();
      dram.b = false;
    }
    events();
    top.clk = 1;
    top.eval();
#ifdef WAVES
    if (waves && now >= wave_from && now < wave_to) waves->dump(2 * now + 1);
#endif
    now++;
  }

  void burst_rules(const char *what, u64 at, int beats) {
    char text[160];
    snprintf(text, sizeof text, "%s burst of %d beats at %#" PRIx64, what, beats, at);
    if (at % BYTES) fail(std::string(text) + " is not aligned");
    if (at / 4096 != (at + beats * BYTES - 1) / 4096) fail(std::string(text) + " crosses 4 KiB");
  }

  void events() {
    u32 started = top.trace_started, finished = top.trace_finished, waiting = top.trace_waiting;
    for (int u = 0; u < UNITS; u++) {
      if (flight[u]) waits[u][5]++;
      else if (waiting >> (20 + u) & 1) {
        u32 unmet = waiting >> 4 * u & 15;
        if (unmet) waits[u][__builtin_ctz(unmet)]++;
      } else waits[u][4]++;
      if (started >> u & 1) { starts[u].push_back(now); flight[u]++; }
      if (finished >> u & 1) {
        ends[u].push_back(now);
        flight[u]--;
        while (next_check[u] < checks[u].size() &&
               checks[u][next_check[u]].count <= ends[u].size())
          compare(checks[u][next_check[u]++]);
      }
    }
  }

  void compare(const Check &check) {
    std::ifstream in(check.file, std::ios::binary);
    std::vector<u8> want((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    u64 wrong = 0, first = 0;
    for (u64 k = 0; k < want.size(); k++)
      if ((k < check.tail || (k - check.tail) / check.size % 8 < check.lanes) &&
          dram.bytes[check.address + k] != want[k] && !wrong++)
        first = k;
    if (wrong)
      mismatches.push_back({check.label, check.address, first, want[first],
                            dram.bytes[check.address + first], now, wrong});
  }

  void write(u32 address, u32 value) {
    top.s_axi_awaddr = address;
    top.s_axi_awvalid = 1;
    top.s_axi_wdata = value;
    top.s_axi_wstrb = 15;
    top.s_axi_wvalid = 1;
    top.s_axi_bready = 1;
    for (int tries = 0;; tries++) {
      top.clk = 0;
      top.eval();
      bool ready = top.s_axi_awready && top.s_axi_wready;
      cycle();
      if (ready) break;
      if (tries > 1000) fail("a register write is never taken");
    }
    top.s_axi_awvalid = top.s_axi_wvalid = 0;
    cycle();
  }

  u32 read(u32 address) {
    top.s_axi_araddr = address;
    top.s_axi_arvalid = 1;
    top.s_axi_rready = 1;
    cycle();
    top.s_axi_arvalid = 0;
    for (int tries = 0; !top.s_axi_rvalid; tries++) {
      cycle();
      if (tries > 1000) fail("a register read is never answered");
    }
    u32 value = top.s_axi_rdata;
    cycle();
    return value;
  }

  static void list(const char *name, const std::vector<u64> &values, u64 zero) {
    printf("%s[", name);
    for (size_t k = 0; k < values.size(); k++)
      printf("%s%" PRIu64, k ? "," : "", values[k] - zero);
    printf("]");
  }

  void run(u32 commands, u64 base, u64 limit, u32 watchdog) {
    for (int u = 0; u < UNITS; u++) {
      starts[u].clear();
      ends[u].clear();
      next_check[u] = 0;
      flight[u] = 0;
      memset(waits[u], 0, sizeof waits[u]);
    }
    memset(read_bytes, 0, sizeof read_bytes);
    write_bytes = read_busy = write_busy = 0;
    mismatches.clear();
    write(0x10, commands);
    write(0x14, (u32)base);
    write(0x18, (u32)(base >> 32));
    write(0x1C, watchdog);
    write(0x0C, 1);
    write(0x04, 1);
    u64 zero = now;
    auto clock = std::chrono::steady_clock::now();
    auto said = clock;
    while (!top.irq && now - zero < limit && !(stop_at_mismatch && !mismatches.empty())) {
      for (int k = 0; k < 64 && !top.irq; k++) cycle();
      auto time = std::chrono::steady_clock::now();
      if (time - said > std::chrono::milliseconds(500)) {
        said = time;
        printf("{\"kind\":\"progress\",\"cycles\":%" PRIu64 ",\"finished\":[%zu,%zu,%zu,%zu]}\n",
               now - zero, ends[0].size(), ends[1].size(), ends[2].size(), ends[3].size());
        fflush(stdout);
      }
    }
    double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - clock).count();
    bool over = top.irq;
    u32 status = read(0x08), waiting = read(0x40);
    u64 cycles = read(0x20) | (u64)read(0x24) << 32;
    u32 low = read(0x28), high = read(0x2C);
    if (!over) write(0x04, 2);
    if (status & 0x1c) write(0x04, 2);
    write(0x08, 0x1e);
    printf("{\"kind\":\"run\",\"over\":%s,\"status\":%u,\"waiting\":%u,\"cycles\":%" PRIu64
           ",\"since\":%" PRIu64 ",\"counters\":[%u,%u,%u,%u],\"seconds\":%.3f",
           over ? "true" : "false", status, waiting, cycles, zero, low & 65535, low >> 16,
           high & 65535, high >> 16, seconds);
    printf(",\"read_bytes\":[%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64
           "],\"write_bytes\":%" PRIu64 ",\"read_beats\":%" PRIu64 ",\"write_beats\":%" PRIu64,
           read_bytes[0], read_bytes[1], read_bytes[2], read_bytes[3], write_bytes, read_busy,
           write_busy);
    printf(",\"stalls\":[");
    for (int u = 0; u < UNITS; u++) {
      printf("%s[", u ? "," : "");
      for (int k = 0; k < 6; k++) printf("%s%" PRIu64, k ? "," : "", waits[u][k]);
      printf("]");
    }
    printf("]");
    for (int part = 0; part < 2; part++) {
      printf(part ? ",\"ends\":[" : ",\"starts\":[");
      for (int u = 0; u < UNITS; u++) list(u ? "," : "", part ? ends[u] : starts[u], zero);
      printf("]");
    }
    printf(",\"mismatches\":[");
    for (size_t k = 0; k < mismatches.size(); k++) {
      const Mismatch &m = mismatches[k];
      printf("%s{\"label\":\"%s\",\"address\":%" PRIu64 ",\"offset\":%" PRIu64
             ",\"expected\":%d,\"got\":%d,\"cycle\":%" PRIu64 ",\"bytes\":%" PRIu64 "}",
             k ? "," : "", m.label.c_str(), m.address, m.offset, m.expected, m.got, m.cycle - zero,
             m.bytes);
    }
    printf("]}\n");
    fflush(stdout);
  }

  void reset() {
    top.rst = 1;
    for (int k = 0; k < 4; k++) cycle();
    top.rst = 0;
    cycle();
  }
};

int main(int argc, char **argv) {
  Verilated::commandArgs(argc, argv);
#ifdef WAVES
  Verilated::traceEverOn(true);
#endif
  Bench *bench = new Bench;
  Dram &dram = bench->dram;
  bench->reset();
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string what, file;
    words >> what;
    if (what == "memory") {  // bytes
      u64 size;
      words >> size;
      dram.bytes.assign((size / 4096 + 2) * 4096, 0);  // the fetcher reads ahead
    } else if (what == "dram") {  // timing
      words >> dram.latency >> dram.num >> dram.den >> dram.granule >> dram.refresh_interval >>
          dram.refresh_cycles >> dram.turnaround >> dram.outstanding >> dram.write_latency >>
          dram.batch >> dram.stall >> dram.seed;
      dram.budget = 0;
    } else if (what == "load") {  // address file
      u64 address;
      words >> address >> file;
      std::ifstream in(file, std::ios::binary);
      std::vector<char> data((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
      if (!in && !in.eof()) fail("cannot read " + file);
      if (address + data.size() > dram.bytes.size()) fail("beyond the memory: " + file);
      memcpy(&dram.bytes[address], data.data(), data.size());
      puts("{\"kind\":\"loaded\"}");
      fflush(stdout);
    } else if (what == "check") {  // unit count address tail lanes size file label
      Check check;
      words >> check.unit >> check.count >> check.address >> check.tail >> check.lanes;
      words >> check.size >> check.file >> check.label;
      bench->checks[check.unit].push_back(check);
    } else if (what == "forget") {  // checks
      for (auto &checks : bench->checks) checks.clear();
    } else if (what == "keep_going") {  // 0 or 1: after a mismatch
      int keep;
      words >> keep;
      bench->stop_at_mismatch = !keep;
    } else if (what == "run") {  // commands base limit watchdog
      u64 commands, base, limit, watchdog;
      words >> commands >> base >> limit >> watchdog;
      bench->run(commands, base, limit, watchdog);
    } else if (what == "save") {  // address bytes file
      u64 address, size;
      words >> address >> size >> file;
      if (address + size > dram.bytes.size()) fail("beyond the memory: " + file);
      std::ofstream out(file, std::ios::binary);
      out.write((const char *)&dram.bytes[address], size);
      out.close();
      puts("{\"kind\":\"saved\"}");
      fflush(stdout);
    } else if (what == "poke") {  // register value
      u32 address, value;
      words >> address >> value;
      bench->write(address, value);
      puts("{\"kind\":\"poked\"}");
      fflush(stdout);
    } else if (what == "peek") {  // register cycles that pass before
      u32 address, cycles;
      words >> address >> cycles;
      for (u32 k = 0; k < cycles; k++) bench->cycle();
      printf("{\"kind\":\"peeked\",\"value\":%u}\n", bench->read(address));
      fflush(stdout);
#ifdef WAVES
    } else if (what == "waves") {  // file from to
      words >> file >> bench->wave_from >> bench->wave_to;
      bench->waves = new VerilatedFstC;
      bench->top.trace(bench->waves, 99);
      bench->waves->open(file.c_str());
#endif
    } else if (!what.empty()) {
      fail("unknown directive " + what);
    }
  }
#ifdef WAVES
  if (bench->waves) bench->waves->close();
#endif
  bench->top.final();
  return 0;
}
