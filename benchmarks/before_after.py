"""Compares the GPU kernels of two builds on gl:0: the planner's first choices for every layer of a suite, alternating in one run.

    python3 benchmarks/before_after.py OLD/gpu_driver NEW/gpu_driver benchmarks/suite.csv [BATCH ...]

Prints CSV: layer, batch, both kernels, both GFLOPS, new over old; then the geometric mean. Each figure is the best of ROUNDS
alternating rounds, each after BUSY seconds of the same work (`benchmarks/peers/sparkle_gpu/main.rs`).
"""

import csv
import math
import subprocess
import sys

ROUNDS = 3
BUSY = 0.05


class Driver:
    """A process of one build. It prepares kernels and times them on request."""

    def __init__(self, program):
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([program], stdin=pipe, stdout=pipe, text=True)

    def ask(self, request):
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        return dict(word.split("=", 1) for word in answer if "=" in word)

    def gflops(self, name):
        return float(self.ask(f"time {name} {BUSY}").get("gflops", "nan"))


def compare(drivers, label, name):
    best = [0.0, 0.0]
    for turn in range(ROUNDS):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            best[which] = max(best[which], drivers[which].gflops(name))
    ratio = best[1] / best[0]
    print(f"{label},{best[0]:.0f},{best[1]:.0f},{ratio:.3f}", flush=True)
    return ratio


def main(old, new, suite, *batches):
    drivers = [Driver(old), Driver(new)]
    ratios = []
    print("layer,batch,old kernel,new kernel,old GFLOPS,new GFLOPS,new over old")
    with open(suite) as file:
        layers = [row for row in csv.DictReader(file)]
    for batch in batches or ("1", "32"):
        for row in layers:
            sizes = [batch] + [row[key] for key in ("C", "H", "W", "K", "kernel", "stride", "pad")]
            request = "conv first 1 " + " ".join(sizes)
            held = [driver.ask(request) for driver in drivers]
            kernels = [next((held[key] for key in held if key.startswith("kernel.")), "none") for held in held]
            wrong = [answer for answer in held if float(answer.get("error", "inf")) > 1]
            if wrong:
                print(f"{row['name']},{batch}: {wrong}", flush=True)
                continue
            ratios.append(compare(drivers, f"{row['name']},{batch},{kernels[0]},{kernels[1]}", "first"))
    for driver in drivers:
        driver.ask("gemm 4096")
    compare(drivers, "product of 4096,1,gemm,gemm", "gemm")
    print(f"geometric mean of {len(ratios)}: {math.exp(sum(map(math.log, ratios)) / len(ratios)):.4f}, least {min(ratios):.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
