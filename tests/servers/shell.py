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

    def start(self, *args: str | Path, more: dict[str, str] | None = None) -> subprocess.Popen:
        """The command as it runs; `more` are settings that come before the server's."""
        settings = self.server.options | (more or {})
        command = [str(self.binary), *map(str, args), "--json"]
        environment = dict(os.environ)
        if self.by_environment:
            environment |= {name.upper(): value for name, value in settings.items()}
        else:
            command += [word for name, value in settings.items() for word in ("--storage-option", f"{name}={value}")]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)

    def run(self, *args: str | Path, more: dict[str, str] | None = None) -> subprocess.CompletedProcess:
        """What the command ended with."""
        with self.start(*args, more=more) as process:
            try:
                said = process.communicate(timeout=120)
            finally:
                process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, *said)

    def __call__(self, *args: str | Path) -> dict:
        """The report of a command that must succeed."""
        done = self.run(*args)
        assert done.returncode == 0, f"lake {args}: {done.returncode}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def rows(self, query: str) -> list[tuple]:
        """The rows of a query, sorted."""
        return sorted(map(tuple, self("query", query)["rows"]))
