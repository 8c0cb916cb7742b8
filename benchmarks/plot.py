#!/usr/bin/env python3
"""Draws from records: docs/images/gflops-{cpu,gpu}.svg, effective GFLOPS per layer beside peers and the multiply-add ceiling;
docs/images/shares.svg, the shares of the device `multi` as they are learned.

    python3 benchmarks/plot.py [--out docs/images]

It needs nothing but Python. The records are named in PLOTS and SHARES, and each drawing names its record.
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


# Written by SPARKLE_BLESS=1 cargo test --lib the_record_of_shares, a test of src/device/multi/learner_tests.rs.
SHARES = "shares.csv"
DEVICES = [("gpu_1", "GPU 1", "#0072b2"), ("gpu_2", "GPU 2", "#e69f00"), ("cpu", "CPU", "#009e73")]
# The calls in which the first device is slow.
SLOW = (60, 110)


def shares():
    """The plot of the learned shares as SVG: a line per device, dashed the best split, below it how far each call is from the best."""
    with open(HERE / SHARES, newline="") as file:
        rows = list(csv.DictReader(file))
    calls, units = len(rows), sum(int(rows[0][key]) for key, _, _ in DEVICES)
    width, left, right, top, high, gap, low = 960, 64, 12, 62, 200, 34, 80
    bottom = top + high + gap + low
    most = max(float(row["regret"]) for row in rows)
    most = -(-most // 0.5) * 0.5

    def x(call):
        return left + (width - left - right) * (call - 1) / calls

    def y(count):
        return top + high * (1 - count / units)

    def regret(value):
        return bottom - low * value / most

    def steps(values, place):
        """A horizontal line for each call."""
        path = f"M{x(1):.1f} {place(values[0]):.1f}"
        for call, value in enumerate(values, 1):
            path += f"V{place(value):.1f}H{x(call + 1):.1f}"
        return path

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 56}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{bottom + 56}" fill="white"/>',
        f'<text x="{left}" y="20" font-size="15" font-weight="bold">Images of each device, of {units} in a call (a model in virtual time)</text>',
        f'<rect x="{x(SLOW[0]):.1f}" y="{top}" width="{x(SLOW[1]) - x(SLOW[0]):.1f}" height="{bottom - top}" fill="#f1f3f5"/>',
        f'<text x="{x(SLOW[0]) + 6:.1f}" y="{top - 5}" fill="#555">GPU 1 has 0.4 of its speed</text>',
    ]
    at = left
    for _, name, colour in DEVICES:
        out.append(f'<rect x="{at}" y="33" width="12" height="12" fill="{colour}"/><text x="{at + 17}" y="43">{name}</text>')
        at += 80
    out.append(f'<path d="M{at} 39h24" stroke="black" stroke-dasharray="5 3"/>')
    out.append(f'<text x="{at + 30}" y="43">the best split at this moment</text>')
    for count in range(0, units + 1, units // 4):
        out.append(f'<path d="M{left} {y(count):.1f}H{width - right}" stroke="#e5e8eb"/>')
        out.append(f'<text x="{left - 6}" y="{y(count) + 4:.1f}" text-anchor="end">{count}</text>')
    for key, _, colour in DEVICES:
        best = [int(row["best_" + key]) for row in rows]
        out.append(f'<path d="{steps(best, y)}" fill="none" stroke="{colour}" stroke-dasharray="5 3"/>')
        learned = [int(row[key]) for row in rows]
        out.append(f'<path d="{steps(learned, y)}" fill="none" stroke="{colour}" stroke-width="2"/>')
    for value in (0, most):
        out.append(f'<path d="M{left} {regret(value):.1f}H{width - right}" stroke="#e5e8eb"/>')
        out.append(f'<text x="{left - 6}" y="{regret(value) + 4:.1f}" text-anchor="end">{100 * value:.0f}%</text>')
    losses = [float(row["regret"]) for row in rows]
    out.append(f'<path d="{steps(losses, regret)}" fill="none" stroke="#d9480f" stroke-width="1.5"/>')
    out.append(f'<text x="{left}" y="{bottom - low - 8}">How much longer than the best split the call takes</text>')
    for call in [1, *range(20, calls + 1, 20)]:
        middle = (x(call) + x(call + 1)) / 2
        out.append(f'<text x="{middle:.1f}" y="{bottom + 18}" text-anchor="middle">{call}</text>')
    out.append(f'<text x="{width - right}" y="{bottom + 36}" text-anchor="end">call</text>')
    out.append(f'<text x="{left}" y="{bottom + 48}" font-size="10" fill="#555">benchmarks/{SHARES}</text>')
    return "\n".join(out + ["</svg>", ""])


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=pathlib.Path, default=HERE.parent / "docs" / "images")
    folder = arguments.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    for name, (read, record, title) in PLOTS.items():
        (folder / name).write_text(draw(title, record, *read(record)))
    (folder / "shares.svg").write_text(shares())


if __name__ == "__main__":
    main()
