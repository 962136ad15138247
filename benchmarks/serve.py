"""Time of a forecast for 10,000 clients: one issue time, simulated series of 60 and of 90 days.

    python benchmarks/serve.py [--clients 10000] [--models ridge mlp nlinear] [--out FILE]

One process and one thread, `fl_inmetro.forecasting.forecast` whole: features, model, table of
forecasts. The models are trained for one round before, on 20 clients of the same simulator. So many
consumers take minutes to simulate; 500 are, and each is served under as many names as are needed:
nothing is kept from one client to the next. The clock runs from readings in memory to the table.
With 90 days, the models are those of `examples/cambridge-full.toml`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from engine_rows.machine import machine, versions  # noqa: E402

RESULT = HERE / "results" / "serve.json"
CONSUMERS, START = 500, date(2024, 1, 1)

#: The settings of the models that accuracy is told of.
FULL = HERE.parent / "examples" / "cambridge-full.toml"

#: What is wanted of 10,000 clients.
CLIENTS, MOST_S = 10_000, 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--models", nargs="+", default=["ridge", "mlp", "nlinear"])
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    import torch

    from fl_inmetro import session
    from fl_inmetro.config import check, load
    from fl_inmetro.config.schema import Simulator
    from fl_inmetro.data.series import FederatedData
    from fl_inmetro.data.simulator import simulate
    from fl_inmetro.forecasting import forecast
    from fl_inmetro.runs.record import RunRecord
    from fl_inmetro.trained import trained_model

    torch.set_num_threads(1)
    rows = []
    for days, features in ((60, "defaults"), (90, "full")):
        made = simulate(Simulator(clients=min(CONSUMERS, args.clients), days=days), 1)
        consumers = list(made.values())
        names = [f"client-{k:06d}" for k in range(args.clients)]
        served = [replace(consumers[k % len(consumers)], client_id=n) for k, n in enumerate(names)]
        data = FederatedData(dict(zip(names, served, strict=True)), made.manifest)
        models = {} if features == "defaults" else load(FULL, []).model_dump()["models"]
        config = check(
            {
                "data": {"simulator": {"clients": 20, "days": days}},
                "window": {"validation_days": 5, "test_days": 7, "timezone": "America/Sao_Paulo"},
                "federation": {"num_server_rounds": 1},
                "models": {name: models[name] for name in args.models if name in models},
                "compare": {"models": args.models, "training": ["federated"]},
            }
        )
        issue = START + timedelta(days=days - 1)
        with tempfile.TemporaryDirectory() as folder:
            path = session.start(config, "compare", Path(folder), lambda event: None, lambda: False)
            record = RunRecord.open(path)
            for name in args.models:
                trained = trained_model(record, name, "federated")
                began, worked = time.perf_counter(), time.process_time()
                table = forecast(record, trained, data, issue, issue).table
                seconds, cpu_s = time.perf_counter() - began, time.process_time() - worked
                rows.append(
                    {
                        "model": name,
                        "features": features,
                        "days": days,
                        "clients": args.clients,
                        "rows": table.num_rows,
                        "seconds": seconds,
                        "cpu_seconds": cpu_s,
                        "ratio": seconds / MOST_S * CLIENTS / args.clients,
                    }
                )
                verdict = "reached" if rows[-1]["ratio"] < 1 else "NOT REACHED"
                print(
                    f"{name:>10}, {features}, {days} days: {seconds:7.2f} s ({cpu_s:.2f} s of "
                    f"processor), {rows[-1]['ratio']:.2f} of the wanted {MOST_S:g} s: {verdict}",
                    flush=True,
                )
    result = {
        "benchmark": "serve",
        "date_utc": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine(),
        "versions": versions(),
        "wanted_s": MOST_S,
        "rows": rows,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{result['machine']}\nwritten: {args.out}")


if __name__ == "__main__":
    main()
