// SPDX-License-Identifier: Apache-2.0
// Watches the kernels of a network where it runs: linked into libraries that are compared on a
// device, so that the line to it does not count. One source for every architecture.
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <chrono>
#include <string>

namespace ffi = tvm::ffi;

namespace {

// Calls `main` of a virtual machine whose inputs are set. One line for each start (`1`) and end
// (`0`) of a kernel: name, which, nanoseconds; a line `-` ends each call. The machine stays slower.
ffi::String watch(ffi::Module vm, int calls) {
  using Clock = std::chrono::steady_clock;
  std::string events;
  ffi::Function note = ffi::Function::FromPacked(
      [&events](ffi::PackedArgs args, ffi::Any*) {
        long long now = std::chrono::duration_cast<std::chrono::nanoseconds>(
            Clock::now().time_since_epoch()).count();
        events += std::string(args[1].cast<ffi::String>());
        events += args[2].cast<bool>() ? " 1 " : " 0 ";
        events += std::to_string(now) + '\n';
      });
  auto function = [&vm](const char* name) { return vm->GetFunction(name).value(); };
  function("set_instrument")(note);
  for (int call = 0; call < calls; ++call) {
    function("invoke_stateful")("main");
    events += "-\n";
  }
  // the machine must not outlive what the instrument writes to
  function("set_instrument")(ffi::Function::FromPacked([](ffi::PackedArgs, ffi::Any*) {}));
  return events;
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(codesign_watch, watch)
