"""A patch of MLflow's scoring server, so that base64 text in JSON reaches the model unchanged."""

import os
from typing import Any

from mlflow.types import Schema

from .inputs import SCHEMA

_SERVER_VARIABLES = ("__pyfunc_model_path__", "_MLFLOW_IS_IN_SERVING_ENVIRONMENT")  # `serve`, `predict`


def keep_text() -> None:
    """Make the server pass base64 text of the column `image` to the model unchanged.

    MLflow 3.17 decodes the text of a binary column in `dataframe_split` and `dataframe_records` itself, with
    `base64.decodebytes`. It drops every character that is not of the standard alphabet, which leaves wrong
    bytes of a data URI and of URL-safe base64; and the "Incorrect padding" of one image costs the whole
    request. `inputs` and `instances` it does not decode at all. Only tables of exactly this model's input are
    left alone, and only in a server's process; an MLflow without that function decodes as it does.
    """
    from mlflow.utils import proto_json_utils

    convert = getattr(proto_json_utils, "cast_df_types_according_to_schema", None)
    if convert is None or not any(name in os.environ for name in _SERVER_VARIABLES):
        return

    def convert_all_but_images(table: Any, schema: Schema) -> Any:
        return table if schema == SCHEMA else convert(table, schema)

    proto_json_utils.cast_df_types_according_to_schema = convert_all_but_images
