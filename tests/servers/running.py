"""Servers that others wrote, started on this machine over a folder that goes away with them."""

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from install import BY_NAME, installed
from wire import REGION, S3, Azure, Google

BUCKET = "lake"
S3_KEY, S3_SECRET = "lake-interop", "lake-interop-secret"
# The only ones that this server takes.
S3RVER_KEY = S3RVER_SECRET = "S3RVER"
# The account that every Azure emulator has; Microsoft publishes its key.
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True)
class Server:
    """One that runs, with an empty bucket."""

    name: str
    cloud: str
    endpoint: str
    log: Path

    def url(self, table: str) -> str:
        scheme = {"s3": "s3", "google": "gs", "azure": "az"}[self.cloud]
        return f"{scheme}://{BUCKET}/{table}"

    @property
    def keys(self) -> tuple[str, str]:
        """Access key and secret of an S3 server."""
        return (S3RVER_KEY, S3RVER_SECRET) if self.name == "s3rver" else (S3_KEY, S3_SECRET)

    @property
    def options(self) -> dict[str, str]:
        """Storage options, by the names that delta-rs has too."""
        if self.cloud == "s3":
            return {
                "aws_endpoint_url": self.endpoint,
                "aws_access_key_id": self.keys[0],
                "aws_secret_access_key": self.keys[1],
                "aws_region": REGION,
                "aws_allow_http": "true",
            }
        if self.cloud == "google":
            # The client asks for a token before it writes, whatever it is told about signatures, unless the key says
            # that there are none.
            key = '{"client_email": "", "private_key": "", "private_key_id": "", "disable_oauth": true, %s}'
            return {"google_service_account_key": key % f'"gcs_base_url": "{self.endpoint}"'}
        return {
            "azure_storage_account_name": AZURE_ACCOUNT,
            "azure_storage_account_key": AZURE_KEY,
            "azure_storage_endpoint": f"{self.endpoint}/{AZURE_ACCOUNT}",
            "azure_allow_http": "true",
        }

    @property
    def secret(self) -> str:
        """The name of the option that must never be shown."""
        return {"s3": "aws_secret_access_key", "azure": "azure_storage_account_key"}[self.cloud]

    def client(self, **how):
        """A client that sends each request once (`wire.py`)."""
        if self.cloud == "s3":
            return S3(self.endpoint, BUCKET, *self.keys)
        if self.cloud == "google":
            return Google(self.endpoint, BUCKET, **how)
        return Azure(self.endpoint, BUCKET, AZURE_ACCOUNT, AZURE_KEY)


# Which interface each of them speaks.
CLOUDS = {
    "minio": "s3",
    "versitygw": "s3",
    "s3rver": "s3",
    "fake-gcs-server": "google",
    "azurite": "azure",
}
NAMES = [name for name in CLOUDS if name in installed()]


@contextmanager
def running(name: str) -> Iterator[Server]:
    """Starts a server and makes its bucket."""
    with tempfile.TemporaryDirectory(prefix=f"lake-{name}-", ignore_cleanup_errors=True) as folder:
        port = _free_port()
        data = Path(folder, "data")
        data.mkdir()
        command, environment = _command(name, str(BY_NAME[name].binary), port, data)
        log = Path(folder, "log")
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        try:
            server = Server(name, CLOUDS[name], f"http://127.0.0.1:{port}", log)
            _wait(server, process)
            yield server
        finally:
            # What it holds goes away; some wait for their clients before they end by themselves.
            process.kill()
            process.wait()


def _command(name: str, binary: str, port: int, data: Path) -> tuple[list[str], dict[str, str]]:
    if name == "minio":
        environment = {"MINIO_ROOT_USER": S3_KEY, "MINIO_ROOT_PASSWORD": S3_SECRET, "MINIO_BROWSER": "off"}
        return [binary, "server", str(data), "--address", f"127.0.0.1:{port}", "--quiet"], environment
    if name == "versitygw":
        environment = {"ROOT_ACCESS_KEY": S3_KEY, "ROOT_SECRET_KEY": S3_SECRET}
        return [binary, "--port", f"127.0.0.1:{port}", "--region", REGION, "--quiet", "posix", str(data)], environment
    if name == "fake-gcs-server":
        place = ["-host", "127.0.0.1", "-port", str(port), "-public-host", f"127.0.0.1:{port}"]
        return [binary, "-scheme", "http", "-backend", "memory", "-log-level", "error", *place], {}
    if name == "s3rver":
        return [binary, "-d", str(data), "-a", "127.0.0.1", "-p", str(port), "--silent", "--no-vhost-buckets"], {}
    place = ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
    return [binary, "--silent", "--skipApiVersionCheck", "--inMemoryPersistence", *place], {}


def _wait(server: Server, process: subprocess.Popen) -> None:
    """Until the bucket is there."""
    until = time.monotonic() + 60
    while True:
        answer = server.client().make_bucket()
        if answer.ok or answer.status == 409:
            return
        if process.poll() is not None or time.monotonic() > until:
            said = server.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{server.name} does not start: {answer.status} {answer.body[:500]!r}\n{said}")
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
