"""The vendor library's side of compare_gpu.py: cuDNN's convolution and cuBLAS's product through PyTorch, strict fp32.

| request | answer |
| --- | --- |
| `conv N C H W K kernel stride pad [groups dilation kernel_w pad_w]` | prepares a layer, as `conv` |
| `gemm SIZE` | prepares a square product, as `gemm` |
| `time NAME BUSY` | `gflops=` and `us=` of one call |

The rule is that of sparkle_gpu/main.rs: 20 calls back to back, best of 5, after BUSY seconds of the same work. The calls are replays of
one CUDA graph, which excludes the CPU's cost of launches. cuDNN has tried its algorithms before and chosen the fastest.
"""

import math
import sys
import time

import torch
import torch.nn.functional as functional

CALLS, ROUNDS, WARM_UP, MAX_SECONDS = 20, 5, 5, 0.2

torch.backends.cudnn.benchmark = True
torch.backends.cudnn.allow_tf32 = False
torch.backends.cuda.matmul.allow_tf32 = False
torch.set_grad_enabled(False)


class Held:
    """Calls recorded as a graph."""

    def __init__(self, call, flops):
        self.flops = flops
        for _ in range(WARM_UP):
            call()
        once = self.seconds(call)
        self.calls = max(1, min(CALLS, int(MAX_SECONDS / once)))
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            for _ in range(self.calls):
                call()

    @staticmethod
    def seconds(call):
        """Device time of a call."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) * 1e-3

    def time(self, busy):
        """Seconds of one call among `calls` back to back."""
        started, best = time.monotonic(), math.inf
        while time.monotonic() - started < busy:
            self.graph.replay()
            torch.cuda.synchronize()
        for _ in range(ROUNDS):
            best = min(best, self.seconds(self.graph.replay) / self.calls)
        return best


def reals(*sizes):
    """Values uniform in -1..1, like Sparkle's."""
    return torch.rand(*sizes, device="cuda") * 2 - 1


def layer(n, c, h, w, k, size, stride, pad, groups=1, dilation=1, width=None, pad_w=None):
    width, pad_w = width or size, pad if pad_w is None else pad_w
    x, weights = reals(n, c, h, w), reals(k, c // groups, size, width)
    call = lambda: functional.conv2d(x, weights, stride=stride, padding=(pad, pad_w), dilation=dilation, groups=groups)
    return Held(call, 2.0 * call().numel() * weights[0].numel())


def product(size):
    a, b = reals(size, size), reals(size, size)
    return Held(lambda: torch.matmul(a, b), 2.0 * size**3)


def answer(held, what, *words):
    if what == "conv":
        held.clear()
        held["conv"] = layer(*map(int, words))
        return "kernel=cudnn"
    if what == "gemm":
        held["gemm"] = product(int(words[0]))
        return "kernel=cublas"
    if what == "time":
        seconds = held[words[0]].time(float(words[1]))
        return f"gflops={held[words[0]].flops / seconds * 1e-9:.2f} us={seconds * 1e6:.3f}"
    raise ValueError("not understood: " + what)


def main():
    held = {}
    for request in sys.stdin:
        try:
            print(answer(held, *request.split()), flush=True)
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            print(f"failed={error!r}".replace("\n", " "), flush=True)


main()
