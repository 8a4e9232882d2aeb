"""TPC-H lineitem cut into pieces, each of which becomes a commit of its own: what a compaction starts from.

`python -m benches.pieces NAME SF` makes them once, in target/bench-data/pieces-NAME-sfSF, out of `benches.data`.
"""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from benches.data import CACHE, FIGURES, TYPES, Data

# Data of an older recipe is thrown away.
RECIPE = 3
# How many pieces there are, and into how many all rows of the table are cut: `large`, half a million rows a piece, goes
# over them again and again, with order keys that go on.
COUNT = {"small": (200, 200), "large": (64, 12)}
# The rows of `large` that get deleted, as shares of the key range: five percent and a bit, since from five on a
# compaction takes up a file that is large enough. The keys of an order lie together, so it is as many rows.
FROM, UPTO = 0.400, 0.4505


@dataclass
class Pieces:
    """The files of one cut; stands where a `Data` does."""

    name: str
    sf: float

    @property
    def folder(self) -> Path:
        return CACHE / f"pieces-{self.name}-sf{self.sf:g}"

    @property
    def parts(self) -> list[Path]:
        """In the order of keys."""
        return [self.folder / f"{number:04}.parquet" for number in range(COUNT[self.name][0])]

    def about(self) -> dict:
        """What was made: `after` has the figures of all rows (base) and of those that stay (kept)."""
        return json.loads((self.folder / "about.json").read_text())


def make(pieces: Pieces) -> None:
    """Makes the files unless they are there."""
    import duckdb

    if (pieces.folder / "about.json").exists() and pieces.about()["recipe"] == RECIPE:
        return
    shutil.rmtree(pieces.folder, ignore_errors=True)
    pieces.folder.mkdir(parents=True)
    temporary = pieces.folder / "temporary"
    db = duckdb.connect(str(temporary), config={"memory_limit": "4GB"})
    columns = ", ".join(f"{column}::{kind} AS {column}" for column, kind in TYPES.items())
    source = [str(part) for part in Data(pieces.sf).parts]
    db.execute(f"CREATE TABLE lineitem AS SELECT {columns} FROM read_parquet({source})")
    rows, top = db.execute("SELECT count(*), max(l_orderkey) FROM lineitem").fetchone()
    span = (top // 32 + 1) * 32
    count, cut = COUNT[pieces.name]
    for number, part in enumerate(pieces.parts):
        turn, slice_ = divmod(number, cut)
        low, high = rows * slice_ // cut, rows * (slice_ + 1) // cut
        shifted = f"SELECT * REPLACE (l_orderkey + {turn * span} AS l_orderkey) FROM lineitem"
        one = f"{shifted} WHERE rowid >= {low} AND rowid < {high} ORDER BY rowid"
        db.execute(f"COPY ({one}) TO '{part}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 1000000)")
    db.close()
    temporary.unlink()
    keys = span * count / cut
    about = {"recipe": RECIPE, "sf": pieces.sf, "masked": [int(keys * FROM), int(keys * UPTO)], "after": {}}
    db = duckdb.connect()
    files = [str(part) for part in pieces.parts]
    kept = f"l_orderkey NOT BETWEEN {about['masked'][0]} AND {about['masked'][1]}"
    for name, where in {"base": "true", "kept": kept}.items():
        answer = db.execute(f"SELECT {FIGURES} FROM read_parquet({files}) WHERE {where}")
        names = [column[0] for column in answer.description]
        about["after"][name] = dict(zip(names, map(str, answer.fetchone()), strict=True))
    (pieces.folder / "about.json").write_text(json.dumps(about, indent=1))


if __name__ == "__main__":
    make(Pieces(sys.argv[1], float(sys.argv[2])))
