"""FastAPI around ``booster.predict``. Usage: fastapi_serving.py MODEL PORT."""

from __future__ import annotations

import sys

import lightgbm
import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import create_model

WIDTH = 30
booster = lightgbm.Booster(model_file=sys.argv[1])
names = [f"f{number}" for number in range(WIDTH)]
Body = create_model("Body", id=(str, ...), at=(str, ...), **dict.fromkeys(names, (float, ...)))
app = FastAPI()


@app.post("/")
async def predict(body: Body) -> dict[str, float]:
    row = np.array([[getattr(body, name) for name in names]])
    return {"score": float(booster.predict(row, num_threads=1)[0])}


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[2]), log_level="warning", access_log=False)
