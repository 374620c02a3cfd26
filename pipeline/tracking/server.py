"""Checks of a tracking server before the first training: it answers, and it stores logged models."""

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

SERVER_TIMEOUT_SECONDS = 10  # for the first answer, unless MLFLOW_HTTP_REQUEST_TIMEOUT is set
MODELS_SINCE = "3"  # the first MLflow version with logged models
_PROBE = "/api/2.0/mlflow/experiments/search"  # needs the rights of later requests; /health needs none


def check(uri: str) -> None:
    """Send a server one small request as MLflow's client, without retries and with a timeout.

    Raises:
        UserError: the server does not answer, fails, refuses access or TLS, or is not an MLflow server.
    """
    timeout = (
        MLFLOW_HTTP_REQUEST_TIMEOUT.get() if MLFLOW_HTTP_REQUEST_TIMEOUT.is_set() else SERVER_TIMEOUT_SECONDS
    )
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
            f"{server} answers {status} {answer.reason}; rerun the same command when the server works"
        )
    raise UserError(
        f"{server} does not answer as an MLflow server ({status} {answer.reason} for {_PROBE}); change or "
        "unset MLFLOW_TRACKING_URI"
    )


def _no_answer(uri: str, error: MlflowException, timeout: float) -> str:
    """The message for a server that did not answer."""
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
    """The reason of a TLS failure, without the messages of the layers around it."""
    text = first_line(error) if error else ""
    return text[text.rfind("[") :].rstrip("')\" ") if "[" in text else text


def _is_json(answer: requests.Response) -> bool:
    try:
        return isinstance(answer.json(), dict)
    except requests.JSONDecodeError:
        return False


def check_logged_models(uri: str, experiment: str) -> None:
    """Check that a server stores logged models; otherwise a sweep would fail after its first training.

    Raises:
        UserError: it does not.
        StoreError: the store fails.
    """
    try:
        MlflowClient().search_logged_models([experiment], max_results=1)
    except MlflowException as error:
        if error.get_http_status_code() != 404 and "404" not in str(error):
            raise
        raise UserError(
            f"the tracking server {without_password(uri)} does not store logged models, "
            f"which trained models need; it {_version(uri)}: upgrade it to mlflow>={MODELS_SINCE}, or change "
            "or unset MLFLOW_TRACKING_URI"
        ) from None


def _version(uri: str) -> str:
    """The version that a server reports, as the predicate of a sentence."""
    with suppress(MlflowException):
        answer = http_request(
            get_default_host_creds(uri), "/version", "GET", max_retries=0, timeout=SERVER_TIMEOUT_SECONDS
        )
        if answer.status_code == 200 and len(answer.text) < 30:
            return f"reports MLflow {answer.text.strip()}"
    return "reports no version"
