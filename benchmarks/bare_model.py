"""The floor of the serving benchmark: raw ASGI, a typed body, the model's single-row interface. Usage: bare_model.py MODEL PORT."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import uvicorn

from mainspring.models.adapters.lightgbm import MODEL, LightGBMLearner

WIDTH = 30
NAMES = [f"f{number}" for number in range(WIDTH)]


def main(model: Path, port: int) -> None:
    body_type = msgspec.defstruct("Body", [("id", str), ("at", str), *((name, float) for name in NAMES)])
    booster = LightGBMLearner().load({MODEL: model.read_bytes()}, NAMES)
    decoder = msgspec.json.Decoder(body_type)

    async def app(_: Any, receive: Any, send: Any) -> None:
        message = await receive()
        row = np.array(msgspec.structs.astuple(decoder.decode(message["body"]))[2:], dtype=np.float64)
        answer = msgspec.json.encode({"score": float(booster.predict_row(row)[0])})
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    uvicorn.run(app, port=port, log_level="warning", access_log=False, ws="none", lifespan="off", loop="uvloop", http="httptools")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
