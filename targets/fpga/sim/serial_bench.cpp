// SPDX-License-Identifier: Apache-2.0
// The verilated board design (hw/ulx3s.py without its PLL) behind a serial line.
//
// Directives on standard input, one a line: "s HEX" sends bytes, "r N" waits for N bytes and answers
// them as hex ("timeout" after LIMIT cycles without one), "g N" holds the button down for N cycles,
// "c" answers the cycles so far. BIT: clock cycles of a bit.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <iostream>
#include <sstream>
#include <string>

#include "Vtop.h"
#include "verilated.h"

double sc_time_stamp() { return 0; }

static const long LIMIT = 50'000'000;
static Vtop *top;
static long now = 0;
static std::deque<uint8_t> received;

// A receiver that samples in the middle of each bit, as the USB bridge does.
static void listen() {
  static int left = 0, timer = 0;
  static unsigned bits = 0;
  if (!left) {
    if (!top->ftdi_rxd) left = 10, timer = BIT / 2, bits = 0;
    return;
  }
  if (timer--) return;
  timer = BIT - 1;
  bits |= unsigned(top->ftdi_rxd) << (10 - left);
  if (--left == 0) {
    if ((bits & 0x201) != 0x200) {
      printf("bad frame %x\n", bits);
      fflush(stdout);
      exit(3);
    }
    received.push_back(uint8_t(bits >> 1));
  }
}

static void cycle() {
  top->clk_25mhz = 0;
  top->eval();
  top->clk_25mhz = 1;
  top->eval();
  now++;
  listen();
}

static void send(uint8_t byte) {
  unsigned frame = 0x200u | unsigned(byte) << 1;
  for (int k = 0; k < 10; k++) {
    top->ftdi_txd = frame >> k & 1;
    for (int n = 0; n < BIT; n++) cycle();
  }
}

int main() {
  top = new Vtop;
  top->ftdi_txd = 1;
  top->go = 0;
  for (int k = 0; k < 600; k++) cycle();  // its reset takes 256
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line.substr(1));
    if (line[0] == 's') {
      std::string hex;
      words >> hex;
      for (size_t k = 0; k + 1 < hex.size(); k += 2) send(uint8_t(std::stoi(hex.substr(k, 2), nullptr, 16)));
    } else if (line[0] == 'r') {
      size_t count = 0;
      words >> count;
      long start = now;
      while (received.size() < count && now - start < LIMIT) cycle();
      if (received.size() < count) {
        printf("timeout");
      } else {
        for (; count; count--, received.pop_front()) printf("%02x", received.front());
      }
      printf("\n");
      fflush(stdout);
    } else if (line[0] == 'g') {
      long count = 0;
      words >> count;
      top->go = 1;
      for (; count; count--) cycle();
      top->go = 0;
    } else if (line[0] == 'c') {
      printf("%ld\n", now);
      fflush(stdout);
    }
  }
  top->final();
  return 0;
}
