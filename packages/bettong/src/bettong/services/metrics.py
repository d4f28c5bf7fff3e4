"""What deployments have counted, for those who may see them, and what the server tells of itself."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psutil

from bettong.domain.exposition import tell_deployment
from bettong.errors import BadInput, NotFound, Unavailable
from bettong.services.deployment_search import DeploymentSearch

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

    from bettong.domain.deployments import Deployment
    from bettong.domain.exposition import Exposition
    from bettong.domain.identity import Principal
    from bettong.domain.metrics import DeploymentMetrics
    from bettong.domain.ports import DeploymentStore, PipelineStore, Runtime

AT_ONCE = 16  # deployments that are asked; one that hangs keeps its place for some seconds

log = logging.getLogger("bettong.metrics")


class MetricsService:
    """Keeps no history: counters only grow, so that rates come from two looks.

    `unfinished` gives the model versions that wait for packaging.
    """

    def __init__(
        self, rows: DeploymentStore, pipelines: PipelineStore, runtime: Runtime, unfinished: Callable[[], Sized]
    ) -> None:
        self._rows, self._runtime, self._unfinished = rows, runtime, unfinished
        self._search = DeploymentSearch(rows, pipelines)

    def of_pipeline(
        self, principal: Principal, *, pipeline_id: int | None = None, label: str | None = None
    ) -> DeploymentMetrics:
        """What the deployment of a pipeline has counted, named by the pipeline's id or by the deployment's label.

        Raises:
            NotFound: no such pipeline or deployment for this caller, or it is not deployed.
            BadInput: neither was given.
            Unavailable: it is deployed, and nothing of it answers just now.
        """
        if label is not None:
            row: Deployment | None = self._search.by_label(principal, label)
        elif pipeline_id is not None:
            row = self._rows.of_pipeline(self._search.pipeline(principal, pipeline_id).id)
        else:
            raise BadInput("Neither 'pipeline_id' nor 'label' was given.", "Send one of them.")
        if row is None or not row.deployed:
            raise NotFound("The pipeline is not deployed: it counts nothing.", "Deploy it first.")
        if (found := self._runtime.metrics(row.id, row.label)) is None:
            raise Unavailable(f"Nothing of deployment {row.label} runs just now.", "Try again; status() says why.")
        return found

    def tell(self, principal: Principal, out: Exposition) -> None:
        """Tell of every deployment of the caller's workspaces that should run; of one that does not answer, no more
        than that. Administrators are told of the server, too."""
        rows = [row for row in self._rows.wanted() if principal.may_see(row.workspace_id)]
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="bettong-metrics") as pool:
            found = list(pool.map(self._metrics, rows))
        for row, metrics in zip(rows, found, strict=True):
            labels = {"deployment": row.label, "pipeline": row.name}
            out.add("bettong_deployment_up", "gauge", "Whether it answers.", metrics is not None, labels)
            if metrics is not None:
                tell_deployment(out, metrics)
        if principal.is_admin:
            waiting = len(self._unfinished())
            out.add(
                "bettong_packaging_queue", "gauge", "Model versions that wait for packaging or are in it.", waiting, {}
            )
            _tell_process(out)

    def _metrics(self, row: Deployment) -> DeploymentMetrics | None:
        try:
            return self._runtime.metrics(row.id, row.label)
        except Unavailable as silent:
            log.warning("metrics_missing deployment=%s reason=%s", row.label, silent.problem)
            return None


def _tell_process(out: Exposition) -> None:
    """The server's own process, under the names that every Prometheus client has for it."""
    process = psutil.Process()
    with process.oneshot():
        memory, cpu = process.memory_info(), process.cpu_times()
        started, files = process.create_time(), process.num_fds()
    about = "CPU seconds of the server, in user and system mode."
    out.add("process_cpu_seconds_total", "counter", about, cpu.user + cpu.system, {})
    out.add("process_resident_memory_bytes", "gauge", "Memory of the server in RAM.", memory.rss, {})
    out.add("process_virtual_memory_bytes", "gauge", "Address space of the server.", memory.vms, {})
    out.add("process_open_fds", "gauge", "Open files and sockets of the server.", files, {})
    about = "When the server started, in seconds since the epoch."
    out.add("process_start_time_seconds", "gauge", about, started, {})
