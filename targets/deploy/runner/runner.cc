// SPDX-License-Identifier: Apache-2.0
// The runner of a build folder: what run.sh starts. Uses codesign_network.h only.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "codesign_network.h"

namespace {

using Buffer = std::vector<char>;

const char kUsage[] =
    "usage: runner [--folder DIR] [--threads N] COMMAND\n"
    "  info              inputs and outputs\n"
    "  test [N]          run the test vector N times, compare with the expected output\n"
    "  time [N]          median of N calls on the test vector (default 50)\n"
    "  run OUT IN...     one file an input, raw row-major; outputs to OUT0, OUT1, ...\n"
    "  stream            inputs from standard input, outputs to standard output, until the end\n";

[[noreturn]] void fail(const std::string& message) {
  std::fprintf(stderr, "runner: %s\n", message.c_str());
  std::exit(1);
}

Buffer read_file(const std::string& path, size_t bytes) {
  Buffer buffer(bytes);
  std::ifstream file(path, std::ios::binary);
  if (!file.read(buffer.data(), static_cast<std::streamsize>(bytes)) || file.peek() != EOF)
    fail(path + ": missing, or not of " + std::to_string(bytes) + " bytes");
  return buffer;
}

struct Run {
  codesign_network* network;
  std::vector<Buffer> inputs, outputs;

  explicit Run(codesign_network* net) : network(net) {
    for (int i = 0; i < codesign_inputs(net); ++i)
      inputs.emplace_back(codesign_input(net, i)->bytes);
    for (int i = 0; i < codesign_outputs(net); ++i)
      outputs.emplace_back(codesign_output(net, i)->bytes);
  }
  std::vector<const void*> sources() const {
    std::vector<const void*> found;
    for (const Buffer& buffer : inputs) found.push_back(buffer.data());
    return found;
  }
  void operator()() {
    std::vector<void*> results;
    for (Buffer& buffer : outputs) results.push_back(buffer.data());
    if (codesign_run(network, sources().data(), results.data())) fail(codesign_error());
  }
};

void load_test_vector(Run& run, const std::string& folder) {
  for (size_t i = 0; i < run.inputs.size(); ++i)
    run.inputs[i] =
        read_file(folder + "/test/input" + std::to_string(i) + ".bin", run.inputs[i].size());
}

void info(codesign_network* net) {
  for (int side = 0; side < 2; ++side) {
    int count = side ? codesign_outputs(net) : codesign_inputs(net);
    for (int i = 0; i < count; ++i) {
      const codesign_tensor* t = side ? codesign_output(net, i) : codesign_input(net, i);
      std::printf("%s %s %s [", side ? "output" : "input", t->name, t->type);
      for (int d = 0; d < t->rank; ++d)
        std::printf("%s%lld", d ? "," : "", static_cast<long long>(t->shape[d]));
      std::printf("] as %s, %zu bytes\n", t->storage, t->bytes);
    }
  }
}

// Bytes that differ; of float tensors in a network with float operators, elements that are
// further apart than the tolerance of the greatest magnitude.
size_t differences(const Buffer& found, const Buffer& expected, bool floats, double tolerance) {
  size_t wrong = 0;
  if (!floats || tolerance == 0) {
    for (size_t i = 0; i < found.size(); ++i) wrong += found[i] != expected[i];
    return wrong;
  }
  const float* a = reinterpret_cast<const float*>(found.data());
  const float* b = reinterpret_cast<const float*>(expected.data());
  size_t count = found.size() / sizeof(float);
  double top = 0;
  for (size_t i = 0; i < count; ++i)
    if (std::fabs(b[i]) > top) top = std::fabs(b[i]);
  for (size_t i = 0; i < count; ++i) wrong += !(std::fabs(a[i] - b[i]) <= tolerance * top);
  return wrong;
}

double tolerance_of(const std::string& folder) {
  std::ifstream file(folder + "/test/tolerance");
  double value = 0;
  file >> value;
  return file ? value : 0;
}

int test(Run& run, const std::string& folder, int repeats) {
  load_test_vector(run, folder);
  for (int i = 0; i < repeats; ++i) run();
  size_t wrong = 0, total = 0;
  double tolerance = tolerance_of(folder);
  for (size_t i = 0; i < run.outputs.size(); ++i) {
    Buffer expected =
        read_file(folder + "/test/output" + std::to_string(i) + ".bin", run.outputs[i].size());
    bool floats = !std::strcmp(codesign_output(run.network, static_cast<int>(i))->storage,
                               "float32");
    wrong += differences(run.outputs[i], expected, floats, tolerance);
    total += expected.size();
  }
  std::printf("test vector: %zu of %zu bytes of output %s\n", wrong, total,
              wrong ? "DIFFER" : (tolerance ? "differ beyond tolerance" : "differ"));
  return wrong ? 1 : 0;
}

int time_calls(Run& run, const std::string& folder, int repeats) {
  if (repeats < 1) fail("time takes a count of at least 1");
  load_test_vector(run, folder);
  std::vector<double> samples(repeats);
  if (codesign_time(run.network, run.sources().data(), repeats, 3, samples.data()))
    fail(codesign_error());
  std::sort(samples.begin(), samples.end());
  std::printf("median %.4f ms, least %.4f ms, %d calls\n", samples[repeats / 2], samples[0],
              repeats);
  return 0;
}

int run_files(Run& run, const std::string& out, const std::vector<std::string>& files) {
  if (files.size() != run.inputs.size())
    fail("run takes " + std::to_string(run.inputs.size()) + " input files");
  for (size_t i = 0; i < files.size(); ++i)
    run.inputs[i] = read_file(files[i], run.inputs[i].size());
  run();
  for (size_t i = 0; i < run.outputs.size(); ++i) {
    std::ofstream file(out + std::to_string(i), std::ios::binary);
    if (!file.write(run.outputs[i].data(), static_cast<std::streamsize>(run.outputs[i].size())))
      fail("cannot write " + out + std::to_string(i));
  }
  return 0;
}

int stream(Run& run) {
  for (;;) {
    for (size_t i = 0; i < run.inputs.size(); ++i) {
      size_t got = std::fread(run.inputs[i].data(), 1, run.inputs[i].size(), stdin);
      if (got == 0 && i == 0) return 0;
      if (got != run.inputs[i].size()) fail("standard input ends in the middle of an input");
    }
    run();
    for (const Buffer& buffer : run.outputs)
      if (std::fwrite(buffer.data(), 1, buffer.size(), stdout) != buffer.size())
        fail("cannot write to standard output");
    std::fflush(stdout);
  }
}

}  // namespace

int main(int count, char** values) {
  std::vector<std::string> words(values + 1, values + count);
  std::string self = values[0];
  size_t slash = self.rfind('/');
  std::string folder = slash == std::string::npos ? "." : self.substr(0, slash);
  int threads = 0;
  while (words.size() > 1 && (words[0] == "--folder" || words[0] == "--threads")) {
    if (words[0] == "--folder") folder = words[1];
    else threads = std::atoi(words[1].c_str());
    words.erase(words.begin(), words.begin() + 2);
  }
  if (words.empty()) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  codesign_network* network = codesign_load(folder.c_str(), threads);
  if (!network) fail(codesign_error());
  Run run(network);
  const std::string command = words[0];
  const int number = words.size() > 1 ? std::atoi(words[1].c_str()) : 0;
  int status = 2;
  if (command == "info") info(network), status = 0;
  else if (command == "test") status = test(run, folder, std::max(1, number));
  else if (command == "time") status = time_calls(run, folder, words.size() > 1 ? number : 50);
  else if (command == "run" && words.size() > 2)
    status = run_files(run, words[1], {words.begin() + 2, words.end()});
  else if (command == "stream") status = stream(run);
  else std::fputs(kUsage, stderr);
  codesign_free(network);
  return status;
}
