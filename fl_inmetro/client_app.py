"""Flower's entry point of a client: `fl_inmetro.client_app:app`."""

from __future__ import annotations

import torch

from fl_inmetro.federation.client_program import client_app
from fl_inmetro.task import ledger_of, worker_of

# Many clients share a machine: more than one thread each makes small steps far slower.
torch.set_num_threads(1)

app = client_app(worker_of, find_ledger=ledger_of)
