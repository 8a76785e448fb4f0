"""Generate the page "Performance" and its chart from `results.json`: `python -m benchmarks.page`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks import start
from benchmarks.run import RESULTS, ROOT, WORK, Work

PAGE = ROOT / "docs" / "performance.md"
TEMPLATE = ROOT / "benchmarks" / "page.md"
CHART = ROOT / "docs" / "assets" / "performance"

DARK_CHART = ROOT / "docs" / "assets" / "performance-dark.svg"

DARK = {
    "#ffffff": "none",
    "#0f172a": "#e2e8f0",
    "#334155": "#cbd5e1",
    "#64748b": "#94a3b8",
    "#94a3b8": "#64748b",
    "#cbd5e1": "#475569",
    "#0d9488": "#2dd4bf",
}
"""Colors of the chart, and what they are on a dark page."""

LABELS = {
    "vllmchat": "vllmchat",
    "openai": "openai",
    "openai_aiohttp": "openai over aiohttp",
    "litellm": "litellm",
    "httpx": "bare httpx",
    "aiohttp": "bare aiohttp",
}
COLORS = {
    "vllmchat": "#0d9488",
    "openai": "#64748b",
    "openai_aiohttp": "#94a3b8",
    "litellm": "#a8a29e",
    "httpx": "#cbd5e1",
    "aiohttp": "#cbd5e1",
}
CHUNKS = ("burst", "aburst", "burst_events", "aburst_events", "logprobs", "paced", "spread")
REPLIES = ("reply", "areply", "fanout_512", "fanout_2000", "wave", "threads")
JOB_LABELS = {
    "vllmchat": "vllmchat `run_job`, written to disk",
    "vllmchat_map": "vllmchat `map`",
    "vllmchat_achat": "vllmchat `achat`, 512 tasks",
    "flexllm": "flexllm `chat_batch`, written to disk",
    "litellm": "litellm, semaphore",
    "openai": "openai, semaphore",
}
BY_KEY = {work.key: work for work in WORK}


def number(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def rows(results: dict[str, Any], keys: tuple[str, ...], *, wall: bool) -> list[str]:
    """A table with a row for each kind of work and a column for each client."""
    lines = ["| | " + " | ".join(LABELS.values()) + " |", "|---|" + "---:|" * len(LABELS)]
    for key in keys:
        work, found = BY_KEY[key], results["work"].get(key)
        if found is None:
            continue
        cells = []
        for client in LABELS:
            if client not in found:
                cells.append("")
                continue
            cell = number(found[client]["cpu"])
            if wall and work.ideal:
                cell += f" ({found[client]['wall']:.1f} s)"
            best = found[client]["cpu"] == min(each["cpu"] for each in found.values())
            cells.append(f"**{cell}**" if best else cell)
        title = work.title + (f" (at best {work.ideal:g} s)" if wall and work.ideal else "")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def ahead(results: dict[str, Any]) -> list[str]:
    """Where other clients are faster, as list items."""
    lines = []
    for key in (*CHUNKS, *REPLIES):
        found = results["work"].get(key, {})
        ours = found.get("vllmchat")
        if ours is None:
            continue
        better = [
            f"{LABELS[client]} uses {each['cpu'] / ours['cpu']:.2f} times the CPU time of vllmchat"
            for client, each in found.items()
            if each["cpu"] < ours["cpu"]
        ]
        work: Work = BY_KEY[key]
        if work.ideal:
            better += [
                f"{LABELS[client]} finishes in {each['wall']:.1f} s, vllmchat in {ours['wall']:.1f} s"
                for client, each in found.items()
                if each["wall"] < ours["wall"] * 0.97
            ]
        if better:
            title = work.title if "The same" not in work.title else f"{work.key.lstrip('a')}, async"
            lines.append(f"- {title}: {'; '.join(better)}.")
    job = results["work"].get("job", {})
    lines += [
        f"- Many prompts: {JOB_LABELS[client]} does {each['rate']:,.0f} per second, "
        f"vllmchat's `run_job` {job['vllmchat']['rate']:,.0f}."
        for client, each in job.items()
        if not client.startswith("vllmchat") and each["rate"] > job["vllmchat"]["rate"]
    ]
    alone = results.get("start", {}).get("dependencies only", results)
    first = {name: each for name, each in alone["first_reply_ms"].items() if name in LABELS}
    lines += [
        f"- From process start to the first reply: {LABELS[client]} with pydantic uses "
        f"{each / first['vllmchat']:.2f} times the CPU time of vllmchat."
        for client, each in first.items()
        if each < first["vllmchat"]
    ]
    lines += [
        f"- Real server, {concurrency} at once: {LABELS.get(client, client)} reads "
        f"{each['tokens_per_second']:,} tokens per second, vllmchat {clients['vllmchat']['tokens_per_second']:,}."
        for concurrency, clients in results.get("real", {}).items()
        for client, each in clients.items()
        if each["tokens_per_second"] > clients["vllmchat"]["tokens_per_second"]
    ]
    return lines


REPLIES_OF = {
    "vllmchat": "vllmchat",
    "vllmchat with parameters": "vllmchat, with parameters",
    "httpx": "httpx with pydantic",
    "openai": "openai",
}


def starts(results: dict[str, Any]) -> list[str]:
    """What a start costs, by environment."""
    places = {**results.get("start", {}), "with all clients": results}
    lines = [
        "| CPU time from process start, in milliseconds | " + " | ".join(places) + " |",
        "|---|" + "---:|" * len(places),
    ]

    def row(title: str, kind: str, name: str) -> str:
        cells = [f"{place[kind][name]:.0f}" if name in place[kind] else "" for place in places.values()]
        return f"| {title} | {' | '.join(cells)} |"

    lines += [
        row(f"`{name}`" if "import" in name else name, "import_ms", name)
        for name in results["import_ms"]
        if name != "python"
    ]
    lines.append(row("the interpreter alone", "import_ms", "python"))
    lines += [
        row(f"to the first reply, with {title}", "first_reply_ms", name)
        for name, title in REPLIES_OF.items()
        if name in results["first_reply_ms"]
    ]
    opening = {"dependencies only": "With the dependencies only", "with trio": "With trio"}
    for name, place in results.get("start", {}).items():
        shares = start.ratios(place)
        lines.append("")
        lines.append(
            f"{opening[name]}, vllmchat takes {shares['import']:.2f} times what httpx and pydantic take to "
            f"import, {shares['first reply']:.2f} times to the first reply, and "
            f"{shares['first reply with parameters']:.2f} times if the call has parameters. pydantic with the three "
            f"models of that program takes {shares['floor']:.2f} times as long: any client with its models takes more."
        )
    return lines


def growth(results: dict[str, Any]) -> list[str]:
    work = results["work"]
    lines = ["| | CPU time each, µs | process memory |", "|---|---:|---:|"]
    chunks = ("growth_100", "growth_2000", "growth_20000", "growth_200000")
    for key in (*chunks, "fanout_64", "fanout_512", "fanout_2000"):
        if key in work:
            ours = work[key]["vllmchat"]
            lines.append(f"| {BY_KEY[key].title} | {number(ours['cpu'])} | {ours['rss'] / 1e6:.0f} MB |")
    peers = [
        f"{work[key]['openai']['rss'] / 1e6:.0f} MB {what}"
        for key, what in (
            ("long", "after a stream of 200,000 chunks"),
            ("fanout_2000", "with 2,000 replies in flight"),
        )
        if key in work
    ]
    return [*lines, "", f"For comparison, openai's process uses {', and '.join(peers)}."]


def jobs(results: dict[str, Any]) -> list[str]:
    found = results["work"].get("job")
    if not found:
        return ["Not measured in this run."]
    lines = ["| | prompts per second | CPU time each, µs |", "|---|---:|---:|"]
    lines += [
        f"| {JOB_LABELS[client]} | {each['rate']:,.0f} | {number(each['cpu'])} |"
        for client, each in found.items()
    ]
    return lines


def job_memory(results: dict[str, Any]) -> list[str]:
    works = [work for work in WORK if work.name == "job" and work.once and work.key in results["work"]]
    if not works:
        return ["Not measured in this run."]
    lines = ["| process memory | " + " | ".join(work.title for work in works) + " |"]
    lines.append("|---|" + "---:|" * len(works))
    for client in works[0].clients:
        cells = [f"{results['work'][work.key][client]['rss'] / 1e6:.0f} MB" for work in works]
        lines.append(f"| {JOB_LABELS[client]} | {' | '.join(cells)} |")
    return lines


def real(results: dict[str, Any]) -> list[str]:
    found = results.get("real")
    if not found:
        return ["Not measured in this run."]
    lines = ["| | first token | tokens per second |", "|---|---:|---:|"]
    for concurrency, clients in found.items():
        for client, each in clients.items():
            lines.append(
                f"| {concurrency} at once, {LABELS.get(client, client)} | {each['first_ms']:.1f} ms | "
                f"{each['tokens_per_second']:,} |"
            )
    return lines


def page(results: dict[str, Any]) -> str:
    return TEMPLATE.read_text().format(
        date=results["date"],
        machine=results["machine"],
        load=results["load"],
        python=results["python"],
        repeats=results["repeats"],
        versions=", ".join(f"{name} {version}" for name, version in results["versions"].items()),
        chunks="\n".join(rows(results, CHUNKS, wall=True)),
        replies="\n".join(rows(results, REPLIES, wall=True)),
        ahead="\n".join(ahead(results) or ["- Nowhere in this run."]),
        starts="\n".join(starts(results)),
        growth="\n".join(growth(results)),
        jobs="\n".join(jobs(results)),
        job_memory="\n".join(job_memory(results)),
        real="\n".join(real(results)),
    )


def chart(results: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    # The same numbers give the same file.
    matplotlib.rcParams["svg.hashsalt"] = "vllmchat"
    matplotlib.rcParams["svg.fonttype"] = "none"
    matplotlib.rcParams["font.family"] = "sans-serif"
    panels: list[tuple[str, dict[str, float]]] = []
    for key, title in (
        ("aburst", "A fast stream: CPU µs per chunk"),
        ("spread", "256 streams at once: CPU µs per chunk"),
        ("areply", "Whole replies: CPU µs per reply"),
        ("fanout_2000", "2,000 replies in flight: seconds (at best 1.5)"),
    ):
        found = results["work"].get(key, {})
        field = "wall" if key == "fanout_2000" else "cpu"
        panels.append((title, {client: each[field] for client, each in found.items()}))
    starts_ = {
        "vllmchat": "from vllmchat import VLLMProvider",
        "openai": "import openai",
        "litellm": "import litellm",
    }
    imports = {client: results["import_ms"][name] for client, name in starts_.items()}
    imports["httpx"] = results["import_ms"]["import httpx, pydantic"]
    panels.append(("Import: CPU ms", imports))
    first = {client: each for client, each in results["first_reply_ms"].items() if client in LABELS}
    panels.append(("From process start to the first reply: CPU ms", first))
    figure, axes = pyplot.subplots(3, 2, figsize=(11, 8.6), layout="constrained")
    for axis, (title, values) in zip(axes.flat, panels, strict=True):
        clients = [client for client in LABELS if client in values]
        labels = [
            LABELS[client] + (" + pydantic" if client == "httpx" and "µs" not in title else "")
            for client in clients
        ]
        bars = axis.barh(labels, [values[client] for client in clients], color=[COLORS[c] for c in clients])
        axis.bar_label(
            bars,
            labels=[f"{values[c]:,.1f}" if values[c] < 100 else f"{values[c]:,.0f}" for c in clients],
            padding=4,
            fontsize=9,
            color="#334155",
        )
        axis.set_title(title, loc="left", fontsize=11, fontweight="bold", color="#0f172a")
        axis.invert_yaxis()
        axis.set_xlim(0, max(values.values()) * 1.16)
        axis.xaxis.set_visible(False)
        axis.tick_params(axis="y", length=0, labelsize=9, labelcolor="#334155")
        for side in ("top", "right", "bottom"):
            axis.spines[side].set_visible(False)
        axis.spines["left"].set_color("#cbd5e1")
    figure.supxlabel(
        f"lower is better · {results['date']} · {results['machine']} · Python {results['python']} · "
        f"openai {results['versions']['openai']}, litellm {results['versions']['litellm']}, "
        f"aiohttp {results['versions']['aiohttp']}",
        fontsize=8,
        color="#64748b",
    )
    CHART.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(CHART.with_suffix(".svg"), metadata={"Date": None}, facecolor="white")
    figure.savefig(CHART.with_suffix(".png"), dpi=130, facecolor="white")
    svg = CHART.with_suffix(".svg")
    drawn = "\n".join(line.rstrip() for line in svg.read_text().splitlines()) + "\n"
    svg.write_text(drawn)
    DARK_CHART.write_text(dark(drawn))


def dark(svg: str) -> str:
    """The chart for a dark page."""
    return re.sub("|".join(DARK), lambda color: DARK[color[0]], svg)


def main() -> None:
    results: dict[str, Any] = json.loads(RESULTS.read_text())
    PAGE.write_text(page(results))
    chart(results)
    for path in (PAGE, CHART.with_suffix(".svg"), DARK_CHART, CHART.with_suffix(".png")):
        print(f"written: {Path(path).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
