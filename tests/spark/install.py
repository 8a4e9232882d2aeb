"""Installs what Spark needs to read and write Iceberg and Delta, pinned, below `target/interop`; what is there stays.

`python tests/spark/install.py` says first what the machine lacks. That is a note by hand and a failure where `CI`
is set: a job that skips what it is for must not be green.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERSION = (HERE / "requirements.txt").read_text().split("pyspark==")[1].strip()
HOME = HERE.parents[1] / "target" / "interop" / f"spark-{VERSION}"
# Group, artifact, version. Both formats are built for the minor version of Spark that they name.
JARS = [
    ("org.apache.iceberg", "iceberg-spark-runtime-4.1_2.13", "1.11.0"),
    ("io.delta", "delta-spark_4.1_2.13", "4.2.0"),
    ("io.delta", "delta-storage", "4.2.0"),
]
TOOLS = ["java", "mvn"]


def jars() -> list[Path]:
    """Where they are, installed or not; the names have the versions, so that a new pin is a new install."""
    return [HOME / f"{artifact}-{version}.jar" for _, artifact, version in JARS]


def lacking() -> list[str]:
    """Tools that this machine does not have and that are needed."""
    needed = TOOLS[:1] if all(jar.exists() for jar in jars()) else TOOLS
    return [tool for tool in needed if shutil.which(tool) is None]


def main() -> int:
    missing = lacking()
    for tool in missing:
        print(f"{tool}: not found; skipped: spark")
    if missing:
        if os.environ.get("CI"):
            print("CI is set: what is lacking is a failure")
            return 1
        return 0
    for (group, artifact, version), jar in zip(JARS, jars(), strict=True):
        if jar.exists():
            print(f"{artifact} {version}: installed")
            continue
        print(f"{artifact} {version}: installing with mvn", flush=True)
        started = time.monotonic()
        what = [f"-Dartifact={group}:{artifact}:{version}", f"-DoutputDirectory={HOME}"]
        subprocess.run(["mvn", "-q", "-B", "dependency:copy", *what], check=True, cwd=HERE)
        print(f"{artifact} {version}: installed in {time.monotonic() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
