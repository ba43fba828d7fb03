"""Data sets on the Hugging Face hub: pinned to a commit, and what goes wrong said in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from nemo_reasoning.errors import DataError

PROTOCOL = "hf://datasets/"


@contextmanager
def hub_errors(dataset: str, *, remedy: str) -> Iterator[None]:
    """Turn what the hub's library raises into one line.

    Args:
        dataset: Such as "nvidia/Nemotron-Post-Training-Dataset-v2".
        remedy: How to do without the hub, in words.

    Raises:
        DataError: The data set is gated, unknown or out of reach.
    """
    from huggingface_hub import errors

    address = f"https://huggingface.co/datasets/{dataset}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise DataError(
            f"the data set {dataset} is gated: accept its terms at {address}, then set HF_TOKEN to a token of the "
            "same account"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DataError(f"the data set {dataset} has no such revision; see {address}/commits") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise DataError(f"{dataset} is neither a directory nor a data set you can see at {address}") from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        remedy = {401: "set HF_TOKEN to a valid token", 429: "wait some minutes, or set HF_TOKEN, and run again"}.get(
            status or 0, f"check the network, or {remedy} from {address}"
        )
        raise DataError(f"the hub refuses the data set {dataset} (status {status}): {remedy}") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, OSError) as error:
        raise DataError(
            f"the data set {dataset} is out of reach ({type(error).__name__}): check the network, or {remedy} "
            f"from {address}"
        ) from error


def pinned(dataset: str, *, revision: str) -> str:
    """Return the address of a data set at the commit that a revision is now.

    Raises:
        DataError: It is gated, unknown or out of reach.
    """
    from huggingface_hub import HfApi

    with hub_errors(dataset, remedy="give the folder of a copy as data.root, downloaded"):
        found = HfApi().dataset_info(dataset, revision=revision, timeout=60)
        if found.gated:  # what is listed may not be read
            HfApi().auth_check(dataset, repo_type="dataset")
    return f"{PROTOCOL}{dataset}@{found.sha}"
