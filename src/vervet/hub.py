"""Models from the Hugging Face Hub, with the cache, the login and the environment variables of huggingface_hub."""

from __future__ import annotations

import re
from pathlib import Path

from vervet import __version__

# OWNER/MODEL, with a branch, tag or commit behind an @
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


def is_name(model: str) -> bool:
    """Tell whether this may be the name of a model on the Hub, such as `owner/model` or `owner/model@v1.0`."""
    return bool(NAME.fullmatch(model)) and not model.endswith(".onnx")


def fetch(name: str) -> Path:
    """Download a model, or find it in the cache.

    Parameters
    ----------
    name : str
        `owner/model`, or `owner/model@revision` with a branch, a tag or a commit.

    Returns
    -------
    pathlib.Path
        Its `model.onnx`; nothing else is downloaded.

    Raises
    ------
    ValueError
        If huggingface_hub is not installed, there is no such model or revision, it holds no `model.onnx`, or it can
        neither be reached nor is it in the cache.
    """
    try:
        from huggingface_hub import errors, hf_hub_download
    except ModuleNotFoundError:
        raise ValueError(
            f"{name}: no such file or folder; if it is a model of the Hugging Face Hub: pip install 'vervet[hub]'"
        ) from None
    repository, _, revision = name.partition("@")
    try:
        path = hf_hub_download(
            repository, "model.onnx", revision=revision or None, library_name="vervet", library_version=__version__
        )
    except errors.RevisionNotFoundError as error:
        raise ValueError(f"{name}: on the Hugging Face Hub, {repository} has no revision {revision}") from error
    except errors.GatedRepoError as error:
        raise ValueError(
            f"{name}: its owner grants access one by one; ask on its page on the Hugging Face Hub, then 'hf auth login'"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(
            f"{name}: no such file or folder, and no such model on the Hugging Face Hub; check the spelling, and if it "
            "is private, 'hf auth login'"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise ValueError(
            f"{name}: no such file or folder, and the Hugging Face Hub cannot be asked, because it cannot be reached "
            "or HF_HUB_OFFLINE is set; nor is the model in its cache"
        ) from error
    except errors.EntryNotFoundError as error:
        raise ValueError(f"{name}: holds no model.onnx; it is not a model that Vervet can run") from error
    # connections that break on the way, of a library that changes from version to version
    except Exception as error:
        raise ValueError(f"{name}: could not be fetched from the Hugging Face Hub ({error}); try again") from error
    return Path(path)
