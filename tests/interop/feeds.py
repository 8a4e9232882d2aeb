"""Change data feeds of Delta tables: what a reader was told of each version, held against the rows before and after."""

from collections import Counter, defaultdict
from collections.abc import Iterable

import pyarrow as pa

from tests.interop.kept import lines
from tests.interop.tables import SCHEMA, Life

ADDED = ("_change_type", "_commit_version", "_commit_timestamp")
GONE = ("delete", "update_preimage")
COME = ("insert", "update_postimage")


def by_version(feed: pa.Table) -> dict[int, dict[str, Counter]]:
    """The rows, as lines, by version and by what happened to them."""
    found: dict[int, dict[str, Counter]] = defaultdict(lambda: defaultdict(Counter))
    versions, words = feed["_commit_version"].to_pylist(), feed["_change_type"].to_pylist()
    columns = feed.select(SCHEMA.names).cast(SCHEMA)
    for version in set(versions):
        for word in set(words):
            mask = [v == version and w == word for v, w in zip(versions, words, strict=True)]
            _, rows = lines(columns.filter(pa.array(mask)))
            if rows:
                found[version][word] = Counter(rows)
    assert not {word for changes in found.values() for word in changes} - {*GONE, *COME}
    return found


def check(life: Life, feed: pa.Table, updates: Iterable[str]) -> None:
    """Replayed over the rows before, each version of the feed gives the rows after, exactly. At the steps of these
    names rows that were there before and after are told as updates, all others as rows that come or go."""
    found = by_version(feed)
    steps = sorted(life.steps.values(), key=lambda step: step.version)
    before: dict[int, dict] = {}
    rows = Counter()
    for step in steps:
        changes = found.pop(step.version, {})
        gone = sum((changes[word] for word in GONE if word in changes), Counter())
        come = sum((changes[word] for word in COME if word in changes), Counter())
        assert not gone - rows, f"{step.name}: rows go that were not there"
        rows = rows - gone + come
        assert rows == Counter(lines(step.expected)[1]), step.name
        if step.name in updates:
            changed = {i for i, row in step.rows.items() if i in before and row != before[i]}
            told = {word: sum(changes[word].values()) if word in changes else 0 for word in (*GONE, *COME)}
            assert told["delete"] == len(before.keys() - step.rows.keys()), (step.name, told)
            assert told["insert"] == len(step.rows.keys() - before.keys()), (step.name, told)
            assert told["update_preimage"] == told["update_postimage"] >= len(changed), (step.name, told)
        if step.name.startswith("compact"):
            assert not changes, "a compaction changes no row"
        before = step.rows
    assert not found, f"versions {list(found)} changed nothing"
