"""The service answers what Python answers, in the same words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from starlette.applications import Starlette

from tests.service.client import (
    ARROW,
    JSON,
    ROW_ROUTES,
    Serve,
    ask,
    body,
    cells,
    fitted,
    good,
    objects,
    people,
    post,
    refused,
    scope_of,
)
from twofold import Autoencoder
from twofold.errors import OptionError, TwofoldError
from twofold.service import app as service


@pytest.mark.parametrize("form", [cells, objects])
@pytest.mark.parametrize("n", [1, 7, 120])
def test_scores_are_pythons(people_app: Starlette, mixed: Autoencoder, form: Any, n: int) -> None:
    frame = people()[:n]
    found = good(post(people_app, "/score", {"rows": form(frame)}))
    assert found["score"] == mixed.score_samples(frame).tolist()
    assert found["p_value"] == mixed.anomaly_pvalue(frame).tolist()
    assert found["label"] == mixed.predict(frame).tolist()
    assert found["offset"] == mixed.offset_


def test_codes_are_pythons(people_app: Starlette, mixed: Autoencoder) -> None:
    found = good(post(people_app, "/encode", {"rows": cells(people())}))
    assert found["codes"] == mixed.transform(people()).tolist()
    assert found["names"] == list(mixed.get_feature_names_out())


def test_reconstructions_are_pythons(people_app: Starlette, mixed: Autoencoder) -> None:
    found = good(post(people_app, "/reconstruct", {"rows": cells(people())}))
    assert found["columns"] == list(people().columns)
    frame = mixed.reconstruct(pa.Table.from_pandas(people())).to_pandas()
    assert found["rows"] == cells(frame)


def test_decoded_codes_are_pythons(people_app: Starlette, mixed: Autoencoder) -> None:
    codes = mixed.transform(people()).astype(float)
    found = good(post(people_app, "/decode", {"codes": codes.tolist()}))
    assert found["rows"] == cells(mixed.inverse_transform(codes))


def test_fillings_are_pythons(people_app: Starlette, mixed: Autoencoder) -> None:
    found = good(post(people_app, "/impute", {"rows": cells(people())}))
    assert found["rows"] == cells(mixed.impute(people()))
    for given, filled in zip(cells(people()), found["rows"], strict=True):
        assert [f for g, f in zip(given, filled, strict=True) if g is not None] == [
            g for g in given if g is not None
        ]


def test_draws_are_pythons(people_app: Starlette, mixed: Autoencoder) -> None:
    request = {"rows": cells(people()), "n_draws": 3, "random_state": 7}
    found = good(post(people_app, "/impute", request))
    drawn = mixed.impute(people(), n_draws=3, random_state=7)
    assert found["draws"] == [cells(frame) for frame in drawn]
    assert found["draws"][0] != found["draws"][1]


def test_new_rows_are_pythons(people_app: Starlette, mixed: Autoencoder) -> None:
    found = good(post(people_app, "/sample", {"n": 5, "random_state": 3}))
    assert found["rows"] == cells(mixed.sample(5, random_state=3))


def test_explanations_are_pythons(people_app: Starlette, mixed: Autoencoder) -> None:
    frame = people()[:9]
    found = good(post(people_app, "/explain", {"rows": cells(frame)}))
    expected = mixed.explain(frame)
    assert found["columns"] == list(expected.columns)
    for name in ("contribution", "base"):
        np.testing.assert_array_equal(found[name], getattr(expected, name))
    np.testing.assert_allclose(found["score"], mixed.score_samples(frame), rtol=1e-4)
    assert found["observed"][0][1] == frame["town"][0]
    assert found["observed"][3][:2] == [None, None]
    assert found["observed"][0][3] == frame["joined"][0].isoformat()
    assert found["expected"][3][0] == expected.expected[3, 0]


def test_explanations_add_up_to_the_score(people_app: Starlette) -> None:
    found = good(post(people_app, "/explain", {"rows": cells(people()[:9])}))
    sums = np.array(found["base"]) + np.sum(found["contribution"], axis=1)
    np.testing.assert_allclose(sums, -np.array(found["score"]), rtol=1e-12)


@pytest.mark.parametrize("route", ROW_ROUTES)
def test_model_of_an_array_answers_as_python_does(
    serve: Serve, array: Autoencoder, route: str
) -> None:
    x = np.random.default_rng(1).normal(size=(5, 4))
    x[0, 1] = np.nan
    rows = [[None if np.isnan(cell) else cell for cell in row] for row in x.tolist()]
    found = good(post(serve(array), f"/{route}", {"rows": rows}))
    expected = {
        "encode": lambda: found["codes"] == array.transform(x).tolist(),
        "reconstruct": lambda: found["rows"] == array.reconstruct(x).tolist(),
        "score": lambda: found["score"] == array.score_samples(x).tolist(),
        "explain": lambda: found["base"] == array.explain(x).base.tolist(),
        "impute": lambda: found["rows"] == array.impute(x).tolist(),
    }
    assert expected[route]()
    by_name = [dict(zip(array.schema_.names, row, strict=True)) for row in rows]
    assert good(post(serve(array), f"/{route}", {"rows": by_name})) == found


def test_images_are_images(serve: Serve, images: Autoencoder) -> None:
    x = np.random.default_rng(1).random((3, 4, 5))
    app = serve(images)
    nested = good(post(app, "/reconstruct", {"rows": x.tolist()}))
    assert nested["row_shape"] == [4, 5]
    assert nested["rows"] == images.reconstruct(x).reshape(3, 20).tolist()
    flat = good(post(app, "/reconstruct", {"rows": x.reshape(3, 20).tolist()}))
    assert flat["rows"] == nested["rows"]


def test_frame_whose_columns_are_numbered(serve: Serve) -> None:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 3)))
    ae = fitted(frame, n_components=2)
    found = good(post(serve(ae), "/score", {"rows": frame[:3].to_numpy().tolist()}))
    assert found["score"] == ae.score_samples(frame[:3]).tolist()


def test_service_is_healthy(people_app: Starlette) -> None:
    assert good(ask(people_app, "GET", "/healthz")) == {"status": "ok"}


BAD_ROWS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "text in a column of numbers": lambda f: f.assign(age=["x", *["1"] * (len(f) - 1)]),
    "numbers in a column of times": lambda f: f.assign(joined=1.5),
    "a missing column": lambda f: f.drop(columns="age"),
    "a column more": lambda f: f.assign(other=1.0),
    "no rows": lambda f: f[:0],
    "infinity": lambda f: f.assign(age=[np.inf, *[1.0] * (len(f) - 1)]),
}


@pytest.mark.parametrize("mistake", BAD_ROWS)
@pytest.mark.parametrize("route", ROW_ROUTES)
def test_errors_are_pythons(
    people_app: Starlette, mixed: Autoencoder, route: str, mistake: str
) -> None:
    frame = BAD_ROWS[mistake](people()[:4])
    table = pa.Table.from_pandas(frame, preserve_index=False)
    methods = {"encode": "transform", "score": "score_samples"}
    with pytest.raises(TwofoldError) as raised:
        getattr(mixed, methods.get(route, route))(table)
    given = body(table, ARROW)
    if mistake == "a column more":
        # In a file, the model's columns are picked; in JSON, it may be a misspelt one.
        given = {"json": {"rows": objects(frame)}}
    found = refused(ask(people_app, "POST", f"/{route}", **given), 422)
    assert found["error"] == str(raised.value)


def test_unknown_path_and_method_are_refused(people_app: Starlette) -> None:
    assert "Not Found" in refused(ask(people_app, "GET", "/nowhere"), 404)["error"]
    answer = ask(people_app, "GET", "/score")
    refused(answer, 405)
    assert answer.headers["allow"] == "POST"


def test_failure_of_the_service_is_told_without_details(serve: Serve, floats: Autoencoder) -> None:
    def broken(rows: Any) -> Any:
        raise RuntimeError("secret")

    app = serve(floats)
    app.state.service.current.verbs["score"].run = broken
    answer = post(app, "/score", {"rows": [[1, 2, 3]]})
    refused(answer, 500)
    assert "secret" not in answer.text


def test_client_that_goes_away_is_let_go(serve: Serve, floats: Autoencoder) -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    scope = scope_of("POST", "/score", {"content-type": JSON})
    app = serve(floats)
    asyncio.run(app(scope, receive, send))
    assert 'route="/score",status="499"' in ask(app, "GET", "/metrics").text


@pytest.mark.parametrize(
    "settings",
    [
        {"max_rows": 0},
        {"max_bytes": 0},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"batch_seconds": -1},
        {"token": ""},
        {"token": " x"},
    ],
)
def test_settings_without_meaning_are_refused(
    floats: Autoencoder, settings: dict[str, Any]
) -> None:
    with pytest.raises(OptionError, match=next(iter(settings))):
        service.create_app(floats, **settings)
