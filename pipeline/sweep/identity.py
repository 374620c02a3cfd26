"""What identifies a study, and which study a command resumes.

A study is identified by its images, labels and split, by `seed`, and by the value of every key under `model`
and `train` that its network has and its grid does not sweep. The grid is no part of it, nor is the value that
`auto` was resolved to: a timing decides it.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pipeline.config.command_line import load
from pipeline.config.networks import NETWORKS
from pipeline.config.params import Params, section_of
from pipeline.runtime.errors import UserError
from pipeline.tracking import sweep_runs
from pipeline.tracking.sweep_runs import Sweep

SWEPT, PRECISION = "swept_keys", "precision"  # tags of a sweep's run


def study_name(params: Params, data_digest: str) -> str:
    """The name of a new study, 12 hexadecimal digits.

    Args:
        params: The parameters as given; `train.precision` may be `auto`.
        data_digest: Of the prepared images.
    """
    own = {key: value for key, value in _own(params).items() if key not in _swept(params)}
    text = json.dumps([data_digest, params.seed, own], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def find(params: Params, data_digest: str) -> Sweep | None:
    """The newest sweep of the study of the parameters; None if there is none.

    Args:
        params: As in `study_name`.
        data_digest: Of the prepared images.

    Raises:
        UserError: The sweep has the format of another version of this pipeline.
    """
    same = [sweep for sweep in sweep_runs.sweeps(data_digest) if _is_same(params, sweep)]
    if not same:
        return None
    # Two drivers that started at the same time may have created two runs: the older one counts.
    sweep = next(sweep for sweep in same if sweep.study == same[-1].study)
    if sweep.tags.get("format") != sweep_runs.FORMAT:
        raise UserError(
            f"study {sweep.study} (run {sweep.run_id}) has format {sweep.tags.get('format', 'none')} of "
            f"another version of this pipeline; this one needs format {sweep_runs.FORMAT}; start over with "
            "sweep.restart=true, which keeps its runs, or use that version"
        )
    return sweep


def oldest(params: Params, data_digest: str) -> Sweep | None:
    """The sweep of the study with the oldest run, of any generation; None if there is none."""
    return next((sweep for sweep in sweep_runs.sweeps(data_digest) if _is_same(params, sweep)), None)


def resumed(params: Params, sweep: Sweep) -> Params:
    """The parameters with the values of a study under `model` and `train`, with its resolved precision."""
    return params.with_values(_logged(sweep, params))


def tags(asked: Params, sweep: Sweep | None) -> dict[str, str]:
    """The tags that a sweep's run gets at each start.

    Args:
        asked: The parameters before `auto` is resolved.
        sweep: The sweep that is resumed; None of a new one.
    """
    before = _swept_of(sweep) if sweep else set()
    existing = {} if sweep else {PRECISION: asked.train.precision}
    return {SWEPT: json.dumps(sorted(before | _swept(asked)))} | existing


def _is_same(params: Params, sweep: Sweep) -> bool:
    """Whether a sweep of the same images is of the study of the parameters."""
    if sweep.params.get("seed") != str(params.seed):
        return False
    free = _swept(params) & _swept_of(sweep)
    try:
        before = _logged(sweep, params)
    except UserError:  # a network or a value that this version does not have
        return False

    def is_same(key: str, value: Any) -> bool:
        asked = sweep.tags.get(PRECISION) if key == "train.precision" else None
        return key in free or value == asked or (key in before and value == before[key])

    return all(is_same(key, value) for key, value in _own(params).items())


def _logged(sweep: Sweep, params: Params) -> dict[str, Any]:
    """The values under `model` and `train` that a sweep was started with, by dotted key."""
    keys = [key for key in params.flat() if key.startswith(("model.", "train.")) and key in sweep.params]
    # Parsed, since `mlflow run -P` logs values as typed: 1e-2 where this pipeline logs 0.01.
    values = load([f"--{key}={sweep.params[key]}" for key in keys]).flat()
    return {key: values[key] for key in keys}


def _own(params: Params) -> Mapping[str, Any]:
    """The values under `model` and `train` by dotted key, without keys that none of the networks has."""
    swept = params.sweep.grid.name or [params.model.name]
    taken = {f"model.{key}" for name in swept for key in ("name", *NETWORKS[name].parameters)}
    return {key: value for key, value in params.flat().items() if key.startswith("train.") or key in taken}


def _swept(params: Params) -> set[str]:
    return {f"{section_of(key)}.{key}" for key in params.sweep.grid.values()}


def _swept_of(sweep: Sweep) -> set[str]:
    return set(json.loads(sweep.tags.get(SWEPT, "[]")))
