"""`make bench-gpu`: compares Sparkle's generated shaders with cuDNN and cuBLAS, strict fp32, on one GPU in one run.

    compare_gpu.py --sparkle DRIVER [--suite FILE] [--batches 1,32] [--top N] [--rounds R] [--busy S] [--record FOLDER]

DRIVER is the release build of the example `gpu_driver`. Nothing else of Sparkle is needed, so the binary may be copied from another
machine. Python needs PyTorch with CUDA. With `--alone` only Sparkle is measured, on gl:0.

`--suite shapes.csv --batches 0` does the same for layers outside the suite, each with its own batch.

Both sides prepare a layer and are timed alternately, so that the card has the same clock for both. A time is the kernel time of 20
calls back to back, best of 5 (graph replays, or timestamp queries), after the same work kept the card busy. The figure is the median
of the rounds. The ceiling of multiply-adds through OpenGL is measured beside each layer. A wrong result of Sparkle ends the run.
"""

import argparse
import datetime
import importlib.util
import pathlib
import re
import subprocess
import sys
from statistics import geometric_mean, median

from compare import HERE, Driver, Figures, layers, record, rotated, table, text

# The card is hardly idle between two timings of a layer, so a shorter busy time restores its clock.
REST_OF_BUSY = 0.25
LARGE_BATCH = 32


class Bench:
    """The drivers and their measurements."""

    def __init__(self, options):
        self.options = options
        self.sparkle = Driver([options.sparkle.resolve()], 1)
        self.vendor = None if options.alone else Driver([sys.executable, HERE / "cudnn_conv.py"], 1)
        self.figures, self.kernels, self.ceilings = Figures(), {}, []

    def close(self):
        for driver in filter(None, (self.sparkle, self.vendor)):
            driver.close()

    def turns(self, work, held):
        """Times all of `held`, a list of (driver, name), round by round in a rotating order."""
        busy = self.options.busy
        for number in range(self.options.rounds):
            # The reference kernel is slow; one timing is enough.
            for driver, name in rotated([it for it in held if number == 0 or it[1] != "reference"], number):
                answer = driver.ask("time", name, busy)
                if name == "ceiling":
                    self.ceilings.append(answer["gflops"])
                self.figures.add(work, "vendor" if driver is self.vendor else name, answer)
                busy = self.options.busy * REST_OF_BUSY

    def layer(self, name, batch, sizes):
        """Measures one layer with one batch."""
        sizes = [batch or sizes[0], *sizes[1:]]
        which = ["first", "best"] if self.options.top > 1 else ["first"]
        which += ["direct"] if name.startswith("vgg") else []
        which += ["reference"] if batch == LARGE_BATCH else []
        answer = self.sparkle.ask("conv", ",".join(which), self.options.top, *sizes)
        work = (name, batch)
        self.kernels[work] = {key.split(".")[1]: it for key, it in answer.items() if key.startswith("kernel.")}
        # A kernel with two names is timed once.
        same = {key: next(other for other in which if self.kernels[work][other] == it) for key, it in self.kernels[work].items()}
        held = [(self.sparkle, key) for key in which if same[key] == key] + [(self.sparkle, "ceiling")]
        if self.vendor:
            self.vendor.ask("conv", *sizes)
            held.append((self.vendor, "conv"))
        self.turns(work, held)
        for key, other in same.items():
            if other != key:
                for gflops in self.figures.all[work, other, "gflops"]:
                    self.figures.add(work, key, {"gflops": gflops})

    def product(self):
        """Measures a product of square matrices."""
        self.sparkle.ask("gemm", self.options.gemm)
        held = [(self.sparkle, "gemm")]
        if self.vendor:
            self.vendor.ask("gemm", self.options.gemm)
            held.append((self.vendor, "gemm"))
        self.turns("sgemm", held)

    def rate(self, work, driver):
        """GFLOPS, or None if nothing was measured."""
        return self.figures.of(work, driver, "gflops")


def over(one, other):
    return one / other if one and other else None


def mean(values):
    values = [value for value in values if value]
    return geometric_mean(values) if values else None


def layers_table(bench, names, batch):
    """One row per layer with figures and ratios, then the geometric means."""
    ours = "best" if bench.options.top > 1 else "first"
    head = ["layer", "cudnn", "first", "best", "direct", "reference", "first/cudnn", "best/cudnn", "first/best"]
    head += ["direct/ceiling", "best/reference", "first choice", "best of the first " + str(bench.options.top)]
    ceiling, rows = median(bench.ceilings), []
    for name in names:
        work = (name, batch)
        vendor, first, best, direct, reference = (
            bench.rate(work, driver) for driver in ("vendor", "first", ours, "direct", "reference")
        )
        ratios = [over(first, vendor), over(best, vendor), over(first, best), over(direct, ceiling), over(best, reference)]
        kernels = bench.kernels[work]
        rows.append([name, vendor, first, best, direct, reference, *ratios, kernels["first"], kernels[ours]])
    rows.append(["geomean", *(mean(row[column] for row in rows) for column in range(1, 11)), "", ""])
    return [head, *rows]


def aims(bench, tables):
    """The project's targets: (figure, measured, at least, where)."""
    found = []
    for batch, at_least in ((LARGE_BATCH, 1.10), (1, 1.40)):
        if batch not in tables:
            continue
        head, *rows, means = tables[batch]
        column = {name: index for index, name in enumerate(head)}
        for what in ("best", "first"):
            at = column[f"{what}/cudnn"]
            if means[at] and (what == "first" or bench.options.top > 1):
                found.append((f"batch {batch}, {what} over cuDNN, geomean", means[at], at_least, ""))
                worst, where = min((row[at], row[0]) for row in rows)
                found.append((f"batch {batch}, {what} over cuDNN, weakest layer", worst, 0.75, where))
        if bench.options.top > 1:
            found.append((f"batch {batch}, first choice over the best, geomean", means[column["first/best"]], 0.75, ""))
        if batch == LARGE_BATCH:
            found.append(("direct algorithms, VGG layers: share of the ceiling, geomean", means[column["direct/ceiling"]], 0.68, ""))
            found.append(("over the reference kernel, batch 32, geomean", means[column["best/reference"]], 40.0, ""))
    if product := over(bench.rate("sgemm", "gemm"), bench.rate("sgemm", "vendor")):
        found.append((f"sgemm {bench.options.gemm} over cuBLAS", product, 0.9, ""))
    return [aim for aim in found if aim[1] is not None]


def machine(options, device):
    """One line about the machine, the build and the method."""
    gpu = "an OpenGL device"
    if not options.alone:
        import torch

        cudnn = ".".join(map(str, (torch.backends.cudnn.version() // 10000, torch.backends.cudnn.version() // 100 % 100)))
        gpu = f"{torch.cuda.get_device_name(0)}, PyTorch {torch.__version__}, cuDNN {cudnn}, CUDA {torch.version.cuda}"
    git = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=12"]
    commit = options.commit or subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    rates = f"{device['flops'] * 1e-12:.1f} TFLOPS, {device['memory'] * 1e-12:.2f} TB/s, {device['launch'] * 1e6:.1f} us a launch"
    return (
        f"{gpu}; sparkle {commit}; planner's view: {rates}, {device['units']:.0f} units; {options.rounds} rounds, card busy "
        f"{options.busy} s before; kernel time of 20 calls back to back, GFLOPS of the direct algorithm's operations, medians"
    )


def missing():
    """What the vendor's side lacks on this machine, or None."""
    get_it = f"Get it with: {sys.executable} -m pip install torch\nOr measure Sparkle alone with --alone (make bench-gpu ALONE=1)."
    if importlib.util.find_spec("torch") is None:
        return f"cuDNN is reached through PyTorch, which this Python has not got.\n{get_it}"
    import torch

    if not torch.cuda.is_available():
        return f"PyTorch {torch.__version__} sees no CUDA GPU here: it needs an NVIDIA GPU and a build with CUDA.\n{get_it}"
    return None


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--sparkle", required=True, type=pathlib.Path, help="the release build of gpu_driver")
    parser.add_argument("--suite", default=HERE.parent / "suite.csv", type=pathlib.Path)
    parser.add_argument("--batches", default="1,32", help="batch sizes; 0 keeps each row's own")
    parser.add_argument("--top", default=3, type=int, help="candidates that are timed for the best one")
    parser.add_argument("--gemm", default=4096, type=int, help="side of the square product; 0: none")
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--busy", default=0.4, type=float, help="seconds of work before a layer's first timing")
    parser.add_argument("--only", default="", help="layers whose name has this in it")
    parser.add_argument("--alone", action="store_true", help="without cuDNN and cuBLAS")
    parser.add_argument("--commit", help="Sparkle's commit, where there is no repository")
    parser.add_argument("--record", type=pathlib.Path, help="a folder for the dated folder of this run")
    return parser.parse_args()


def main():
    options = arguments()
    if not options.alone and (what := missing()):
        sys.exit(what)
    works = {name: sizes for name, sizes in layers(options.suite).items() if options.only in name}
    batches = [int(batch) for batch in options.batches.split(",")]
    stamp, bench = datetime.datetime.now(), Bench(options)
    about = machine(options, bench.sparkle.ask("device"))
    bench.sparkle.ask("ceiling")
    say = lambda message: print(f"\r\033[K{message}", end="", file=sys.stderr, flush=True) if sys.stderr.isatty() else None
    for batch in batches:
        for name, sizes in works.items():
            say(f"batch {batch}: {name}")
            bench.layer(name, batch, sizes)
    if options.gemm:
        say(f"sgemm {options.gemm}")
        bench.product()
    say("")
    bench.close()

    tables = {batch: layers_table(bench, works, batch) for batch in batches}
    verdicts = [["figure", "measured", "at least", "", "where"]]
    verdicts += [[name, f"{got:.3f}", f"{aim:.2f}", "" if got >= aim else "below", where] for name, got, aim, where in aims(bench, tables)]
    others = [["other figures", "GFLOPS"], ["multiply-adds through OpenGL, the ceiling", median(bench.ceilings)]]
    products = ((f"sgemm {options.gemm}", "gemm"), (f"cuBLAS sgemm {options.gemm}", "vendor"))
    others += [[name, rate] for name, key in products if (rate := bench.rate("sgemm", key))]
    parts = [f"{stamp:%Y-%m-%d %H:%M}: {about}"]
    for batch, rows in tables.items():
        parts.append(f"batch {batch}\n" + table([[text(cell) for cell in row] for row in rows]))
    parts += [table([[text(cell) for cell in row] for row in rows]) for rows in (others, verdicts)]
    report = "\n\n".join(parts) + "\n"
    print(report, end="")
    if options.record:
        kind = re.sub(r"[^a-z0-9]+", "-", about.split(",")[0].split(";")[0].lower()).strip("-")
        folder = options.record / f"{stamp:%Y-%m-%d}-{kind}"
        folder.mkdir(parents=True, exist_ok=True)
        tables = {f"batch{batch}": rows for batch, rows in tables.items()}
        record(folder, f"gpu-{stamp:%H%M}", report, {**tables, "others": others, "summary": verdicts})


if __name__ == "__main__":
    main()
