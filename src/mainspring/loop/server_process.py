"""The gateway as a process of its own, started and stopped by a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

from mainspring.errors import ServingError

START_SECONDS = 30
STOP_SECONDS = 20


class ServerProcess:
    """A running gateway of ``workers`` processes for the systems of ``workspaces``. It ends with the process that started it, however that
    ends.

    Servers that answer from one workspace at the same time need a ``name`` each.

    Raises:
        ServingError: it did not start, or was not ready within 30 s; the message holds what it printed.
    """

    def __init__(
        self,
        *workspaces: Path,
        port: int = 0,
        stream: bool = True,
        workers: int = 1,
        name: str = "",
        settings: Path | None = None,
        grpc_port: int | None = None,
    ) -> None:
        command = [sys.executable, "-m", "mainspring.gateway", "--port", str(port), "--exit-with-parent"]
        command += [part for workspace in workspaces for part in ("--workspace", str(workspace))]
        command += [] if stream else ["--no-stream"]
        command += [] if settings is None else ["--settings", str(settings)]
        command += [] if grpc_port is None else ["--grpc-port", str(grpc_port)]
        command += ["--workers", str(workers), "--name", name]
        self.log = workspaces[0] / "server.log"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        try:
            ports = json.loads(line)
            self.port, self.grpc_port = int(ports["port"]), ports.get("grpc_port")
        except (ValueError, KeyError, TypeError) as error:
            self.stop()
            raise ServingError(f"The gateway did not start. Its last words are in {self.log}: {self._tail()}") from error
        self._wait()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def cpu_seconds(self) -> float:
        """User and system time it has used so far; 0 where the platform does not tell."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_memory_bytes(self) -> int:
        """Its peak resident set; 0 where the platform does not tell."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return 0
        return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)

    def wait(self) -> int:
        """Until it ends; its exit code."""
        return self._process.wait()

    def send(self, number: int) -> None:
        """Send it a signal: SIGHUP replaces its workers one by one."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """Ask it to finish what it is doing and end; kill it after 20 s."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        problem = ""
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=2):
                    return
            except urllib.error.HTTPError as error:
                problem = error.read().decode(errors="replace")
            except OSError as error:
                problem = str(error)
            time.sleep(0.05)
        self.stop()
        raise ServingError(f"The gateway was not ready within {START_SECONDS} s: {problem or self._tail()}")

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-500:].strip()
