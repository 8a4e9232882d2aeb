"""HTTP as three clouds sign it, without anybody's client: a client that repeats requests or hides statuses by itself
could not be told from a server that does."""

import base64
import hashlib
import hmac
import http.client
import json
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from xml.etree import ElementTree

REGION = "us-east-1"
# Servers close connections that were quiet for longer; what is sent there is lost.
QUIET_SECONDS = 1.0


@dataclass
class Answer:
    """What a server said; a status of 0 when it said nothing."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class Wire:
    """One connection per thread; every request is sent once."""

    def __init__(self, endpoint: str):
        self.endpoint = urllib.parse.urlsplit(endpoint)
        self._local = threading.local()

    def send(self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        connection = getattr(self._local, "connection", None)
        if connection is None or time.monotonic() - self._local.used > QUIET_SECONDS:
            if connection:
                connection.close()
            connection = http.client.HTTPConnection(self.endpoint.hostname, self.endpoint.port, timeout=60)
            self._local.connection = connection
        try:
            connection.request(method, target, body=body, headers=headers or {})
            answer = connection.getresponse()
            content = answer.read()
            self._local.used = time.monotonic()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, content)
        except (http.client.HTTPException, OSError):
            connection.close()
            self._local.connection = None
            return Answer(0)


class S3:
    """Signature version 4."""

    def __init__(self, endpoint: str, bucket: str, key: str, secret: str):
        self.wire, self.bucket, self.key, self.secret = Wire(endpoint), bucket, key, secret

    def make_bucket(self) -> Answer:
        return self._send("PUT", f"/{self.bucket}")

    def put(self, name: str, body: bytes, absent: bool = False, tag: str | None = None) -> Answer:
        conditions = {"if-none-match": "*"} if absent else {"if-match": tag} if tag else {}
        return self._send("PUT", self._path(name), body, conditions)

    def get(self, name: str) -> tuple[Answer, str]:
        """The answer, and what `put` takes as `tag`."""
        answer = self._send("GET", self._path(name))
        return answer, answer.headers.get("etag", "")

    def delete(self, name: str) -> Answer:
        return self._send("DELETE", self._path(name))

    def names(self) -> list[str]:
        """Names of all objects, a thousand at most."""
        answer = self._send("GET", f"/{self.bucket}", query="list-type=2")
        return [key.text or "" for key in ElementTree.fromstring(answer.body).iter() if key.tag.endswith("}Key")]

    def _path(self, name: str) -> str:
        return f"/{self.bucket}/{urllib.parse.quote(name)}"

    def _send(
        self, method: str, path: str, body: bytes = b"", more: dict[str, str] | None = None, query: str = ""
    ) -> Answer:
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        digest = hashlib.sha256(body).hexdigest()
        headers = {
            "host": self.wire.endpoint.netloc,
            "x-amz-content-sha256": digest,
            "x-amz-date": now,
            **(more or {}),
        }
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        request = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{digest}"
        scope = f"{now[:8]}/{REGION}/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        key = f"AWS4{self.secret}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        credential = f"AWS4-HMAC-SHA256 Credential={self.key}/{scope}"
        headers["authorization"] = f"{credential}, SignedHeaders={names}, Signature={signature}"
        return self.wire.send(method, f"{path}?{query}" if query else path, body, headers)


class Google:
    """Unsigned, as the servers on one machine take it. `xml` is the interface that `object_store` writes by; Google's
    own clients write by the other one."""

    def __init__(self, endpoint: str, bucket: str, xml: bool = True):
        self.wire, self.bucket, self.xml = Wire(endpoint), bucket, xml

    def make_bucket(self) -> Answer:
        body = json.dumps({"name": self.bucket}).encode()
        return self.wire.send("POST", "/storage/v1/b?project=lake", body, {"content-type": "application/json"})

    def put(self, name: str, body: bytes, absent: bool = False, tag: str | None = None) -> Answer:
        match = "0" if absent else tag
        headers = {"content-type": "application/octet-stream"}
        if self.xml:
            condition = {"x-goog-if-generation-match": match} if match else {}
            return self.wire.send("PUT", f"/{self.bucket}/{_quoted(name)}", body, headers | condition)
        query = f"uploadType=media&name={_quoted(name)}" + (f"&ifGenerationMatch={match}" if match else "")
        return self.wire.send("POST", f"/upload/storage/v1/b/{self.bucket}/o?{query}", body, headers)

    def get(self, name: str) -> tuple[Answer, str]:
        answer = self.wire.send("GET", f"/{self.bucket}/{_quoted(name)}")
        return answer, answer.headers.get("x-goog-generation", "")

    def names(self) -> list[str]:
        answer = self.wire.send("GET", f"/storage/v1/b/{self.bucket}/o")
        return [found["name"] for found in json.loads(answer.body).get("items", [])]

    def delete(self, name: str) -> Answer:
        return self.wire.send("DELETE", f"/storage/v1/b/{self.bucket}/o/{_quoted(name)}")


class Azure:
    """Shared key, of an account whose name is the first part of the path, as emulators have it."""

    def __init__(self, endpoint: str, container: str, account: str, key: str):
        self.wire, self.container, self.account, self.key = Wire(endpoint), container, account, key

    def make_bucket(self) -> Answer:
        return self._send("PUT", f"/{self.account}/{self.container}", query={"restype": "container"})

    def put(self, name: str, body: bytes, absent: bool = False, tag: str | None = None) -> Answer:
        conditions = {"if-none-match": "*"} if absent else {"if-match": tag} if tag else {}
        headers = {"x-ms-blob-type": "BlockBlob", "content-type": "application/octet-stream", **conditions}
        return self._send("PUT", self._path(name), body, headers)

    def get(self, name: str) -> tuple[Answer, str]:
        answer = self._send("GET", self._path(name))
        return answer, answer.headers.get("etag", "")

    def delete(self, name: str) -> Answer:
        return self._send("DELETE", self._path(name))

    def _path(self, name: str) -> str:
        return f"/{self.account}/{self.container}/{urllib.parse.quote(name)}"

    def _send(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        query: dict[str, str] | None = None,
    ) -> Answer:
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-12-02", **(headers or {})}
        standard = [
            "",
            "",
            str(len(body)) if body else "",
            "",
            headers.get("content-type", ""),
            "",
            "",
            headers.get("if-match", ""),
            headers.get("if-none-match", ""),
            "",
            "",
        ]
        own = [f"{name}:{headers[name]}" for name in sorted(headers) if name.startswith("x-ms-")]
        resource = f"/{self.account}{path}" + "".join(f"\n{name}:{value}" for name, value in (query or {}).items())
        text = "\n".join([method, *standard, *own, resource])
        signature = hmac.digest(base64.b64decode(self.key), text.encode(), "sha256")
        headers["authorization"] = f"SharedKey {self.account}:{base64.b64encode(signature).decode()}"
        target = path + ("?" + urllib.parse.urlencode(query) if query else "")
        return self.wire.send(method, target, body, headers)


def _quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="")
