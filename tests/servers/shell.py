"""`lake` as somebody runs it against a server."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from running import Server


@dataclass(frozen=True)
class Shell:
    """Runs `lake`; settings by `--storage-option` or, with `by_environment`, as variables."""

    binary: Path
    server: Server
    by_environment: bool = False

    def run(self, *args: str | Path, more: dict[str, str] | None = None) -> subprocess.CompletedProcess:
        """What the command ended with; `more` are settings that come before the server's."""
        settings = self.server.options | (more or {})
        command = [str(self.binary), *map(str, args), "--json"]
        environment = dict(os.environ)
        if self.by_environment:
            environment |= {name.upper(): value for name, value in settings.items()}
        else:
            command += [word for name, value in settings.items() for word in ("--storage-option", f"{name}={value}")]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    def __call__(self, *args: str | Path) -> dict:
        """The report of a command that must succeed."""
        done = self.run(*args)
        assert done.returncode == 0, f"lake {args}: {done.returncode}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def rows(self, query: str) -> list[tuple]:
        """The rows of a query, sorted."""
        return sorted(map(tuple, self("query", query)["rows"]))
