"""Installs the servers that `make interop` speaks to, in pinned versions, below `target/interop`; what is there stays.

`python tests/servers/install.py` says first what the machine lacks. That is a note by hand and a failure where `CI`
is set: a job that skips what it is for must not be green.
"""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "target" / "interop"


@dataclass(frozen=True)
class Program:
    """A server as its own project publishes it."""

    name: str
    tool: str
    package: str
    version: str
    command: str = ""

    @property
    def binary(self) -> Path:
        """Where it is installed; the folder names the version, so that a new pin is a new install."""
        folder = HOME / f"{self.name}-{self.version}"
        below = {"go": "", "npm": "node_modules/.bin"}[self.tool]
        return folder / below / (self.command or self.name)

    def install(self) -> None:
        folder = HOME / f"{self.name}-{self.version}"
        what = f"{self.package}@{self.version}"
        environment = os.environ | {"GOBIN": str(folder)}
        if self.tool == "go":
            command = ["go", "install", what]
        else:
            command = ["npm", "install", "--no-save", "--no-audit", "--no-fund", "--prefix", str(folder), what]
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(command, check=True, cwd=folder, env=environment)


PROGRAMS = [
    # MinIO numbers no modules: this is the release of 2026-02-12 by its commit.
    Program("minio", "go", "github.com/minio/minio", "v0.0.0-20260212201848-7aac2a2c5b7c"),
    Program("versitygw", "go", "github.com/versity/versitygw/cmd/versitygw", "v1.8.0"),
    Program("fake-gcs-server", "go", "github.com/fsouza/fake-gcs-server", "v1.56.1"),
    Program("s3rver", "npm", "s3rver", "3.7.1"),
    Program("azurite", "npm", "azurite", "3.37.0", "azurite-blob"),
]
BY_NAME = {program.name: program for program in PROGRAMS}


def lacking() -> dict[str, list[str]]:
    """Tools that this machine does not have, each with the servers that are skipped without it."""
    tools = dict.fromkeys(program.tool for program in PROGRAMS if not program.binary.exists())
    needs = {tool: {"go": ["go"], "npm": ["npm", "node"]}[tool] for tool in tools}
    return {
        name: [program.name for program in PROGRAMS if program.tool == tool]
        for tool, names in needs.items()
        for name in names
        if shutil.which(name) is None
    }


def installed() -> list[str]:
    """Names of the servers that can be started."""
    return [program.name for program in PROGRAMS if program.binary.exists()]


def main() -> int:
    missing = lacking()
    for tool, names in missing.items():
        print(f"{tool}: not found; skipped: {', '.join(names)}")
    if missing and os.environ.get("CI"):
        print("CI is set: what is lacking is a failure")
        return 1
    skipped = {name for names in missing.values() for name in names}
    for program in PROGRAMS:
        if program.name in skipped:
            continue
        if program.binary.exists():
            print(f"{program.name} {program.version}: installed")
            continue
        print(f"{program.name} {program.version}: installing with {program.tool}", flush=True)
        started = time.monotonic()
        program.install()
        print(f"{program.name} {program.version}: installed in {time.monotonic() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
