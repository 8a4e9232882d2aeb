"""Compaction beside peers and floors, and streams of commits: `python -m benches.compaction`. README.md says more."""

import argparse
import json
import signal
import sys
import time
from pathlib import Path

from benches.compactions import Compactions
from benches.compare import machine
from benches.data import ROOT
from benches.engines import engines
from benches.stream import stream
from benches.trial import Settings

ALL = ("small", "zorder", "copy", "masked", "stream")


def main() -> None:
    """Measures, prints, and writes target/bench/compaction.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(ALL), help="some of small, zorder, copy, masked, stream, by comma")
    parser.add_argument("--lake", type=Path, default=ROOT / "target" / "release" / "lake")
    parser.add_argument("--sf", type=float, default=1, help="TPC-H scale factor of small and zorder")
    parser.add_argument("--pairs", type=int, default=7, help="rounds of small and copy, which have peers or a floor")
    parser.add_argument("--runs", type=int, default=3, help="rounds of zorder and masked; half of those of show")
    parser.add_argument("--commits", type=int, default=2_000, help="commits of stream")
    parser.add_argument("--limit", type=float, default=600, help="seconds after which an operation is stopped")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    if not options.lake.exists():
        sys.exit(f"{options.lake} is not there: build it, or name another with --lake")
    wanted = options.only.split(",")
    for name in wanted:
        if name not in ALL:
            sys.exit(f"there is no {name}; there are {', '.join(ALL)}")
    if options.commits < 20:
        sys.exit("--commits: a tenth of fewer than 20 commits says nothing")

    lake = options.lake.resolve()
    settings = Settings(
        lake, engines(lake), options.sf, options.runs, options.pairs, options.commits, options.limit
    )  # fmt: skip
    compactions = Compactions(settings)
    parts = {"small": compactions.small, "zorder": compactions.zorder, "copy": compactions.copies}
    parts |= {"masked": compactions.masked, "stream": lambda: stream(settings)}
    result = {"about": machine(lake), "sf": options.sf, "trials": []}
    place = ROOT / "target" / "bench" / "compaction.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    noisy = all_runs = 0
    try:
        for name in ALL:
            if name not in wanted:
                continue
            start = time.perf_counter()
            print(name, end=" ", file=sys.stderr, flush=True)
            trial = parts[name]()
            print(f" {time.perf_counter() - start:.0f} s", file=sys.stderr)
            # After each, so that a long run that is stopped has not been for nothing.
            result["trials"].append(trial.record())
            place.write_text(json.dumps(result, indent=1))
            print(trial.page(), end="\n\n", flush=True)
            company, runs = trial.noisy()
            noisy, all_runs = noisy + company, all_runs + runs
    finally:
        compactions.close()
    print(f"{noisy} of {all_runs} runs had company: other processes took over a tenth of the processors meanwhile.")


if __name__ == "__main__":
    main()
