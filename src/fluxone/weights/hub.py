"""Models of the Hugging Face hub: exactly the files that are needed, and a clear sentence where they cannot be had."""

from __future__ import annotations

from pathlib import Path

from fluxone.errors import CannotWrite, HubError
from fluxone.weights.locate import INDEX, TOKENIZERS
from fluxone.weights.parts import FOLDERS

NEEDED = (
    INDEX,
    "scheduler/*.json",
    *(f"{folder}/*" for folder in TOKENIZERS.values()),
    *(f"{folder}/*{ending}" for folder in FOLDERS.values() for ending in (".json", ".safetensors")),
)
LOG_IN = "log in with `hf auth login`, or give a token"
SITE = "https://huggingface.co"


def download(repo: str, *, token: str | None = None) -> Path:
    """Fetch a model in the diffusers layout, or find it in the cache, and return its folder.

    Raises:
        HubError: the repository is gated, absent or private, in another layout, or out of reach.
        CannotWrite: the cache cannot be written.
    """
    import huggingface_hub as hf
    from huggingface_hub import constants, errors

    try:
        folder = Path(hf.snapshot_download(repo, allow_patterns=list(NEEDED), token=token))
    except errors.GatedRepoError:
        if token is None and hf.get_token() is None:
            hint = f"accept its licence at {SITE}/{repo}, then {LOG_IN}"
        else:
            hint = f"accept its licence at {SITE}/{repo} with the account of your token"
        raise HubError(f"{repo} is gated: its owner gives access on request", hint=hint) from None
    except errors.RepositoryNotFoundError:
        hint = "check its name"
        if token is None and hf.get_token() is None:
            hint += f"; if it is private, {LOG_IN}"
        raise HubError(f"{repo} does not exist on the hub, or is private", hint=hint) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError, TimeoutError):
        offline = constants.HF_HUB_OFFLINE
        why = "HF_HUB_OFFLINE forbids the network" if offline else "there is no way to the hub"
        hint = "unset HF_HUB_OFFLINE" if offline else "check the network"
        raise HubError(
            f"{repo} is not in the cache, or not all of it, and {why}",
            hint=f"{hint}, or give the path of a folder or file",
        ) from None
    except errors.HfHubHTTPError as error:
        code = getattr(error.response, "status_code", "no status")
        raise HubError(f"the hub answered {code} for {repo}", hint=_hint(code)) from None
    except errors.HFValidationError as error:
        raise HubError(f"{repo!r} is no hub id: {error}", hint="write org/name") from None
    except OSError as error:
        raise CannotWrite(
            f"{repo} cannot be kept: {error.strerror or error}", hint="make room in the hub's cache"
        ) from None
    if not (folder / INDEX).is_file():
        raise HubError(
            f"{repo} has no {INDEX}, so it is not in the diffusers layout",
            hint=f"download its .safetensors file from {SITE}/{repo} and give the path",
        )
    return folder


def _hint(code: object) -> str:
    if code in (401, 403):
        return f"the token is not accepted: {LOG_IN} again"
    return "wait a little and try again" if code == 429 or str(code).startswith("5") else "check the repository's name"
