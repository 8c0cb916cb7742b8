#!/usr/bin/env python3
"""Draws docs/images/gflops-{cpu,gpu}.svg: effective GFLOPS per layer beside peers and the multiply-add ceiling, from recorded results.

    python3 benchmarks/plot.py [--out docs/images]

It needs nothing but Python. The records are named in PLOTS, and each drawing names its record, machine and date.
"""

import argparse
import csv
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
WIDTH, HEIGHT = 960, 330
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 62, 92


def cpu(record):
    """Layers, series and ceiling of a table that `make bench-peers RECORD=1` wrote."""
    with open(HERE / record, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["layer"] != "geomean"]
    columns = [("oneDNN", "onednn prepacked"), ("ncnn", "ncnn"), ("Sparkle", "sparkle prepacked")]
    series = [(name, [float(row[column]) for row in rows]) for name, column in columns]
    ceilings = sorted(float(row["peak"]) for row in rows)
    return [row["layer"] for row in rows], series, ceilings[len(ceilings) // 2]


def gpu(record):
    """The same of a text that `compare_gpu.py` printed."""
    lines = (HERE / record).read_text().splitlines()
    head = next(at for at, line in enumerate(lines) if line.startswith("layer "))
    rows = []
    for line in lines[head + 1 :]:
        if line.startswith("geomean"):
            break
        rows.append(line.split())
    ceiling = next(float(line.split()[-1]) for line in lines if line.startswith("multiply-adds"))
    series = [("cuDNN", [float(row[1]) for row in rows]), ("Sparkle", [float(row[2]) for row in rows])]
    return [row[0] for row in rows], series, ceiling


PLOTS = {
    "gflops-cpu.svg": (
        cpu,
        "2026-11-28-0258-peers-1t-conv2d.csv",
        "One core of an AMD EPYC (Zen 5), batch 1, weights packed once, 2026-11-28",
    ),
    "gflops-gpu.svg": (
        gpu,
        "2026-11-28-nvidia-h200/gpu-1429-batch32.txt",
        "NVIDIA H200, batch 32, strict fp32, nothing tuned, 2026-11-28",
    ),
}
COLOURS = {"oneDNN": "#9aa5b1", "ncnn": "#cfd6dd", "cuDNN": "#9aa5b1", "Sparkle": "#d9480f"}


def step(largest):
    """A round distance between lines of the scale, of which there are four to eight."""
    for power in (10**exponent for exponent in range(9)):
        for factor in (1, 2, 5):
            if largest / (factor * power) <= 6:
                return factor * power
    raise ValueError(largest)


def draw(title, record, layers, series, ceiling):
    """The plot as SVG."""
    largest = max(ceiling, *(value for _, values in series for value in values))
    scale = step(largest)
    top = -(-largest // scale) * scale
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def y(value):
        return TOP + inner_height * (1 - value / top)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="15" font-weight="bold">Effective GFLOPS per layer: {title}</text>',
    ]
    x = LEFT
    for name, _ in series:
        out.append(f'<rect x="{x}" y="33" width="12" height="12" fill="{COLOURS[name]}"/>')
        out.append(f'<text x="{x + 17}" y="43">{name}</text>')
        x += 80
    out.append(f'<path d="M{x} 39h24" stroke="black" stroke-dasharray="5 3"/>')
    out.append(
        f'<text x="{x + 30}" y="43">multiply-add ceiling, {ceiling:,.0f} '
        f"(effective: operations of the direct algorithm, of which Winograd makes fewer)</text>"
    )
    for tick in range(int(top / scale) + 1):
        value = tick * scale
        out.append(f'<path d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}" stroke="#e5e8eb"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:,.0f}</text>')
    slot = inner_width / len(layers)
    bar = slot * 0.8 / len(series)
    for at, layer in enumerate(layers):
        begin = LEFT + slot * at + slot * 0.1
        for index, (name, values) in enumerate(series):
            value = values[at]
            out.append(
                f'<rect x="{begin + bar * index:.1f}" y="{y(value):.1f}" width="{bar:.1f}" '
                f'height="{y(0) - y(value):.1f}" fill="{COLOURS[name]}"><title>{layer}, {name}: {value:,.0f}</title></rect>'
            )
        middle = begin + slot * 0.4
        out.append(
            f'<text x="{middle:.1f}" y="{y(0) + 14:.1f}" text-anchor="end" '
            f'transform="rotate(-40 {middle:.1f} {y(0) + 14:.1f})">{layer}</text>'
        )
    out.append(
        f'<path d="M{LEFT} {y(ceiling):.1f}H{WIDTH - RIGHT}" stroke="black" stroke-dasharray="5 3" stroke-width="1.2"/>'
    )
    out.append(f'<text x="{LEFT}" y="{HEIGHT - 8}" font-size="10" fill="#555">benchmarks/{record}</text>')
    return "\n".join(out + ["</svg>", ""])


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=pathlib.Path, default=HERE.parent / "docs" / "images")
    folder = arguments.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    for name, (read, record, title) in PLOTS.items():
        (folder / name).write_text(draw(title, record, *read(record)))


if __name__ == "__main__":
    main()
