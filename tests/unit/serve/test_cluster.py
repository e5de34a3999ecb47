"""What Ray Serve is told and asked of replicas; `tests/e2e/test_serve_ray.py` lets it run them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from fluxone.errors import BadRequest, FluxoneError, MissingExtra, UnknownName
from fluxone.serve import cluster
from fluxone.serve import run as run_
from fluxone.serve.settings import Settings
from unit.serve.conftest import BASE
from unit.tiny import pipeline


def test_a_replica_is_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = pipeline(tmp_path / "tiny")
    monkeypatch.setattr(run_, "load", lambda settings, models, device: {"tiny": model})
    before = sys.getswitchinterval()
    worn: list[str] = []

    class Worn(cluster.Replica):
        async def wear(self, lora: str) -> str:
            worn.append(lora)
            return await super().wear(lora)

    replica = Worn(Settings(folder=tmp_path), name="fluxone-one")
    app = replica.__serve_build_asgi_app__()
    with TestClient(app, base_url=BASE) as client:
        assert client.get("/readyz").json()["ready"], "its models are there before it has requests"
        assert replica.record_autoscaling_stats() == {"tasks": 0.0}
        replica.check_health()
        assert app.app.state.serving.jobs.settings.own_name == "fluxone-one"
        assert worn == []
        client.get("/healthz", headers={"Serve-Multiplexed-Model-Id": "tok"})
        assert worn == ["tok"]
    sys.setswitchinterval(before)
    with pytest.raises(FluxoneError, match="has ended"):
        replica.check_health()


@pytest.mark.parametrize(
    ("tasks", "wanted"), [({}, 2), ({"a": 0.0, "b": 1.0}, 2), ({"a": 8.0, "b": 5.0}, 4), ({"a": 99.0}, 5)]
)
def test_replicas_by_what_there_is_to_draw(tasks: dict[str, float], wanted: int) -> None:
    for metrics in ({"tasks": tasks}, None if not tasks else {"tasks": tasks, "other": {"a": 7.0}}):
        context = SimpleNamespace(
            aggregated_metrics=metrics, capacity_adjusted_min_replicas=2, capacity_adjusted_max_replicas=5
        )
        assert cluster.scaled(context) == (wanted, {})


def test_what_ray_is_told() -> None:
    fixed = cluster.options_of(Settings(replicas=3, replica_gpus=1.0))
    assert fixed["num_replicas"] == 3
    assert fixed["ray_actor_options"] == {"num_cpus": 1.0, "num_gpus": 1.0}
    limits = cluster.options_of(Settings(replicas=1, most_replicas=4))["autoscaling_config"]
    assert (limits["min_replicas"], limits["max_replicas"]) == (1, 4)
    module, _, name = limits["policy"]["policy_function"].partition(":")
    assert getattr(sys.modules[module], name) is cluster.scaled
    for replicas, most in ((0, 0), (3, 2)):
        with pytest.raises(BadRequest, match=f"replicas is {replicas}"):
            cluster.options_of(Settings(replicas=replicas, most_replicas=most))


def test_paths_are_whole_wherever_a_replica_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tok.safetensors").touch()
    told = cluster._everywhere(Settings(folder=Path("state"), finetunes={"tok": "tok.safetensors"}))
    assert (told.folder, told.finetunes, told.models) == (
        tmp_path / "state", {"tok": str(tmp_path / "tok.safetensors")}, ("mini",),
    )  # fmt: skip


def test_ray_is_an_extra_and_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(os.environ, cluster.USAGE, "0")
    with pytest.raises(MissingExtra, match=r"fluxone\[ray\]"):
        run_.serve(Settings(engine="ray", folder=tmp_path))
    with pytest.raises(UnknownName, match="ray"):
        run_.serve(Settings(engine="rya", folder=tmp_path))
