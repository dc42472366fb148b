"""Models on the Hugging Face Hub: a model folder goes up with a page about it, and comes down.

What comes down is read as any model folder is: two files, tensors and JSON, of which nothing is
run. Names of columns and the levels of categories are part of a model, so it goes up as private
unless that is asked otherwise.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twofold import __version__
from twofold.errors import MissingExtraError, ModelFileError
from twofold.formatting import pairs
from twofold.persistence import summary
from twofold.persistence.folder import DOCUMENT, WEIGHTS

if TYPE_CHECKING:
    from types import ModuleType

    from twofold.estimators.autoencoder import Autoencoder

CARD = "README.md"
_REPOSITORY = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def push_to_hub(
    model: Autoencoder,
    repo_id: str,
    private: bool | None,
    commit: Mapping[str, str | None],
    connection: Mapping[str, str | None],
) -> str:
    """Put a fitted model on the hub; return the commit's address.

    `commit` has a revision and a message, `connection` a token and an endpoint.

    Raises
    ------
    ModelFileError
        If the hub refuses it or cannot be reached.
    MissingExtraError
        If huggingface_hub is not installed.
    """
    api = _hub().HfApi(library_name="twofold", **connection)

    def upload() -> Any:
        api.create_repo(repo_id, private=private, exist_ok=True)
        return api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=[DOCUMENT, WEIGHTS, CARD],
            **commit,
        )

    with tempfile.TemporaryDirectory(prefix="twofold-") as scratch:
        folder = Path(scratch, "model")
        model.save(folder)
        (folder / CARD).write_text(card(model, repo_id), encoding="utf-8")
        what = f"The model could not be uploaded to {repo_id}"
        return str(_ask(upload, what, connection["token"]).commit_url)


def fetch(
    source: str | os.PathLike[str],
    revision: str | None = None,
    *,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
) -> Path:
    """Return the folder that holds a model of the hub, or the source itself where it is a folder.

    Parameters and errors are those of `Autoencoder.from_pretrained`.
    """
    repo_id = os.fspath(source)
    if repo_id and Path(source).is_dir():
        return Path(source)
    if not _REPOSITORY.fullmatch(repo_id):
        raise ModelFileError(
            f"Expected a folder that exists or a repository 'user/name', got {repo_id!r:.200}. "
            f"Correct the name."
        )
    hub = _hub()

    def download() -> str:
        return str(
            hub.snapshot_download(
                repo_id,
                revision=revision,
                allow_patterns=[DOCUMENT, WEIGHTS],
                cache_dir=cache_dir,
                token=token,
                endpoint=endpoint,
                library_name="twofold",
                library_version=__version__,
            )
        )

    return Path(_ask(download, f"{repo_id} could not be read from the hub", token))


def card(model: Autoencoder, repo_id: str) -> str:
    """Return the page about a model, in Markdown: what it was trained on, how, and how to load it.

    Examples
    --------
    >>> import numpy as np
    >>> from twofold import Autoencoder
    >>> X = np.random.default_rng(0).normal(size=(30, 4))
    >>> ae = Autoencoder(n_components=2, epochs=1, random_state=0).fit(X)
    >>> print(card(ae, "jo/pumps").splitlines()[8])
    # pumps
    """
    schema, network = model.schema_, model.network_
    kind = "tied" if network.tied else "untied"
    comparison = model.comparison_
    figures = {
        "columns": f"{len(schema.columns):,}",
        "code": f"{network.n_components:,} components",
        "parameters": f"{network.n_parameters:,}",
        "twofold": __version__,
    }
    parts = [
        "---\nlibrary_name: twofold\ntags:\n- twofold\n- autoencoder\n- anomaly-detection\n---",
        f"# {repo_id.rpartition('/')[2]}",
        f"A stacked autoencoder with {kind} weights, made with twofold. It turns a row of "
        f"{len(schema.columns):,} columns into a code of {network.n_components:,} numbers and "
        f"back, says how normal a row is and why, fills missing cells, and draws new rows.",
        _verbatim(pairs(figures)),
        f"## Columns\n\nThe rows had {schema}.",
        _verbatim(summary.columns(model)),
        "## Layers",
        _verbatim(model.summary()),
        "## Training",
        _verbatim(summary.training(model)),
        "Options that differ from the defaults:",
        _verbatim(summary.changed_options(model.get_params(deep=False))),
        "## Comparison with PCA",
        f"Both with {comparison.n_components:,} components, on {comparison.n_rows:,} rows.",
        _verbatim(
            pairs(
                {
                    "variance kept by the network": f"{100 * comparison.r2:.1f} %",
                    "variance kept by PCA": f"{100 * comparison.r2_pca:.1f} %",
                    "squared error, PCA's being 1": f"{comparison.ratio:.3g} times",
                }
            )
        ),
        "## How to load it",
        "The folder holds tensors and JSON; loading it runs no code.",
        f'```sh\npip install "twofold[hub]=={__version__}"\n```',
        "```python\nfrom twofold import Autoencoder\n\n"
        f'ae = Autoencoder.from_pretrained("{repo_id}")\n```',
    ]
    return "\n\n".join(parts) + "\n"


def _verbatim(text: str) -> str:
    """Put text into a block, whatever it holds."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _hub() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtraError(
            "The hub needs huggingface_hub, and it is not installed. Install 'twofold[hub]'."
        ) from error
    return huggingface_hub


def _ask(request: Callable[[], Any], what: str, token: str | None) -> Any:
    """Ask the hub for something; raise what goes wrong as a sentence without the token."""
    try:
        return request()
    except Exception as error:  # among them those of its HTTP client, which has changed twice
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2]) or type(error).__name__
        if token:
            reason = reason.replace(token, "...")
        raise ModelFileError(
            f"{what}: {reason.rstrip('.')}. Check the name, the revision, the network and "
            f"whether you may ('hf auth login')."
        ) from None
