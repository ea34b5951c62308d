"""docs/PERFORMANCE.md: written from the results file, and from nothing else."""

from __future__ import annotations

from ami_engine.bench.kernels import KERNELS
from ami_engine.bench.results import CaseResult, RatioResult, Results

__all__ = ["render_page"]

_HEAD = """\
# Performance

This page is written by `ami bench --write-docs` from benchmarks/results.json. Do not edit it.

## Reasons to distrust it

- It was measured by the people who want it to be fast, on one machine, named below. Yours differs: run `ami bench
  --peers` and believe that.
- The input is synthetic: one symbol near 60 000, spreads of one to five ticks, depths that rarely repeat. Quantiles,
  order books and message sizes cost otherwise on other data.
- Only ratios are claimed. Absolute times move by a factor of two between runs of a shared machine; the two sides of a
  ratio ran interleaved, in one process, on one core, with the garbage collector off, and the median of the rounds is
  what is told. The quartiles beside it say how far to trust it.
- A neighbour on the same core slows one side of a ratio more than the other (whatever runs much code, by half again).
  So a fixed loop is timed beside every sample, and samples beside which it took over 20 % longer than at best are taken
  again for as long as patience lasts, whatever their figures were. "Quiet samples" below says how many were had. A
  process of yours may have such a neighbour all the time.
- Caches are warm and nothing else runs between two events. In a live process every event finds colder caches.
- Peers do other work in the same time: bottleneck and polars compute eight rolling columns of a finished table, the
  engine all its features with every event checked, in an order in which it could also have come live. Who needs only
  one rolling column of a finished table is served best by them. Peers' moments drift (bottleneck) or are of a sample
  (screamer); their answers are checked against NumPy's all the same, to what they can keep.
- No network, no real venue and no slow disk is in any of these figures.
- Every case asserts its answer before it is timed: a figure stands for a right answer, not for a useful one.
"""

_SCALES = {
    "quick": "A quick run, few rounds over little input: it shows orders of magnitude.",
    "full": "A full run.",
    "tiny": "A run at the scale of the tests: its times mean nothing.",
}


# What is known of the claims whose reach is missed, told while it is.
_WHY = {
    "compiled / batch row": (
        "Of some 1 690 instructions a row 1 080 are the features', the rest: reading the row 55; reference model "
        "90; guards 90; counting and context 110; matching 25; seeing that no order changes 40; orders 100 and "
        "fills 85, for 0.1 and 0.044 of them a row; where money stands still 25. Before, it was 1 980 with the same"
        " features. Most of what is left above the count is jumps that nobody can predict, at each row in which "
        "something happens. Tried and kept: money that lags while it decides nothing, no places in queues where "
        "nothing asks for them, decimals read at the places of the grid, no branch in the model. Tried and "
        "taken back: fills in whole ticks and lots, which a partial close of a mixed position leaves. "
        "Beside a busy neighbour on the core it is 1.8 to 2.0: 50 KiB of code pass through a 32 KiB cache, some 15 "
        "lines of 64 bytes a row are fetched anew (callgrind), and loops that are small lose less."
    ),
    "batch / bottleneck": (
        "An event costs 1 050 instructions (1 216 before windows kept their samples and one exact sum); the ratio "
        "moves by more than what is missing between two runs of one machine, because the two sides wait for "
        "different parts of the processor. By count the core is bound by the instructions it can take in. Tried: "
        "wider vectors (4 % fewer instructions, not worth two builds), square roots and divisions in pairs, jumps "
        "that nobody can predict taken out, the last ones of the maximum by blocks (5 ns a row, at as many "
        "instructions). Next: the depth quantile, which most of those left are in. On a host that is loud half of the "
        "time four full runs gave 0.883, 0.893, 0.9003 and 0.92, the group by itself in quieter minutes 0.876."
    ),
    **{
        f"journal {durability}, quiet step, µs": (
            "A quiet step runs the same bytecode with a journal as without (tests/loop/test_durable.py counts it), and "
            "nothing is opened or synced (tests/faults/test_syncs.py). Single pairs of runs without a journal differ "
            "by 0.4 µs too, by where things lie in memory, so that each round makes new pairs in both orders; the "
            "mean of 24 pairs is 0.12 ± 0.03 µs. What comes every 5 s and every 30 s shows in `safety.spread`."
        )
        for durability in ("full", "normal", "off")
    },
}


def render_page(results: Results) -> str:
    """Return the page as Markdown."""
    parts = [
        _HEAD,
        _machine(results),
        _claims(results),
        *_reasons(results),
        _kernels(results),
        _cases(results),
    ]
    return "\n".join(parts)


def _machine(results: Results) -> str:
    rows = [f"| {name} | {value} |" for name, value in results.machine.items()]
    return "\n".join(
        [
            "## Where and how",
            "",
            f"Command: `{results.command}`. {_SCALES[results.scale]}",
            "",
            "| what | value |",
            "|---|---|",
            *rows,
            "",
        ]
    )


def _claims(results: Results) -> str:
    rows = [
        f"| {ratio.claim} | {_number(ratio.value)} | {_range(ratio)} | {_bound(ratio.reach)} | {_bound(ratio.aim)} "
        f"| {ratio.verdict} |"
        for name, ratio in results.ratios.items()
        if not name.startswith("kernel ")
    ]
    return "\n".join(
        [
            "## Ratios",
            "",
            "Times of one side over times of the other, or a figure of its own where the text gives a unit. At most",
            "`reach` is what a release must show, past `aim` what it is tuned for; `–` claims nothing.",
            "",
            "| what | measured | quartiles | reach | aim | verdict |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _reasons(results: Results) -> list[str]:
    rows = [
        f"- *{ratio.claim}*: {_WHY[name]}"
        for name, ratio in results.ratios.items()
        if ratio.verdict == "missed" and name in _WHY
    ]
    return ["\n".join(["## Where the reach is missed", "", *rows, ""])] if rows else []


def _kernels(results: Results) -> str:
    rows = []
    for row, (kernel, window, column) in KERNELS.items():
        figures = [results.cases.get(f"kernels.{row}.{engine}") for engine in ("native", "numba", "bottleneck")]
        ratio = results.ratios.get(f"kernel {row}: native / numba")
        what = f"{kernel} of {column}" + (f", {window}" if window > 1 else "")
        cells = " | ".join(_number(case.median) if case else "–" for case in figures)
        rows.append(f"| {what} | {cells} | {_number(ratio.value) if ratio else '–'} | {_winner(ratio)} |")
    return "\n".join(
        [
            "## Kernels: native against numba",
            "",
            "ns per value, each kernel alone in a loop over one column. A compiled kernel in C++ and one that numba",
            "compiles are both machine code: where numba wins, it says so here.",
            "",
            "| kernel, window | native | numba | bottleneck | native / numba | faster |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _winner(ratio: RatioResult | None) -> str:
    if ratio is None or ratio.low is None or ratio.high is None:
        return "–"
    if ratio.high < 1.0:
        return "native"
    return "numba" if ratio.low > 1.0 else "even"


def _cases(results: Results) -> str:
    lines = [
        "## Every case",
        "",
        "| case | what | median | quartiles | unit | rounds |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {case.measures} | {_figure(case)} | {_range(case)} | {case.unit} | {case.rounds} |"
        for name, case in results.cases.items()
    ]
    return "\n".join([*lines, ""])


def _figure(case: CaseResult) -> str:
    if case.wrong:
        return f"wrong answer: {case.wrong}"
    return _number(case.median) if case.median is not None else case.failed or case.skipped


def _range(result: CaseResult | RatioResult) -> str:
    if result.low is None or result.high is None:
        return "–"
    return f"{_number(result.low)} … {_number(result.high)}"


def _bound(bound: float) -> str:
    return f"{bound:g}" if bound else "–"


def _number(value: float | None) -> str:
    """Return three digits of a figure, more where they stand before the point.

    >>> _number(1234.5), _number(99.46), _number(0.12345), _number(None)
    ('1 234', '99.5', '0.123', '–')
    """
    if value is None:
        return "–"
    return f"{value:,.0f}".replace(",", " ") if abs(value) >= 1_000 else f"{value:.3g}"
