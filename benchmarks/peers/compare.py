"""`make bench-peers`: compares Sparkle with oneDNN, ncnn and OpenBLAS in one run.

    compare.py --peers FOLDER --sparkle DRIVER [--threads T] [--rounds R] [--seconds S] [--record FOLDER]

Every library is a driver process that measures one layer at a time. All drivers measure a layer within a second or two of each other,
round by round, in a rotating order. A disturbance of the machine then affects all alike, and the ratios hold. The figure of a
layer is the median of its rounds. The peak is measured in the same rotation. A wrong result of Sparkle ends the run.
"""

import argparse
import csv
import datetime
import io
import os
import pathlib
import platform
import subprocess
import sys
import time
from statistics import geometric_mean, median

HERE = pathlib.Path(__file__).resolve().parent
# OpenMP's threads spin for up to 0.2 s after their last work and would occupy the next driver's cores.
SPIN_SECONDS = 0.3
# All products whose three sizes are among these, COUNT of each at once.
SMALL_SIZES = (8, 16, 27, 40, 64)
COUNT = 64
GEMM_SIZES = (512, 768, 1024, 1536, 2048, 3072, 4096)


class Driver:
    """A library in a process of its own."""

    def __init__(self, command, threads, **variables):
        counts = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "SPARKLE_NUM_THREADS")}
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **counts, **variables},
        )

    def ask(self, *words):
        """Sends one request. Returns the answer as a dictionary with numbers as floats."""
        request = " ".join(map(str, words))
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        if not answer or answer.startswith("failed="):
            sys.exit(f"{self.process.args[0]}: {request}: {answer or 'no answer'}")
        pairs = (word.split("=", 1) for word in answer.split())
        answer = {key: value if key.startswith("kernel") else float(value) for key, value in pairs}
        if not answer.get("error", 0.0) <= 1.0:
            sys.exit(f"{self.process.args[0]}: {request}: WRONG RESULT, {answer['error']} times the error bound")
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def rotated(items, by):
    """`items`, rotated by `by`."""
    items = list(items)
    return items[by % len(items) :] + items[: by % len(items)]


class Figures:
    """The values of each (work, driver, figure), round by round."""

    def __init__(self):
        self.all = {}

    def add(self, work, driver, answer):
        for key, value in answer.items():
            self.all.setdefault((work, driver, key), []).append(value)

    def of(self, work, driver, key):
        """The median; a name unchanged; None if nothing was measured."""
        values = self.all.get((work, driver, key))
        if not values:
            return None
        return values[-1] if isinstance(values[-1], str) else median(values)


def measure(works, drivers, threads, rounds, seconds, say):
    """Runs all works. `works`: name -> (request, the drivers that take part)."""
    figures = Figures()
    for number in range(rounds):
        for index, (name, (request, parts)) in enumerate(works.items()):
            say(f"round {number + 1} of {rounds}: {name}")
            for part in rotated(parts, number + index):
                if threads > 1:
                    time.sleep(SPIN_SECONDS)
                figures.add(name, part, drivers[part].ask(*request, seconds))
            figures.add(name, "peak", drivers["sparkle"].ask("peak", min(seconds, 0.1)))
            if "avx2" in parts:
                figures.add(name, "avx2 peak", drivers["avx2"].ask("peak", min(seconds, 0.1)))
    return figures


def layers(suite):
    """The suite's layers: name -> sizes in the order of a request, which is the order of the file's columns."""
    with open(suite, newline="", encoding="utf-8") as file:
        columns = ("N", "C", "H", "W", "K", "kernel", "stride", "pad", "groups", "dilation", "kernel_w", "pad_w")
        reader = csv.DictReader(file)
        present = [column for column in columns if column in reader.fieldnames]
        return {row["name"]: [int(row[column]) for column in present] for row in reader}


def table(rows):
    """Formats rows as columns: a name, then numbers."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    line = lambda row: "  ".join([row[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(row[1:], widths[1:])])
    return "\n".join(line(row).rstrip() for row in rows)


def text(value):
    return value if isinstance(value, str) else "-" if value is None else f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def is_intel():
    """Whether the CPU is Intel's: the shares of the peak that are asked for differ by maker."""
    return "GenuineIntel" in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")


def convolutions(figures, names, threads):
    """The table of layers, and the project's targets: (figure, measured, at least, where)."""
    head = ["layer", "onednn call", "onednn prepacked", "ncnn", "sparkle call", "sparkle prepacked", "sparkle direct"]
    head += ["call/onednn", "prepacked/onednn", "prepacked/better", "direct/peak", "avx2/its peak", "peak", "kernel"]
    rows, ratios = [], {key: [] for key in head[7:12]}
    for name in names:
        of = lambda driver, key: figures.of(name, driver, key)
        rates = [of("onednn", "call"), of("onednn", "prepacked"), of("ncnn", "prepacked")]
        rates += [of("sparkle", "call"), of("sparkle", "prepacked"), of("direct", "prepacked")]
        peak = of("peak", "peak")
        narrow = of("avx2", "prepacked") / of("avx2 peak", "peak")
        values = [rates[3] / rates[0], rates[4] / rates[1], rates[4] / max(rates[1], rates[2]), rates[5] / peak, narrow]
        for key, value in zip(ratios, values):
            ratios[key].append(value)
        rows.append([name, *rates, *values, peak, of("sparkle", "kernel")])
    means = [geometric_mean(row[column] for row in rows) for column in range(1, 13)]
    rows.append(["geomean", *means, ""])
    worst = lambda key: min(zip(ratios[key], names))
    call, prepacked = worst("call/onednn"), worst("prepacked/better")
    summary = [
        ("prepacked over the better of oneDNN prepacked and ncnn, geomean", means[8], 1.25, ""),
        ("prepacked over oneDNN prepacked, geomean", means[7], 1.40, ""),
        ("as given over oneDNN's call, geomean", means[6], 1.40, ""),
        ("worst layer, prepacked over the better peer", prepacked[0], 1.00, prepacked[1]),
        ("worst layer, as given over oneDNN's call", call[0], 1.00, call[1]),
        ("direct algorithms, prepacked: share of the FMA peak", means[9], 0.85 if is_intel() else 0.92, ""),
        ("direct algorithms with AVX2: share of its own peak", means[10], 0.88, ""),
    ]
    if figures.of(names[0], "one thread", "prepacked"):
        gains = [figures.of(n, "sparkle", "prepacked") / figures.of(n, "one thread", "prepacked") for n in names]
        # 1.85 with 2 threads and 11 with 16; other numbers of threads by the power law through both.
        aim = 1.85 * (threads / 2) ** 0.857
        summary.append(("these threads over one thread, prepacked, geomean", geometric_mean(gains), aim, f"{threads} threads"))
    return [head, *rows], summary


def shapes(figures, names, _threads):
    """The same for layers outside the suite, compared with oneDNN only, without targets."""
    head = ["shape", "onednn call", "onednn prepacked", "sparkle call", "sparkle prepacked"]
    rows = [head + ["call/onednn", "prepacked/onednn", "prepacked/peak", "kernel"]]
    for name in names:
        keys = (("onednn", "call"), ("onednn", "prepacked"), ("sparkle", "call"), ("sparkle", "prepacked"))
        rates = [figures.of(name, *key) for key in keys]
        ratios = [rates[2] / rates[0], rates[3] / rates[1], rates[3] / figures.of(name, "peak", "peak")]
        rows.append([name, *rates, *ratios, figures.of(name, "sparkle", "kernel")])
    call, prepacked = min((row[5], row[0]) for row in rows[1:]), min((row[6], row[0]) for row in rows[1:])
    return rows, [
        ("shapes, as given over oneDNN's call, geomean", geometric_mean(row[5] for row in rows[1:]), None, ""),
        ("shapes, prepacked over oneDNN prepacked, geomean", geometric_mean(row[6] for row in rows[1:]), 1.50, ""),
        ("worst shape, as given over oneDNN's call", call[0], None, call[1]),
        ("worst shape, prepacked over oneDNN prepacked", prepacked[0], 0.95, prepacked[1]),
    ]


def products(figures, names, _threads):
    """The same for sgemm."""
    rows = [["sgemm", "openblas", "openblas avx512", "sparkle", "sparkle/better", "sparkle/peak", "peak"]]
    for name in names:
        keys = (("openblas", "gemm"), ("openblas avx512", "gemm"), ("sparkle", "gemm"), ("peak", "peak"))
        chosen, wide, ours, peak = (figures.of(name, *key) for key in keys)
        rows.append([name, chosen, wide, ours, ours / max(chosen, wide or 0.0), ours / peak, peak])
    over, share = min((row[4], row[0]) for row in rows[1:]), min((row[5], row[0]) for row in rows[1:])
    return rows, [
        ("sgemm over the better OpenBLAS, worst size", over[0], 1.0, over[1]),
        ("sgemm, share of the FMA peak, worst size", share[0], 0.88 if is_intel() else 0.94, share[1]),
    ]


def small_products(figures, names, _threads):
    """The same for batches of small products."""
    rows = [["product", "openblas", "openblas avx512", "onednn", "sparkle", "sparkle/better", "sparkle/peak"]]
    for name in names:
        keys = (("openblas", "gemm"), ("openblas avx512", "gemm"), ("onednn", "gemm"), ("sparkle", "gemm"), ("peak", "peak"))
        *others, ours, peak = (figures.of(name, *key) for key in keys)
        rows.append([name, *others, ours, ours / max(rate or 0.0 for rate in others), ours / peak])
    worst = min((row[5], row[0]) for row in rows[1:])
    return rows, [
        ("small products over the better of OpenBLAS and oneDNN, geomean", geometric_mean(row[5] for row in rows[1:]), 1.20, ""),
        ("the worst of them", worst[0], None, worst[1]),
    ]


def machine(options):
    """One line about the machine, the build and the method."""
    model = platform.processor() or platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), model)
    git = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    load, cores = os.getloadavg()[0], os.cpu_count()
    busy = "" if load <= cores - options.threads + 0.5 else ", BUSY WITH OTHER WORK: not figures to publish"
    return (
        f"{model}, {cores} cores, load {load:.2f}{busy}; sparkle {commit}; {options.threads} thread(s), "
        f"{options.rounds} rounds, {options.seconds} s a figure; GFLOPS of the direct algorithm's operations, medians"
    )


def record(folder, stem, report, tables):
    """Writes dated files: the printed report, and the tables as CSV."""
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    pathlib.Path(folder, stem + ".txt").write_text(report, encoding="utf-8")
    for name, rows in tables.items():
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows(
            [f"{cell:.4f}" if isinstance(cell, float) else cell for cell in row] for row in rows
        )
        pathlib.Path(folder, f"{stem}-{name}.csv").write_text(file.getvalue(), encoding="utf-8")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--peers", required=True, type=pathlib.Path, help="where the peers were built")
    parser.add_argument("--sparkle", required=True, type=pathlib.Path, help="the release build of bench_driver")
    parser.add_argument("--suite", default=HERE.parent / "suite.csv", type=pathlib.Path)
    parser.add_argument("--shapes", default=HERE.parent / "shapes.csv", type=pathlib.Path, help="layers outside of it")
    parser.add_argument("--threads", default=1, type=int)
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--seconds", default=0.2, type=float, help="timed calls of one figure in one round")
    parser.add_argument("--only", default="", help="layers and sizes whose name has this in it")
    parser.add_argument("--record", help="a folder for dated files")
    return parser.parse_args()


def main():
    options = arguments()
    peers, threads = options.peers, options.threads
    library = next(peers.glob("openblas/usr/lib/*/openblas-pthread/libopenblas.so.0"))
    drivers = {
        "onednn": Driver([peers / "onednn_conv"], threads),
        "ncnn": Driver([peers / "venv/bin/python", HERE / "ncnn_conv.py"], threads),
        "openblas": Driver([peers / "openblas_sgemm", library], threads),
        "sparkle": Driver([options.sparkle], threads),
        "direct": Driver([options.sparkle], threads, SPARKLE_ALGORITHM="direct"),
        "avx2": Driver([options.sparkle], threads, SPARKLE_ALGORITHM="direct", SPARKLE_ISA="avx2"),
    }
    parts = ["onednn", "ncnn", "sparkle", "direct", "avx2"]
    if threads > 1:
        drivers["one thread"] = Driver([options.sparkle], 1)
        parts.append("one thread")
    gemm_parts = ["openblas", "sparkle"]
    if "avx512f" in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").split():
        # OpenBLAS may choose narrower kernels than it has on processors that it does not know.
        drivers["openblas avx512"] = Driver([peers / "openblas_sgemm", library], threads, OPENBLAS_CORETYPE="SkylakeX")
        gemm_parts.append("openblas avx512")
    works = {name: (["conv", *sizes], parts) for name, sizes in layers(options.suite).items()}
    works |= {f"sgemm {size}": (["gemm", size], gemm_parts) for size in GEMM_SIZES}
    kinds = {name: "conv2d" if request[0] == "conv" else "sgemm" for name, (request, _) in works.items()}
    small = {
        f"product {m}x{n}x{k}": (["products", m, n, k, COUNT], ["onednn", *gemm_parts])
        for m in SMALL_SIZES
        for n in SMALL_SIZES
        for k in SMALL_SIZES
    }
    works |= small
    kinds |= dict.fromkeys(small, "products")
    outside = layers(options.shapes)
    works |= {name: (["conv", *sizes], ["onednn", "sparkle"]) for name, sizes in outside.items()}
    kinds |= dict.fromkeys(outside, "shapes")
    works = {name: work for name, work in works.items() if options.only in name}
    say = lambda message: print(f"\r\033[K{message}", end="", file=sys.stderr, flush=True) if sys.stderr.isatty() else None
    stamp, about = datetime.datetime.now(), machine(options)
    figures = measure(works, drivers, threads, options.rounds, options.seconds, say)
    say("")
    for driver in drivers.values():
        driver.close()

    tables, summary = {}, []
    for what, tabulate in (("conv2d", convolutions), ("sgemm", products), ("products", small_products), ("shapes", shapes)):
        names = [name for name in works if kinds[name] == what]
        if names:
            tables[what], figures_of = tabulate(figures, names, threads)
            summary += figures_of
    verdicts = [["figure", "measured", "at least", "", "where"]]
    for name, got, aim, where in summary:
        aimed = ["", ""] if aim is None else [f"{aim:.2f}", "" if got >= aim else "below"]
        verdicts.append([name, f"{got:.3f}", *aimed, where])
    parts = [f"{stamp:%Y-%m-%d %H:%M}: {about}"]
    parts += [table([[text(cell) for cell in row] for row in rows]) for rows in tables.values()] + [table(verdicts)]
    report = "\n\n".join(parts) + "\n"
    print(report, end="")
    if options.record:
        tables["summary"] = verdicts
        record(options.record, f"{stamp:%Y-%m-%d-%H%M}-peers-{threads}t", report, tables)


if __name__ == "__main__":
    main()
