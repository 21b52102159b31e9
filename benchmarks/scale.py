"""What scoring of many images takes, from measured rates and a simulation of what goes wrong.

    python benchmarks/scale.py

Prints the tables of docs/scale.md. A job is a queue of shards and a number of workers. Some shards
are slow (stragglers), and workers die; then their shard is done again, and another worker starts
after a pause. Nothing is run, so it takes seconds.
"""

import heapq
import itertools

import numpy as np

# Measured on two cores (AMD EPYC), see docs/scale.md for where; images/s of one core.
RATES = {"small images (28x28, capsnet)": 500, "photographs (1,000 px, capsnet on MobileNet)": 40}
# Bytes of an image: as input, and its scores as Parquet.
BYTES = {
    "small images (28x28, capsnet)": (400, 72),
    "photographs (1,000 px, capsnet on MobileNet)": (150_000, 72),
}
COUNTS = (10**7, 10**9, 10**11)
CORE_HOUR, TERABYTE_MONTH = 0.04, 23.0  # dollars
HOURS = 8  # of the job, for the number of cores

STRAGGLERS, SLOWER = 0.01, 5  # share of the shards that take so many times as long
DEATHS = 0.01  # per worker and hour
PAUSE = 120.0  # seconds until another worker is there
SPREAD = 0.1  # standard deviation of the logarithm of a shard's time


def simulate(shards: int, workers: int, seconds: float, generator: np.random.Generator) -> float:
    """Time of a job over that of the same work without any trouble and perfectly divided.

    Args:
        shards: number of shards.
        workers: number of workers.
        seconds: time of an ordinary shard.
        generator: draws the trouble.
    """
    times = seconds * np.exp(SPREAD * generator.standard_normal(shards))
    times[generator.random(shards) < STRAGGLERS] *= SLOWER
    waiting = list(times[::-1])
    free = [(0.0, worker) for worker in range(workers)]
    dies = generator.exponential(3600 / DEATHS, workers)
    end = 0.0
    while waiting:
        now, worker = heapq.heappop(free)
        time = waiting.pop()
        if now + time > dies[worker]:
            waiting.append(time)
            now = max(now, dies[worker]) + PAUSE
            dies[worker] = now + generator.exponential(3600 / DEATHS)
            heapq.heappush(free, (now, worker))
            continue
        end = max(end, now + time)
        heapq.heappush(free, (now + time, worker))
    return end / (shards * seconds / workers)


def costs() -> list[str]:
    """Rows of a Markdown table: cores for a job of `HOURS`, storage and money."""
    lines = [
        f"| images | core hours | cores for {HOURS} h | compute | input | scores | "
        "storage a month |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for (kind, rate), count in itertools.product(RATES.items(), COUNTS):
        hours = count / rate / 3600
        given, written = (count * size / 1e12 for size in BYTES[kind])
        lines.append(
            f"| {count:.0e} {kind} | {hours:,.0f} | {max(1, round(hours / HOURS)):,} | "
            f"${hours * CORE_HOUR:,.0f} | {given:,.3g} TB | {written:,.3g} TB | "
            f"${(given + written) * TERABYTE_MONTH:,.0f} |"
        )
    return lines


def trouble() -> list[str]:
    """Rows of a Markdown table: time over the ideal, by shards for each worker and their length."""
    lengths = (10, 60, 600, 3600)
    lines = [
        "| shards for each worker | " + " | ".join(f"{s:,} s a shard" for s in lengths) + " |",
        "|---|" + "---:|" * len(lengths),
    ]
    for each in (1, 3, 10, 100):
        cells = []
        for seconds in lengths:
            generator = np.random.default_rng(0)
            runs = [simulate(each * 1000, 1000, seconds, generator) for _ in range(5)]
            cells.append(f"{np.mean(runs):.2f}")
        lines.append(f"| {each} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Prints both tables."""
    print("\n".join([*costs(), "", *trouble()]))


if __name__ == "__main__":
    main()
