"""ncnn's side of `make bench-peers`: fp32, one layer, NCHW in and out, weights prepared when the network is loaded.

Requests and answers are those of sparkle/main.rs, `conv` only. On 3x3 layers with stride 1, ncnn uses Winograd's algorithm. Its GFLOPS
count the direct algorithm's operations and may exceed the processor's peak.
"""

import os
import struct
import sys
import tempfile
import time

import ncnn
import numpy as np

NARROW = ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage", "bf16_packed", "vulkan_compute")


def network(c, h, w, k, size, stride, pad):
    """A network of one convolution with random weights, in fp32 throughout."""
    net = ncnn.Net()
    for name in NARROW:
        if hasattr(net.opt, "use_" + name):
            setattr(net.opt, "use_" + name, False)
    net.opt.num_threads = int(os.environ["OMP_NUM_THREADS"])
    count = k * c * size * size
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/net.param", "w") as file:
            file.write(f"7767517\n2 2\nInput in 0 1 x 0={w} 1={h} 2={c}\n")
            file.write(f"Convolution conv 1 1 x y 0={k} 1={size} 3={stride} 4={pad} 5=0 6={count}\n")
        with open(f"{folder}/net.bin", "wb") as file:
            file.write(struct.pack("<I", 0))
            file.write((np.random.rand(count).astype(np.float32) * 2 - 1).tobytes())
        net.load_param(f"{folder}/net.param")
        net.load_model(f"{folder}/net.bin")
    return net


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
    net = network(c, h, w, k, size, stride, pad)
    data = np.random.rand(c, h, w).astype(np.float32) * 2 - 1
    x = ncnn.Mat(data)  # shares the array's memory

    def call():
        for _ in range(n):
            extractor = net.create_extractor()
            extractor.input("x", x)
            _, y = extractor.extract("y")
        return y

    outputs = n * np.array(call()).size
    return 2.0 * outputs * c * size * size / median_seconds(seconds, call) * 1e-9


for request in sys.stdin:
    what, *numbers = request.split()
    try:
        if what != "conv":
            raise ValueError("not understood: " + request.strip())
        rate = conv(*(int(number) for number in numbers[:-1]), float(numbers[-1]))
        print(f"prepacked={rate:.2f}", flush=True)
    except (ValueError, TypeError) as error:
        print(f"failed={error}", flush=True)
