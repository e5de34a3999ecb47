"""Each way in which the hub fails has its own sentence and its own step to take."""

from __future__ import annotations

import errno
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from fluxone.errors import CannotWrite, FluxoneError, HubError
from fluxone.weights import hub

REPO = "black-forest-labs/FLUX.1-dev"


class Answer:
    """As much of a response as the errors look at."""

    def __init__(self, status: int) -> None:
        self.status_code = status
        self.headers: dict[str, str] = {}
        self.request = None
        self.text = ""


def http(kind: type[errors.HfHubHTTPError], status: int) -> Exception:
    return kind("the server's own words", response=Answer(status))  # type: ignore[arg-type]


FAULTS: dict[str, tuple[Callable[[], Exception], str | None, type[FluxoneError], str]] = {
    "gated, no token": (
        lambda: http(errors.GatedRepoError, 401), None, HubError,
        f"{REPO} is gated.*accept its licence at https://huggingface.co/{REPO}, then log in with `hf auth login`",
    ),
    "gated, token": (
        lambda: http(errors.GatedRepoError, 403), "hf_x", HubError, f"{REPO} is gated.*with the account of your token",
    ),
    "absent, no token": (
        lambda: http(errors.RepositoryNotFoundError, 401), None, HubError,
        f"{REPO} does not exist on the hub, or is private; check its name; if it is private, log in",
    ),
    "absent, token": (
        lambda: http(errors.RepositoryNotFoundError, 404), "hf_x", HubError,
        f"{REPO} does not exist on the hub, or is private; check its name$",
    ),
    "no network": (
        lambda: errors.LocalEntryNotFoundError("no way"), None, HubError,
        "not in the cache, or not all of it, and there is no way to the hub",
    ),
    "connection": (lambda: ConnectionError("refused"), None, HubError, "there is no way to the hub; check the network"),
    "bad token": (lambda: http(errors.HfHubHTTPError, 401), "hf_x", HubError, "answered 401.*token is not accepted"),
    "busy": (lambda: http(errors.HfHubHTTPError, 503), None, HubError, "answered 503.*try again"),
    "no id": (lambda: errors.HFValidationError("two dots"), None, HubError, "is no hub id: two dots"),
    "full": (lambda: OSError(errno.ENOSPC, "No space left"), None, CannotWrite, "cannot be kept: No space left"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)


def snapshot(monkeypatch: pytest.MonkeyPatch, work: Callable[..., str]) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", work)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_has_its_sentence(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, token, error, words = FAULTS[fault]

    def fail(*_: object, **__: object) -> str:
        raise make()

    snapshot(monkeypatch, fail)
    with pytest.raises(error, match=words) as caught:
        hub.download(REPO, token=token)
    assert caught.value.hint
    assert "hf_x" not in str(caught.value)


def test_a_stored_token_counts_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise http(errors.GatedRepoError, 403)

    snapshot(monkeypatch, fail)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_stored")
    with pytest.raises(HubError, match="with the account of your token"):
        hub.download(REPO)


def test_offline_by_wish_says_how_to_undo_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        HubError,
        match="not in the cache, or not all of it, and HF_HUB_OFFLINE forbids the network; unset HF_HUB_OFFLINE",
    ):
        hub.download(REPO)


def test_only_what_is_needed_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, object] = {}

    def work(repo: str, **rest: object) -> str:
        asked.update(rest, repo=repo)
        (tmp_path / "model_index.json").write_text("{}")
        return str(tmp_path)

    snapshot(monkeypatch, work)
    assert hub.download(REPO, token="hf_x") == tmp_path
    assert (asked["repo"], asked["token"]) == (REPO, "hf_x")
    patterns = asked["allow_patterns"]
    assert isinstance(patterns, list)

    def wanted(name: str) -> bool:
        return any(fnmatch(name, pattern) for pattern in patterns)

    for name in ("model_index.json", "transformer/diffusion_pytorch_model-00001-of-00003.safetensors",
                 "vae/config.json",
                 "transformer/diffusion_pytorch_model.safetensors.index.json", "tokenizer/merges.txt",
                 "tokenizer_2/spiece.model", "scheduler/scheduler_config.json"):  # fmt: skip
        assert wanted(name), name
    for name in (
        "flux1-dev.safetensors",
        "ae.safetensors",
        "README.md",
        "text_encoder/pytorch_model.bin",
        "dev_grid.jpg",
    ):
        assert not wanted(name), name


def test_a_repository_of_another_layout_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    snapshot(monkeypatch, lambda *_, **__: str(tmp_path))
    with pytest.raises(HubError, match=r"has no model_index.json.*download its .safetensors file"):
        hub.download(REPO)
