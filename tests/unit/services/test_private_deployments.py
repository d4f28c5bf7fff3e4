"""Deployments of jobs: out of everybody's reach, found again, and gone when they should be."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from platform_kit import now, open_platform

from bettong.domain.deployments import State
from bettong.domain.jobs import Job, JobKind, JobState
from bettong.engine.tokens import TokenVerifier
from bettong.errors import ModelFailed, Unauthenticated
from bettong.logstore.factory import open_log
from bettong.logstore.nothing import NothingKept
from bettong.services.deployment_specs import DeploymentSpecs, Place
from bettong.services.private_deployments import PrivateDeployments

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from platform_kit import Platform

ID = "3fa85f64-0000-4000-8000-000000000001"


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with open_platform(tmp_path) as opened:
        yield opened


@pytest.fixture
def private(platform: Platform) -> PrivateDeployments:
    stores = platform.stores
    place = Place(
        platform.home / "logs", platform.home / "deployments", platform.signer.public_key, "x86", platform.settings
    )
    specs = DeploymentSpecs(
        stores.pipelines, stores.models, stores.workspaces, platform.packager, platform.keyring, place
    )
    folder = platform.home / "deployments"
    return PrivateDeployments(
        specs, stores.deployments, stores.pipelines, platform.runtime, platform.signer, folder, now
    )


@pytest.fixture
def job(platform: Platform) -> Job:
    workspace = platform.workspace("bob")
    version = platform.pipeline("bob", workspace, platform.model("bob", workspace))
    request = {"pipeline_id": version.pipeline_id, "pipeline_version": version.version}
    bob = platform.principal("bob").user_id
    return Job(ID, JobKind.INFER_BATCH, workspace, bob, request, JobState.RUNNING, now())


def test_it_listens_on_loopback_logs_nothing_and_has_a_label_of_its_own(
    platform: Platform, private: PrivateDeployments, job: Job
) -> None:
    private.start(job)

    spec = platform.runtime.deployed[0]
    assert (spec.label, spec.host, spec.hosts, spec.log_folder) == ("job-3fa85f64", "127.0.0.1", (), "")
    assert (spec.pipeline_version, spec.name) == (job.request["pipeline_version"], "rental")
    writer = open_log(spec, "engine-1")
    assert isinstance(writer, NothingKept)
    assert list((platform.home / "logs").rglob("*")) == []


def test_it_takes_the_tokens_of_its_job_and_no_others(
    platform: Platform, private: PrivateDeployments, job: Job
) -> None:
    private.start(job)
    spec = platform.runtime.deployed[0]
    its_own = TokenVerifier(spec.public_key, audience=spec.audience)
    everybody = TokenVerifier(spec.public_key)
    of_job = f"Bearer {private.token(job)}".encode()
    of_another = f"Bearer {private.token(replace(job, id=ID[:-1] + '2'))}".encode()
    of_bob = f"Bearer {platform.services.identity.exchange(platform.principal('bob')).access_token}".encode()

    assert its_own.verify(of_job).may_see(job.workspace_id)
    for verifier, token in ((its_own, of_bob), (its_own, of_another), (everybody, of_job)):
        with pytest.raises(Unauthenticated):
            verifier.verify(token)
    with pytest.raises(Unauthenticated):
        platform.services.identity.authenticate(private.token(job), "")


def test_it_runs_as_the_deployment_of_its_pipeline_is_configured(
    platform: Platform, private: PrivateDeployments, job: Job
) -> None:
    bob = platform.principal("bob")
    platform.services.deployments.deploy(bob, "rental", {"engine": {"replicas": 2, "cpu": 2}})

    private.start(job)

    assert [(s.replicas, s.cpus) for s in platform.runtime.deployed] == [(2, 2.0), (2, 2.0)]


def test_it_serves_once_all_of_it_is_healthy(platform: Platform, private: PrivateDeployments, job: Job) -> None:
    assert private.serving(job) is None
    private.start(job)

    platform.runtime.change = lambda seen: replace(seen, serving=0)
    assert private.serving(job) is None
    platform.runtime.change = lambda seen: replace(
        seen, replicas=tuple(replace(r, state=State.UNKNOWN) for r in seen.replicas)
    )
    assert private.serving(job) is None
    platform.runtime.change = lambda seen: seen
    serving = private.serving(job)

    assert serving is not None
    assert serving.url == "http://127.0.0.1:41000/pipelines/rental"
    assert serving.lanes >= 1


def test_a_model_that_does_not_load_is_told_with_its_reason(
    platform: Platform, private: PrivateDeployments, job: Job
) -> None:
    private.start(job)
    platform.runtime.change = lambda seen: replace(seen, serving=0, error="ImportError: no module named torch")

    with pytest.raises(ModelFailed, match="does not load: ImportError: no module named torch"):
        private.serving(job)


def test_what_no_unended_job_wants_is_stopped_and_forgotten_and_pipelines_are_left_alone(
    platform: Platform, private: PrivateDeployments
) -> None:
    folder = platform.home / "deployments"
    for name in ("job-3fa85f64", "job-00000002", "job-7", "rental-1"):
        (folder / name).mkdir(parents=True)
        (folder / name / "host.log").write_text("{}")

    stopped = private.stop_leftovers([ID])

    assert stopped == ["job-00000002"]
    assert sorted(path.name for path in folder.iterdir()) == ["job-3fa85f64", "job-7", "rental-1"]
