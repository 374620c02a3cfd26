"""A tracking server: check that it answers and keeps logged models, before anything is trained."""

from contextlib import suppress

import requests
from mlflow import MlflowClient
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from pipeline.runtime.credentials import without_password
from pipeline.runtime.errors import UserError
from pipeline.tracking import first_line

SERVER_TIMEOUT = 10  # seconds to answer the first request, unless MLFLOW_HTTP_REQUEST_TIMEOUT is set
MODELS_SINCE = "3"  # the first MLflow version with logged models
_PROBE = "/api/2.0/mlflow/experiments/search"  # needs the same rights as what follows; /health needs none


def check(uri: str) -> None:
    """Ask a server one small thing, as MLflow's client would, once and with a limit of time.

    Raises:
        UserError: it does not answer, does not trust us or is not trusted, or is no MLflow server.
    """
    timeout = MLFLOW_HTTP_REQUEST_TIMEOUT.get() if MLFLOW_HTTP_REQUEST_TIMEOUT.is_set() else SERVER_TIMEOUT
    try:
        answer = http_request(
            get_default_host_creds(uri),
            _PROBE,
            "GET",
            params={"max_results": 1},
            max_retries=0,
            timeout=timeout,
            raise_on_status=False,
        )
    except MlflowException as error:
        raise UserError(_no_answer(uri, error, timeout)) from None
    server, status = f"the tracking server {without_password(uri)}", answer.status_code
    if status in (401, 403):
        raise UserError(
            f"{server} refuses access ({status} {answer.reason}); set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to an account that may use it"
        )
    if status == 200 and _is_json(answer):
        return
    if status >= 500 or status == 429:
        raise UserError(
            f"{server} answers {status} {answer.reason}; run the same command again when it works"
        )
    raise UserError(
        f"{server} does not answer as an MLflow server ({status} {answer.reason} for {_PROBE}); change or "
        "unset MLFLOW_TRACKING_URI"
    )


def _no_answer(uri: str, error: MlflowException, timeout: float) -> str:
    """The message where there was no answer at all."""
    server, cause = f"the tracking server {without_password(uri)}", error.__context__
    if isinstance(cause, requests.exceptions.SSLError) or "SSL" in str(cause):
        reason = _innermost(cause)
        return (
            f"{server} cannot be reached by TLS ({reason}); set MLFLOW_TRACKING_SERVER_CERT_PATH to a file "
            "with the certificate to trust, the server's own or its authority's (PEM); "
            "MLFLOW_TRACKING_CLIENT_CERT_PATH if it asks for yours; MLFLOW_TRACKING_INSECURE_TLS=true trusts "
            "any server"
        )
    if isinstance(cause, requests.ConnectionError | requests.Timeout):
        return (
            f"{server} does not answer within {timeout:g} s ({type(cause).__name__}); start it, or change or "
            "unset MLFLOW_TRACKING_URI (unset: runs go to mlflow.db beside MLproject)"
        )
    return (
        f"{server} cannot be used: {first_line(cause or error)}; check MLFLOW_TRACKING_SERVER_CERT_PATH and "
        "MLFLOW_TRACKING_CLIENT_CERT_PATH (absolute paths, since `mlflow run` works in the project's folder) "
        "and the other MLFLOW_TRACKING_ variables"
    )


def _innermost(error: BaseException | None) -> str:
    """What TLS says of a failure, without the layers around it."""
    text = first_line(error) if error else ""
    return text[text.rfind("[") :].rstrip("')\" ") if "[" in text else text


def _is_json(answer: requests.Response) -> bool:
    try:
        return isinstance(answer.json(), dict)
    except requests.JSONDecodeError:
        return False


def check_logged_models(uri: str, experiment: str) -> None:
    """Refuse a server without logged models: it would fail after the first training.

    Raises:
        UserError: it has none.
    """
    try:
        MlflowClient().search_logged_models([experiment], max_results=1)
    except MlflowException as error:
        if error.get_http_status_code() != 404 and "404" not in str(error):
            raise
        raise UserError(
            f"the tracking server {without_password(uri)} has no logged models, which trained "
            f"models are stored as; it {_version(uri)}: upgrade it to mlflow>={MODELS_SINCE}, or change "
            "or unset MLFLOW_TRACKING_URI"
        ) from None


def _version(uri: str) -> str:
    """What a server says of its version."""
    with suppress(MlflowException):
        answer = http_request(
            get_default_host_creds(uri), "/version", "GET", max_retries=0, timeout=SERVER_TIMEOUT
        )
        if answer.status_code == 200 and len(answer.text) < 30:
            return f"says that it is MLflow {answer.text.strip()}"
    return "does not say its version"
