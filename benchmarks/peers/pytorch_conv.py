"""PyTorch's side of compare_pytorch.py: `torch.nn.functional.conv2d` on the CPU, fp32, NCHW in and out.

Requests and answers are those of sparkle/main.rs, `conv` only. OMP_NUM_THREADS is the number of threads.
"""

import os
import sys
import time

import torch
import torch.nn.functional as functional

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
torch.set_grad_enabled(False)


def median_seconds(seconds, call):
    """The timing rule of all drivers."""
    call()
    call()
    times = []
    start = time.perf_counter()
    while len(times) < 5 or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return sorted(times)[len(times) // 2]


def conv(n, c, h, w, k, size, stride, pad, seconds):
    """GFLOPS of one layer."""
    x, weights = torch.rand(n, c, h, w) * 2 - 1, torch.rand(k, c, size, size) * 2 - 1
    call = lambda: functional.conv2d(x, weights, stride=stride, padding=pad)
    return 2.0 * call().numel() * c * size * size / median_seconds(seconds, call) * 1e-9


for request in sys.stdin:
    what, *numbers = request.split()
    try:
        if what != "conv":
            raise ValueError("not understood: " + request.strip())
        print(f"call={conv(*(int(number) for number in numbers[:-1]), float(numbers[-1])):.2f}", flush=True)
    except (ValueError, TypeError, RuntimeError) as error:
        print(f"failed={error}".replace("\n", " "), flush=True)
