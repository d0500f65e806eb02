"""Clients that mean harm, are slow, or too many, against a server process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import httpx
import pytest

from chaos.test_processes import busy as crowded

SCRIPT = Path(__file__).parents[1] / "gateway" / "gateway_service.py"
TRIP = {"trip_id": "t1", "starts_at": "2025-03-01T12:00:00Z", "zone": "a", "miles": 3}
POST = b"POST /v1/eta HTTP/1.1\r\nhost: a\r\n"
MEGABYTE = 1 << 20


class Server:
    """A running server: its port, and how much memory it holds."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port, self.url = process, port, f"http://127.0.0.1:{port}"

    def memory(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


@pytest.fixture
def server() -> Iterator[Server]:
    process = subprocess.Popen([sys.executable, str(SCRIPT)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    running = Server(process, int(process.stdout.readline()))
    assert httpx.post(f"{running.url}/v1/eta", json=TRIP, trust_env=False).status_code == 200
    yield running
    process.kill()
    process.communicate()


MALFORMED: dict[bytes, int | tuple[int, ...]] = {
    b'{"trip_id": "t1"': 400,
    b'{"miles": NaN}': 400,
    b'{"miles": Infinity}': 400,
    json.dumps(TRIP | {"miles": None}).encode(): 422,
    json.dumps(TRIP | {"miles": [3]}).encode(): 422,
    json.dumps(TRIP | {"miles": "3"}).encode(): 422,
    json.dumps(TRIP | {"seats": 10**40}).encode(): 422,
    json.dumps({"trip_id": "t1"}).encode(): 422,
    json.dumps(TRIP | {"more": 1}).encode(): 422,
    json.dumps([TRIP]).encode(): 400,
    b'{"zone": "\xff"}': 400,
    b"[" * 100_000: 400,
    b'{"zone":' * 10_000: 400,
    json.dumps(TRIP | {"miles": True}).encode(): 422,
    json.dumps(TRIP | {"zone": 7}).encode(): 422,
    json.dumps(TRIP | {"zone": {"a": {"b": [1, 2]}}}).encode(): 422,
    json.dumps(TRIP | {"miles": [[3.0]]}).encode(): 422,
    json.dumps(TRIP | {f"column{number}": number for number in range(2_000)}).encode(): 422,
    json.dumps(TRIP)[:-1].encode() + b', "miles": 4}': 422,
    json.dumps(TRIP)[:-1].encode() + b', "mil\\u0065s" : 4}': 422,
    json.dumps(TRIP | {"seats": 0})[:-2].encode() + b"9" * 10_000 + b"}": (400, 422),
    json.dumps(TRIP)[:-2].encode() + b"1e999}": (400, 422),
    json.dumps(TRIP | {"zone": 0})[:-2].encode() + b'"\\ud800"}': 400,
    json.dumps(TRIP | {"starts_at": "2025-02-30T12:00:00Z"}).encode(): 422,
    json.dumps(TRIP | {"starts_at": 10**30}).encode(): 422,
}


@pytest.mark.parametrize("times", [40, pytest.param(400, marks=pytest.mark.long)])
def test_malformed_requests_are_named_and_leave_nothing_behind(server, times):
    with httpx.Client(base_url=server.url, trust_env=False) as client:

        def send(times: int) -> None:
            for _ in range(times):
                for body, status in MALFORMED.items():
                    response = client.post("/v1/eta", content=body)
                    wanted = status if isinstance(status, tuple) else (status,)
                    assert response.status_code in wanted, (body[-60:], response.text)
                    error = response.json()["error"]
                    assert error["field"] if response.status_code == 422 else error["message"]

        send(10)
        before = server.memory()
        send(times)
        assert server.memory() - before < 5 * MEGABYTE


def tensors(random: Random) -> tuple[bytes, int]:
    """An inference request with three tensors as bytes that do not mean what is said of them, and the length of its JSON."""
    datatypes = ["BYTES", "FP64", "INT64", "BOOL", "UINT8", "FP16", "", "FP128"]
    inputs, parts = [], []
    for name in random.sample(["trip_id", "starts_at", "zone", "miles", "seats", "nothing"], 3):
        part = random.randbytes(random.choice([0, 1, 7, 8, 16, 64]))
        size = random.choice([len(part), len(part) + 1, -1, 2**40, "8", None, True])
        shape = random.choice([[1], [2], [8], [1, 1], [-1], [2**62], [], [1, 2, 3]])
        inputs.append({"name": name, "shape": shape, "datatype": random.choice(datatypes), "parameters": {"binary_data_size": size}})
        parts.append(part)
    head = json.dumps({"inputs": inputs}).encode()
    return head + b"".join(parts), random.choice([len(head), len(head), len(head), len(head) - 1, len(head) + 1, 0])


@pytest.mark.parametrize("times", [500, pytest.param(10_000, marks=pytest.mark.long)])
def test_binary_garbage_is_refused_and_leaves_nothing_behind(server, times):
    random, statuses = Random(0), Counter[int]()
    with httpx.Client(base_url=server.url, trust_env=False) as client:

        def send(times: int) -> None:
            for _ in range(times):
                body, length = tensors(random)
                response = client.post("/v2/models/eta/infer", content=body, headers={"inference-header-content-length": str(length)})
                statuses[response.status_code] += 1
                assert response.status_code in (400, 422), (body, response.text)
                assert response.json()["error"]["message"]

        send(300)
        before = server.memory()
        send(times)
        assert server.memory() - before < 5 * MEGABYTE
    assert set(statuses) == {400, 422}


@pytest.mark.parametrize("chunked", [True, False])
def test_giant_and_endless_bodies_do_not_grow_the_server(server, chunked):
    before = server.memory()
    size = b"transfer-encoding: chunked" if chunked else b"content-length: 48000000"
    frame = b"10000\r\n" + b"x" * 65_536 + b"\r\n" if chunked else b"x" * 65_536
    for _ in range(4):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(POST + size + b"\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                for _ in range(730):
                    connection.sendall(frame)
            assert connection.recv(4096).startswith(b"HTTP/1.1 413")
    assert server.memory() - before < 20 * MEGABYTE


async def _latencies(url: str, seconds: float) -> list[float]:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        taken, until = [], time.perf_counter() + seconds
        while time.perf_counter() < until:
            began = time.perf_counter()
            assert (await client.post("/v1/eta", json=TRIP)).status_code == 200
            taken.append(time.perf_counter() - began)
            await asyncio.sleep(0.002)
        return sorted(taken)


async def _held(port: int, begun: bytes, trickle: bytes) -> float:
    """Seconds until the server ends a connection that is begun and then only trickles."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.perf_counter()
    with contextlib.suppress(OSError):
        writer.write(begun)
        while not reader.at_eof() and time.perf_counter() - began < 20:
            writer.write(trickle)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(4096), 0.5)
    writer.close()
    return time.perf_counter() - began


def test_two_hundred_slow_clients_are_closed_and_harm_nobody(server):
    async def attack() -> tuple[list[float], list[float], list[float]]:
        calm = await _latencies(server.url, 3)
        slow = [_held(server.port, POST, b"x: y\r\n") for _ in range(100)]
        slow += [_held(server.port, POST + b"content-length: 5000\r\n\r\n", b" ") for _ in range(100)]
        *held, busy = await asyncio.gather(*slow, _latencies(server.url, 8))
        return calm, held, busy

    calm, held, busy = asyncio.run(attack())
    print(f"p50 {calm[len(calm) // 2]:.4f} {busy[len(busy) // 2]:.4f} p99 {calm[-len(calm) // 100]:.4f} {busy[-len(busy) // 100]:.4f}")
    assert max(held[:100]) < 6.5
    assert max(held) < 12
    assert busy[len(busy) // 2] < 3 * calm[len(calm) // 2] + 0.005
    if crowded():
        pytest.skip("others keep the cores of this machine occupied: the ratio of p99 is not held")
    assert busy[-len(busy) // 100] < 2 * calm[-len(calm) // 100]


def test_more_than_can_be_answered_is_refused_soon(server):
    row = json.dumps(TRIP | {"zone": "busy"}).encode()
    request = POST + f"x-deadline-ms: 100\r\ncontent-length: {len(row)}\r\n\r\n".encode() + row
    seen: list[tuple[int, float]] = []
    start = time.perf_counter()

    async def ask() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        while (began := time.perf_counter()) < start + 4:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
            if began > start + 1:
                seen.append((int(head[9:12]), time.perf_counter() - began))
            await asyncio.sleep(0.05 if head[9:12] == b"503" else 0)
        writer.close()

    async def flood() -> None:
        await asyncio.gather(*(ask() for _ in range(40)))

    asyncio.run(flood())
    answered = sorted(taken for status, taken in seen if status == 200)
    refused = sorted(taken for status, taken in seen if status == 503)
    print(f"answered {len(answered) / 3:.0f}/s, longest {answered[-1]:.3f}; refused {len(refused)}, p90 {refused[-len(refused) // 10]:.3f}")
    assert {status for status, _ in seen} == {200, 503}
    assert len(answered) / 3 > 60
    assert refused[-len(refused) // 10] < 0.05 or crowded()
