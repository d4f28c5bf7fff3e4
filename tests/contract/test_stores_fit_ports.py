"""Each store has what its port in `domain.ports` asks for, by name and parameters; mypy checks the types here."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest

from bettong.artifacts.store import Artifacts
from bettong.domain import ports
from bettong.secrets.keyring import KeyRing
from bettong.storage.audit import SqlAuditStore
from bettong.storage.connections import SqlConnectionStore
from bettong.storage.deployments import SqlDeploymentStore
from bettong.storage.facts import SqlFactStore
from bettong.storage.jobs import SqlJobStore
from bettong.storage.models import SqlModelStore
from bettong.storage.pipelines import SqlPipelineStore
from bettong.storage.users import SqlUserStore
from bettong.storage.workspaces import SqlWorkspaceStore

if TYPE_CHECKING:
    from bettong.storage.stores import Stores

    def typed(
        stores: Stores, ring: KeyRing, artifacts: Artifacts
    ) -> tuple[
        ports.UserStore,
        ports.WorkspaceStore,
        ports.ModelStore,
        ports.PipelineStore,
        ports.DeploymentStore,
        ports.ConnectionStore,
        ports.AuditStore,
        ports.FactStore,
        ports.JobStore,
        ports.Keyring,
        ports.ArtifactStore,
    ]:
        return (
            stores.users,
            stores.workspaces,
            stores.models,
            stores.pipelines,
            stores.deployments,
            stores.connections,
            stores.audit,
            stores.facts,
            stores.jobs,
            ring,
            artifacts,
        )


@pytest.mark.parametrize(
    ("port", "implementation"),
    [
        (ports.UserStore, SqlUserStore),
        (ports.WorkspaceStore, SqlWorkspaceStore),
        (ports.ModelStore, SqlModelStore),
        (ports.PipelineStore, SqlPipelineStore),
        (ports.DeploymentStore, SqlDeploymentStore),
        (ports.ConnectionStore, SqlConnectionStore),
        (ports.AuditStore, SqlAuditStore),
        (ports.FactStore, SqlFactStore),
        (ports.JobStore, SqlJobStore),
        (ports.Keyring, KeyRing),
        (ports.ArtifactStore, Artifacts),
    ],
)
def test_an_implementation_takes_the_parameters_of_its_port(port: type, implementation: type) -> None:
    asked = {name: call for name, call in vars(port).items() if inspect.isfunction(call) and not name.startswith("_")}

    assert asked
    for name, call in asked.items():
        given = inspect.signature(getattr(implementation, name))
        assert list(inspect.signature(call).parameters.items()) == list(given.parameters.items()), name
