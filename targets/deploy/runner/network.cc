// SPDX-License-Identifier: Apache-2.0
// codesign_network.h over TVM's runtime. One source for every architecture.
#include "codesign_network.h"

#include <dlfcn.h>
#include <elf.h>
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>
#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace ffi = tvm::ffi;

namespace {

thread_local std::string last_error = "no error";

#if defined(__aarch64__)
constexpr int kMachine = EM_AARCH64;
constexpr const char* kArch = "aarch64";
#elif defined(__x86_64__)
constexpr int kMachine = EM_X86_64;
constexpr const char* kArch = "x86_64";
#else
#error "no support for this architecture yet"
#endif

struct Described {
  std::string name, type, storage;
  std::vector<int64_t> shape;
  DLDataType dtype{};
  codesign_tensor view{};
};

struct HostMemory {
  void AllocData(DLTensor* tensor) {
    size_t bytes = ffi::GetDataSize(*tensor);
    tensor->data = std::aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    if (!tensor->data) throw std::bad_alloc();
  }
  void FreeData(DLTensor* tensor) { std::free(tensor->data); }
};

DLDataType parse_storage(const std::string& name) {
  static const struct {
    const char* prefix;
    uint8_t code;
  } kinds[] = {{"float", kDLFloat}, {"uint", kDLUInt}, {"int", kDLInt}};
  for (const auto& kind : kinds) {
    size_t length = std::strlen(kind.prefix);
    if (name.compare(0, length, kind.prefix) == 0) {
      int bits = std::atoi(name.c_str() + length);
      if (bits == 8 || bits == 16 || bits == 32 || bits == 64)
        return DLDataType{kind.code, static_cast<uint8_t>(bits), 1};
    }
  }
  throw std::runtime_error("network.txt: unknown storage type '" + name + "'; build again");
}

// Lines "input NAME TYPE STORAGE DIM...", see Description in targets/deploy/folder.py.
struct Description {
  std::string arch;
  std::vector<std::string> features;
  std::vector<std::unique_ptr<Described>> inputs, outputs;
};

Description read_description(const std::string& path) {
  std::ifstream file(path);
  std::string line, word;
  if (!file || !std::getline(file, line) || line != "codesign-network/1")
    throw std::runtime_error(path + ": no description of a network; build again");
  Description found;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    words >> word;
    if (word == "arch") {
      words >> found.arch;
    } else if (word == "features") {
      while (words >> word) found.features.push_back(word);
    } else if (word == "input" || word == "output") {
      auto tensor = std::make_unique<Described>();
      words >> tensor->name >> tensor->type >> tensor->storage;
      for (int64_t size; words >> size;) tensor->shape.push_back(size);
      tensor->dtype = parse_storage(tensor->storage);
      size_t bytes = tensor->dtype.bits / 8;
      for (int64_t size : tensor->shape) bytes *= static_cast<size_t>(size);
      tensor->view = {tensor->name.c_str(),    tensor->type.c_str(),
                      tensor->storage.c_str(), static_cast<int>(tensor->shape.size()),
                      tensor->shape.data(),    bytes};
      (word == "input" ? found.inputs : found.outputs).push_back(std::move(tensor));
    }
  }
  return found;
}

// A library of another architecture would only give "cannot open shared object file".
void check_architecture(const std::string& library, const std::string& arch) {
  std::ifstream file(library, std::ios::binary);
  Elf64_Ehdr header{};
  if (!file.read(reinterpret_cast<char*>(&header), sizeof header) ||
      std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0)
    throw std::runtime_error(library + ": missing or no shared library; build or copy again");
  if (header.e_machine != kMachine || arch != kArch)
    throw std::runtime_error(library + " was built for " + arch + ", this program runs on " +
                             kArch + "; build for this architecture");
}

// Code with instructions that a CPU lacks would die of SIGILL in the middle of a layer.
void check_features(const std::vector<std::string>& features) {
  for (const std::string& feature : features) {
    bool there = true;
#if defined(__aarch64__)
    if (feature == "dotprod") there = getauxval(AT_HWCAP) & (1ul << 20);  // HWCAP_ASIMDDP
#elif defined(__x86_64__)
    __builtin_cpu_init();
    if (feature == "avx2") there = __builtin_cpu_supports("avx2");
    if (feature == "fma") there = __builtin_cpu_supports("fma");
    if (feature == "avx512f") there = __builtin_cpu_supports("avx512f");
    if (feature == "avx512_vnni") there = __builtin_cpu_supports("avx512vnni");
#endif
    if (!there)
      throw std::runtime_error("this CPU has no " + feature +
                               ", which the network was built for; build for this CPU");
  }
}

// An application may have loaded this library privately; the network's code looks for
// TVM's functions in the global scope.
void publish(const char* library) { dlopen(library, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD); }

void use_threads(int threads) {
  // TVM would bind this thread to one core, and with it every process started later.
  setenv("TVM_BIND_THREADS", "0", 0);
  if (threads > 0)
    ffi::Function::GetGlobalRequired("runtime.config_threadpool")(1, threads);
}

template <typename Result, typename Body>
Result guarded(Result failed, Body body) {
  try {
    return body();
  } catch (const std::exception& error) {
    last_error = error.what();
  } catch (...) {
    last_error = "unknown error";
  }
  return failed;
}

}  // namespace

struct codesign_network {
  Description description;
  ffi::Any library, machine;  // modules, kept alive
  ffi::Function main;
  std::vector<ffi::Tensor> inputs;

  ffi::Any call() {
    std::vector<ffi::AnyView> arguments(inputs.begin(), inputs.end());
    ffi::Any result;
    main.CallPacked(arguments.data(), static_cast<int>(arguments.size()), &result);
    return result;
  }
  void fill(const void* const* buffers) {
    for (size_t i = 0; i < inputs.size(); ++i)
      std::memcpy(inputs[i].data_ptr(), buffers[i], description.inputs[i]->view.bytes);
  }
};

extern "C" {

codesign_network* codesign_load(const char* folder, int threads) {
  return guarded<codesign_network*>(nullptr, [&] {
    std::string base = folder, library = base + "/network.so";
    auto network = std::make_unique<codesign_network>();
    network->description = read_description(base + "/network.txt");
    check_architecture(library, network->description.arch);
    check_features(network->description.features);
    publish("libtvm_ffi.so");
    publish("libtvm_runtime.so");
    use_threads(threads);
    ffi::Module code = ffi::Module::LoadFromFile(library);
    network->library = code;
    code->GetFunction("codesign_threads", true).value()(threads);  // 0 is one a core
    network->machine = code->GetFunction("vm_load_executable").value()();
    ffi::Module machine = network->machine.cast<ffi::Module>();
    const int pooled = 2;  // the VM's pooled allocator
    machine->GetFunction("vm_initialization").value()(static_cast<int>(kDLCPU), 0, pooled,
                                                      static_cast<int>(kDLCPU), 0, pooled);
    network->main = machine->GetFunction("main").value();
    for (const auto& input : network->description.inputs)
      network->inputs.push_back(ffi::Tensor::FromNDAlloc(
          HostMemory(), ffi::Shape(input->shape), input->dtype, DLDevice{kDLCPU, 0}));
    return network.release();
  });
}

void codesign_free(codesign_network* network) { delete network; }

int codesign_inputs(const codesign_network* network) {
  return static_cast<int>(network->description.inputs.size());
}

int codesign_outputs(const codesign_network* network) {
  return static_cast<int>(network->description.outputs.size());
}

const codesign_tensor* codesign_input(const codesign_network* network, int index) {
  return &network->description.inputs.at(index)->view;
}

const codesign_tensor* codesign_output(const codesign_network* network, int index) {
  return &network->description.outputs.at(index)->view;
}

int codesign_run(codesign_network* network, const void* const* inputs, void* const* outputs) {
  return guarded(1, [&] {
    network->fill(inputs);
    auto results = network->call().cast<ffi::Array<ffi::Any>>();
    const auto& declared = network->description.outputs;
    if (results.size() != declared.size())
      throw std::runtime_error("network.txt does not describe network.so; build again");
    for (size_t i = 0; i < declared.size(); ++i) {
      auto tensor = results[i].cast<ffi::Tensor>();
      if (ffi::GetDataSize(tensor) != declared[i]->view.bytes)
        throw std::runtime_error("network.txt does not describe network.so; build again");
      std::memcpy(outputs[i], tensor.data_ptr(), declared[i]->view.bytes);
    }
    return 0;
  });
}

int codesign_time(codesign_network* network, const void* const* inputs, int repeats, int warmup,
                  double* samples_ms) {
  return guarded(1, [&] {
    network->fill(inputs);
    for (int i = 0; i < warmup; ++i) network->call();
    for (int i = 0; i < repeats; ++i) {
      auto start = std::chrono::steady_clock::now();
      network->call();
      std::chrono::duration<double, std::milli> taken = std::chrono::steady_clock::now() - start;
      samples_ms[i] = taken.count();
    }
    return 0;
  });
}

const char* codesign_error(void) { return last_error.c_str(); }

}  // extern "C"
