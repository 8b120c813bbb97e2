# SPDX-License-Identifier: Apache-2.0
"""The threads that compiled networks share their loops with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from codesign.frontend import load_network
from codesign.ir import interpret
from codesign.ir.graph import Array, Graph
from codesign.passes import prepare
from codesign.quant import calibrate, load_format, quantize_graph
from codesign.targets.deploy import load
from codesign.targets.deploy.threads import threads_object
from codesign.targets.host import HostTarget
from codesign.targets.layers import random_inputs
from codesign.targets.pool import SPINS
from codesign.targets.tools import why_missing

pytestmark = pytest.mark.skipif(why_missing("tvm", "c++") is not None, reason="needs TVM and g++")

PROGRAM = r"""
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <atomic>
#include <thread>
#include <vector>
struct Group { void* handle; int32_t tasks; };
typedef int (*Lambda)(int, Group*, void*);
extern "C" int codesign_launch(Lambda, void*, int);
extern "C" void codesign_threads(int);
std::atomic<int> counts[300];
std::atomic<long> wrong{0}, nested{0};
int count(int task, Group* group, void* data) {
  if (group->tasks != *static_cast<int*>(data)) ++wrong;
  ++counts[task];
  return 0;
}
int inner(int, Group*, void*) { ++nested; return 0; }
int outer(int, Group*, void*) { return codesign_launch(inner, nullptr, 3); }
int fails(int task, Group*, void*) { return task == 1 ? -1 : 0; }
void once(int threads, int tasks) {
  codesign_threads(threads);
  int expected = tasks ? tasks : threads;
  for (auto& c : counts) c = 0;
  if (codesign_launch(count, &expected, tasks)) ++wrong;
  for (int i = 0; i < 300; ++i) wrong += counts[i] != (i < expected ? 1 : 0);
}
int own(int, Group*, void* data) { ++*static_cast<std::atomic<long>*>(data); return 0; }
int main() {
  for (int threads = 1; threads <= 4; ++threads)
    for (int tasks : {0, 1, 2, 3, 7, 64, 256, 299}) once(threads, tasks);
  for (int i = 0; i < 20000; ++i) once(3, 0);
  for (int i = 0; i < 20; ++i) { usleep(3000); once(4, 0); }  // threads are asleep by then
  codesign_launch(outer, nullptr, 5);
  if (nested != 15) ++wrong;
  if (codesign_launch(fails, nullptr, 3) != -1 || codesign_launch(inner, nullptr, 3) != 0) ++wrong;
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i)
    callers.emplace_back([] {
      std::atomic<long> sum{0};
      for (int j = 0; j < 2000; ++j) codesign_launch(own, &sum, 4);
      wrong += sum != 8000;
    });
  for (auto& caller : callers) caller.join();
  if (pid_t child = fork()) {
    int status = 1;
    waitpid(child, &status, 0);
    wrong += status != 0;
  } else {
    for (int i = 0; i < 100; ++i) once(3, 0);
    return wrong != 0;
  }
  printf("wrong: %ld\n", wrong.load());
  return wrong != 0;
}
"""


def integer(form: str) -> tuple[Graph, Array]:
    """ResNet8 in a format, and an input."""
    graph = prepare().run(load_network("zoo:resnet8").graph).graph
    (x,) = random_inputs(graph)
    chosen = {layer.name: load_format(form) for layer in graph.layers()}
    return quantize_graph(graph, calibrate(graph, [x]), chosen).graph, x


def test_every_task_runs_once(tmp_path: Path) -> None:
    (tmp_path / "try.cc").write_text(PROGRAM)
    subprocess.run(
        ["c++", "-std=c++17", "-O1", str(tmp_path / "try.cc"), threads_object("c++"),
         "-pthread", "-o", str(tmp_path / "try")], check=True,
    )  # fmt: skip
    done = subprocess.run(
        [str(tmp_path / "try")], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "wrong: 0\n")


def test_a_build_in_the_place_of_another_is_the_one_that_runs(tmp_path: Path) -> None:
    """The loader goes by file names: without care the first build would run again."""
    target = HostTarget(threads=2)
    for form in ("w8a8", "w4a8"):
        graph, x = integer(form)
        target.build(graph, tmp_path / "build")
        runner = target.load(tmp_path / "build")
        for found, expected in zip(runner.run(x), interpret.run(graph, x), strict=True):
            np.testing.assert_array_equal(found, expected)
        del runner


def test_a_process_with_threads_ends(tmp_path: Path) -> None:
    graph, x = integer("w8a8")
    HostTarget(threads=2).build(graph, tmp_path / "build")
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from codesign.targets.host import HostTarget\n"
        "folder = Path(sys.argv[1])\n"
        "HostTarget(threads=2).load(folder / 'build').run(np.load(folder / 'x.npy'))\n"
        "print('ran')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=120,
        check=True,
    )  # fmt: skip
    assert done.stdout == "ran\n"


def test_the_loader_of_a_build_calms_tvms_threads_as_we_do() -> None:
    """It stands alone on the device, so the number stands there, too."""
    loader = Path(load.__file__).read_text(encoding="utf-8")
    assert f'"TVM_THREAD_POOL_SPIN_COUNT", "{SPINS}"' in loader
