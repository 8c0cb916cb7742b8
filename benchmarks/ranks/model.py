"""The scaling of convolutions over ranks on paper: efficiency of each distribution over the layers of suite.csv.

A rank computes at RATE; a message of b bytes takes ALPHA + b / BETA. Messages of ROWS travel while the inner rows are computed. In
the last column rank 0 scatters the input and gathers the output. Prints the table of docs/devices.md: python3 benchmarks/ranks/model.py
"""

import csv
import math
import pathlib

RATE = 1e12
NETWORKS = [("2 us, 25 GB/s", 2e-6, 25e9), ("10 us, 1.25 GB/s", 10e-6, 1.25e9), ("20 ms, 0.125 GB/s", 20e-3, 0.125e9)]


def layers():
    path = pathlib.Path(__file__).parent.parent / "suite.csv"
    with path.open() as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            yield {key: int(value) for key, value in row.items() if key != "name"}


def largest(units, ranks):
    return math.ceil(units / ranks)


def efficiencies(layer, images, ranks, alpha, beta):
    c, h, w, k, r, stride, pad = (layer[key] for key in ("C", "H", "W", "K", "kernel", "stride", "pad"))
    p, q = (h + 2 * pad - r) // stride + 1, (w + 2 * pad - r) // stride + 1
    alone = 2 * images * k * p * q * c * r * r / RATE
    ideal = alone / ranks
    batch = alone * largest(images, ranks) / images
    share = largest(p, ranks) / p
    edge = min(share, 2 * pad / stride / p)
    halo = 2 * alpha + 4 * images * c * w * max(r - stride, 0) / beta
    rows = max(alone * (share - edge), halo if r > stride else 0) + alone * edge
    gather = (ranks - 1) * alpha + 4 * images * c * h * w * (ranks - 1) / ranks / beta
    channels = alone * largest(k, ranks) / k + gather
    moved = 4 * images * (c * h * w + k * p * q) * (ranks - 1) / ranks
    root = alone * min(share, largest(images, ranks) / images) + 2 * (ranks - 1) * alpha + moved / beta
    return [ideal / time for time in (batch, rows, channels, root)]


def main():
    suite = list(layers())
    print("| network | images, ranks | batch | rows | channels | data on rank 0 |\n| --- | --- | --- | --- | --- | --- |")
    for name, alpha, beta in NETWORKS:
        for images, ranks in [(1, 4), (32, 8)]:
            all_layers = [efficiencies(layer, images, ranks, alpha, beta) for layer in suite]
            means = [math.exp(sum(math.log(value) for value in column) / len(suite)) for column in zip(*all_layers)]
            print(f"| {name} | {images}, {ranks} | " + " | ".join(f"{mean:.2f}" for mean in means) + " |")


if __name__ == "__main__":
    main()
