"""Whether all that a configuration asks for can be trained: asked before a run is begun."""

from __future__ import annotations

from collections.abc import Mapping

from fl_inmetro.clustered import check_clusters, check_sizes
from fl_inmetro.config.schema import RunConfig
from fl_inmetro.learning.client import ClientData
from fl_inmetro.plan import check_sums, jobs_of
from fl_inmetro.protected import check_privacy


def check_jobs(
    config: RunConfig,
    kind: str,
    clients: Mapping[str, ClientData],
    *,
    warm: bool = False,
    on_nodes: bool = False,
) -> None:
    """Look whether all that is asked for can be trained, before a run is begun.

    Args:
        config: The configuration.
        kind: `run` or `compare`.
        clients: The clients' windows, by name.
        warm: Whether trainings begin from models that are there.
        on_nodes: Whether the clients are nodes of another engine.

    Raises:
        ConfigError: FL118, FL119, clusters that cannot be trained so.
        FederationError: FL365, they are too small; FL370, sums of a part of the clients.
        PrivacyError: FL417, what does not go together with `[privacy]`.
    """
    jobs = jobs_of(config, kind)
    parted = [job.model for job in jobs if job.training == "clustered" and not job.is_derived]
    for model in parted:
        check_clusters(config, model)
    check_sizes(config, parted, clients)
    check_sums(config, jobs)
    check_privacy(config, jobs, warm=warm, on_nodes=on_nodes)
