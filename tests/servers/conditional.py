"""Whether a server keeps the conditions of puts: fifty writers race to create each of many names, sixteen count to 25
each by compare-and-swap. `python tests/servers/conditional.py [--keys 200] [SERVER ..]` prints the verdicts.

A lake needs the first of them. The second is what a catalog that swaps a pointer in the store would need.
"""

import argparse
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

from install import BY_NAME
from running import NAMES, Server, running

WRITERS = 50
COUNTERS, STEPS = 16, 25

# What each server was found to do; `docs/storage.md` tells it to readers. A run that finds otherwise fails.
KEEPS_CREATES = {
    "minio": True,
    "versitygw": True,
    "s3rver": False,
    "fake-gcs-server": False,
    "fake-gcs-server (JSON)": True,
    "azurite": True,
}


@dataclass
class Verdict:
    """What was seen of one server."""

    keys: int
    statuses: Counter = field(default_factory=Counter)
    # Names by how many writers were told that they made it.
    winners: Counter = field(default_factory=Counter)
    # Names that hold another content than that of their only winner.
    others: int = 0
    again: bool = False
    after_delete: bool = False
    counted: int = 0
    acknowledged: int = 0
    seconds: float = 0.0

    @property
    def keeps_creates(self) -> bool:
        return self.winners == {1: self.keys} and not self.others and self.again and self.after_delete

    @property
    def keeps_swaps(self) -> bool:
        return self.counted == self.acknowledged == COUNTERS * STEPS

    def __str__(self) -> str:
        rights = f"creates {'right' if self.keeps_creates else 'WRONG'}"
        if not (self.again and self.after_delete):
            why = "a second create is not refused" if self.after_delete else "no create is done"
            return f"{rights}: {why} (statuses {_counts(self.statuses)})"
        swaps = (
            f"swaps {'right' if self.keeps_swaps else 'WRONG'}: {self.counted} after {self.acknowledged} acknowledged"
        )
        return (
            f"{rights}: one winner for {self.winners[1]} of {self.keys} names, {max(self.winners)} at most; "
            f"{self.others} hold what no sole winner wrote; statuses {_counts(self.statuses)}; "
            f"{swaps} of {COUNTERS * STEPS}; {self.seconds:.1f} s"
        )


def _counts(counter: Counter) -> str:
    return ", ".join(f"{n} x {status or 'no answer'}" for status, n in sorted(counter.items()))


def judge(client, keys: int) -> Verdict:
    """Races over one server, by a client of `wire.py`."""
    verdict = Verdict(keys)
    started = time.monotonic()
    alone = [client.put("alone", b"first", absent=True), client.put("alone", b"second", absent=True)]
    verdict.again = alone[1].status in (409, 412) and client.get("alone")[0].body == b"first"
    client.delete("alone")
    alone.append(client.put("alone", b"third", absent=True))
    verdict.after_delete = alone[2].ok and client.get("alone")[0].body == b"third"
    verdict.statuses = Counter(answer.status for answer in alone)
    if not (verdict.again and verdict.after_delete):
        # Two writers in turn are enough to lose a commit.
        return verdict

    won: list[list[bytes]] = [[] for _ in range(keys)]
    lock, together = threading.Lock(), threading.Barrier(WRITERS)

    def write(writer: int) -> None:
        content = f"writer {writer}; ".encode() * 50
        for key in range(keys):
            together.wait()
            answer = client.put(f"race/{key}", content, absent=True)
            with lock:
                verdict.statuses[answer.status] += 1
                if answer.ok:
                    won[key].append(content)

    verdict.statuses.clear()
    _side_by_side(WRITERS, write)
    verdict.winners = Counter(map(len, won))
    for key, contents in enumerate(won):
        verdict.others += contents != [client.get(f"race/{key}")[0].body]

    verdict.acknowledged = _count_up(client)
    counted = client.get("counter")[0]
    verdict.counted = int(counted.body) if counted.ok and counted.body.isdigit() else 0
    verdict.seconds = time.monotonic() - started
    return verdict


def _count_up(client) -> int:
    """How many increments were acknowledged; each is read, then put under the condition that nothing came between."""
    if not client.put("counter", b"0").ok:
        return 0
    acknowledged, lock = Counter(), threading.Lock()
    until = time.monotonic() + 60

    def count(_: int) -> None:
        done = 0
        while done < STEPS and time.monotonic() < until:
            found, tag = client.get("counter")
            if not found.ok:
                continue
            # A server that writes in place shows empty bodies.
            number = int(found.body or b"0") + 1
            if client.put("counter", str(number).encode(), tag=tag).ok:
                done += 1
                with lock:
                    acknowledged["all"] += 1

    _side_by_side(COUNTERS, count)
    return acknowledged["all"]


def _side_by_side(threads: int, work: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))


def ways(server: Server) -> dict[str, object]:
    """The interfaces of a server by which objects are created: the one that `lake` uses under the server's name."""
    if server.cloud != "google":
        return {server.name: server.client()}
    return {server.name: server.client(), f"{server.name} (JSON)": server.client(xml=False)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--keys", type=int, default=200, help="names that are raced for [default: 200]")
    parser.add_argument("servers", nargs="*", default=NAMES)
    asked = parser.parse_args()
    wrong = []
    for name in asked.servers:
        for way in (name, f"{name} (JSON)"):
            if way not in KEEPS_CREATES:
                continue
            # Each starts empty.
            with running(name) as server:
                verdict = judge(ways(server)[way], asked.keys)
            print(f"{datetime.now(UTC):%Y-%m-%d} {way} {BY_NAME[name].version}: {verdict}", flush=True)
            if verdict.keeps_creates != KEEPS_CREATES[way]:
                wrong.append(way)
    if wrong:
        print(f"other verdicts than docs/storage.md has: {', '.join(wrong)}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
