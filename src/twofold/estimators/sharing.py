"""How a fitted model goes out: as a page for people, as a graph, and to the hub."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sklearn.utils.validation import check_is_fitted

from twofold.estimators.model import FittedModel

if TYPE_CHECKING:
    from twofold.report.checks import Caution


class SharedModel(FittedModel):
    """A fitted model that can be shown, exported and uploaded."""

    def report(
        self,
        X: Any,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        say: Callable[[str], None] | None = None,
    ) -> list[Caution]:
        """Write a page about the model and the rows of X, and return what it calls for.

        The page holds everything it shows, and asks no other machine for anything.

        Parameters
        ----------
        X : as in `fit`
            Rows to judge the model by, best ones that it has not seen.
        path : path-like
            The HTML file to write, whole or not at all.
        overwrite : bool, default=False
            Whether a file that is there may be replaced.
        say : callable, optional
            Told in a line now and then how far it got, where it takes more than two seconds.

        Returns
        -------
        list of Caution
            What is amiss and what to do, as the page says it: `text`, `advice`, and whether it is
            `urgent`.

        Raises
        ------
        OutputExistsError
            Where the file exists and `overwrite` is false, or is a folder.
        DataError
            Where the rows cannot be used, or the file cannot be written.

        Examples
        --------
        >>> import numpy as np
        >>> from twofold import Autoencoder
        >>> x = np.random.default_rng(0).normal(size=(500, 1))
        >>> X = np.hstack([x, x**2, np.sin(x), np.exp(x)])
        >>> cautions = Autoencoder(random_state=0).fit(X).report(X, "report.html")
        >>> "few-rows" in [caution.kind for caution in cautions]
        True
        """
        from twofold.report import document as report

        check_is_fitted(self, "network_")
        return report.write(self, X, path, overwrite, say=say)

    def export_onnx(
        self, path: str | os.PathLike[str], part: str = "all", *, overwrite: bool = False
    ) -> None:
        """Write the model as one ONNX graph from cells to cells, for machines without twofold.

        Parameters
        ----------
        path : path-like
            The file to write, whole or not at all.
        part : "all", "encoder", "decoder" or "scorer", default="all"
            "all" takes rows and gives codes, reconstruction, score and decision. "encoder" gives
            the codes alone, "scorer" score and decision. "decoder" takes codes and gives the
            reconstruction.
        overwrite : bool, default=False
            Whether a file that is there may be replaced.

        Raises
        ------
        OptionError
            Where the model cannot be a graph; the message says why.
        OutputExistsError
            Where the file exists and `overwrite` is false, or is a folder.
        DataError
            Where the file cannot be written.
        MissingExtraError
            Where the extra `onnx` is not installed.

        Examples
        --------
        >>> import numpy as np
        >>> from twofold import Autoencoder
        >>> X = np.random.default_rng(0).normal(size=(30, 4))
        >>> ae = Autoencoder(n_components=2, epochs=1, random_state=0).fit(X)
        >>> ae.export_onnx("model.onnx")  # doctest: +SKIP
        """
        from twofold.persistence.onnx import export

        export.onnx(self, path, part, overwrite)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = True,
        revision: str | None = None,
        commit_message: str = "Upload a twofold model",
        token: str | None = None,
        endpoint: str | None = None,
    ) -> str:
        """Put the model on the Hugging Face Hub, with a page that says what it is.

        Parameters
        ----------
        repo_id : str
            Where it goes: "user/name". The repository is made where there is none.
        private : bool or None, default=True
            Whether a new repository is private; None is the hub's own default. A model holds the
            names of its columns and the levels of its categories.
        revision : str, optional
            The branch; by default the main one.
        commit_message : str
            What the repository's history says.
        token : str, optional
            Access token; by default the one that `hf auth login` keeps, or `HF_TOKEN`.
        endpoint : str, optional
            Address of the hub, for one of your own.

        Returns
        -------
        str
            The address of what was uploaded.

        Raises
        ------
        ModelFileError
            Where the hub cannot be reached or refuses.
        MissingExtraError
            Where the extra `hub` is not installed.
        """
        from twofold.persistence import hub

        return hub.push_to_hub(
            self,
            repo_id,
            private=private,
            revision=revision,
            commit_message=commit_message,
            token=token,
            endpoint=endpoint,
        )
