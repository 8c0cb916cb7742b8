"""Compares Sparkle with PyTorch's conv2d on the CPU in one run, on a machine with PyTorch:

    python3 compare_pytorch.py --sparkle DRIVER --threads T [--rounds R] [--seconds S] [--suite FILE] [--record FOLDER]

DRIVER is the release build of the example `bench_driver`. compare.py explains the method.
"""

import argparse
import datetime
import pathlib
import sys
from statistics import geometric_mean

from compare import HERE, Driver, layers, machine, measure, record, table, text


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--sparkle", required=True, type=pathlib.Path, help="the release build of bench_driver")
    parser.add_argument("--suite", default=HERE.parent / "suite.csv", type=pathlib.Path)
    parser.add_argument("--threads", default=1, type=int)
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--seconds", default=0.2, type=float, help="timed calls of one figure in one round")
    parser.add_argument("--record", help="a folder for dated files")
    options = parser.parse_args()
    threads = options.threads
    drivers = {
        "pytorch": Driver([sys.executable, HERE / "pytorch_conv.py"], threads),
        "sparkle": Driver([options.sparkle.resolve()], threads),
        "one thread": Driver([options.sparkle.resolve()], 1),
    }
    works = {name: (["conv", *sizes], list(drivers)) for name, sizes in layers(options.suite).items()}
    stamp, about = datetime.datetime.now(), machine(options)
    say = lambda message: print(f"\r\033[K{message}", end="", file=sys.stderr, flush=True) if sys.stderr.isatty() else None
    figures = measure(works, drivers, threads, options.rounds, options.seconds, say)
    say("")
    for driver in drivers.values():
        driver.close()

    head = ["layer", "pytorch", "sparkle call", "sparkle prepacked", "sparkle, one thread", "call/pytorch"]
    head += ["prepacked/pytorch", "threads/one", "kernel"]
    rows = []
    for name in works:
        of = lambda driver, key: figures.of(name, driver, key)
        rates = [of("pytorch", "call"), of("sparkle", "call"), of("sparkle", "prepacked"), of("one thread", "prepacked")]
        ratios = [rates[1] / rates[0], rates[2] / rates[0], rates[2] / rates[3]]
        rows.append([name, *rates, *ratios, of("sparkle", "kernel")])
    rows.append(["geomean", *(geometric_mean(row[column] for row in rows) for column in range(1, 8)), ""])
    report = f"{stamp:%Y-%m-%d %H:%M}: {about}\n\n" + table([[text(cell) for cell in row] for row in [head, *rows]]) + "\n"
    print(report, end="")
    if options.record:
        record(options.record, f"{stamp:%Y-%m-%d-%H%M}-pytorch-{threads}t", report, {"conv2d": [head, *rows]})


if __name__ == "__main__":
    main()
