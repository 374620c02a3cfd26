"""Which study a command resumes, and what of the parameters identifies a study.

The same study has the same images, labels and split, the same `seed`, and the same values of every key under
`model` and `train` that its network has. The grid is no part of it, and so the base value of a key that is
swept is none either: every cell names its own. Nor is what `auto` was resolved to, which a timing decides.
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
        params: as asked for, `train.precision` perhaps `auto`.
        data_digest: of the prepared images.
    """
    own = {key: value for key, value in _own(params).items() if key not in _swept(params)}
    text = json.dumps([data_digest, params.seed, own], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def find(params: Params, data_digest: str) -> Sweep | None:
    """The newest sweep of the study that parameters ask for; None where there is none.

    Args:
        params: as in `study_name`.
        data_digest: of the prepared images.

    Raises:
        UserError: it was made by a version of this pipeline that wrote something else.
    """
    same = [sweep for sweep in sweep_runs.sweeps(data_digest) if _is_same(params, sweep)]
    if not same:
        return None
    # two drivers that began at once may have made two runs: the older one counts
    sweep = next(sweep for sweep in same if sweep.study == same[-1].study)
    if sweep.tags.get("format") != sweep_runs.FORMAT:
        raise UserError(
            f"study {sweep.study} (run {sweep.run_id}) was made by another version of this pipeline: its "
            f"format is {sweep.tags.get('format', 'none')}, this one writes {sweep_runs.FORMAT}; start "
            "over with sweep.restart=true, which keeps its runs, or go back to that version"
        )
    return sweep


def oldest(params: Params, data_digest: str) -> Sweep | None:
    """The sweep of the study whose run is the oldest, of whatever generation; None where there is none."""
    return next((sweep for sweep in sweep_runs.sweeps(data_digest) if _is_same(params, sweep)), None)


def resumed(params: Params, sweep: Sweep) -> Params:
    """The parameters with a study's own under `model` and `train`, the resolved precision among them."""
    return params.with_values(_logged(sweep, params))


def tags(asked: Params, sweep: Sweep | None) -> dict[str, str]:
    """What a sweep's run is tagged with at each start.

    Args:
        asked: the parameters before `auto` was resolved.
        sweep: the one that is resumed; None of a new one.
    """
    before = _swept_of(sweep) if sweep else set()
    known = {} if sweep else {PRECISION: asked.train.precision}
    return {SWEPT: json.dumps(sorted(before | _swept(asked)))} | known


def _is_same(params: Params, sweep: Sweep) -> bool:
    """Whether a sweep of the same images is of the study that the parameters ask for."""
    if sweep.params.get("seed") != str(params.seed):
        return False
    free = _swept(params) & _swept_of(sweep)
    try:
        before = _logged(sweep, params)
    except UserError:  # of a network, or with values, that this version does not have
        return False

    def is_same(key: str, value: Any) -> bool:
        asked = sweep.tags.get(PRECISION) if key == "train.precision" else None
        return key in free or value == asked or (key in before and value == before[key])

    return all(is_same(key, value) for key, value in _own(params).items())


def _logged(sweep: Sweep, params: Params) -> dict[str, Any]:
    """The values under `model` and `train` that a sweep's run was started with, dotted."""
    keys = [key for key in params.flat() if key.startswith(("model.", "train.")) and key in sweep.params]
    # as typed: `mlflow run -P` logs 1e-2 where this pipeline logs 0.01
    values = load([f"--{key}={sweep.params[key]}" for key in keys]).flat()
    return {key: values[key] for key in keys}


def _own(params: Params) -> Mapping[str, Any]:
    """The values under `model` and `train`, dotted, but for keys that none of the networks has."""
    swept = params.sweep.grid.name or [params.model.name]
    taken = {f"model.{key}" for name in swept for key in ("name", *NETWORKS[name].parameters)}
    return {key: value for key, value in params.flat().items() if key.startswith("train.") or key in taken}


def _swept(params: Params) -> set[str]:
    return {f"{section_of(key)}.{key}" for key in params.sweep.grid.values()}


def _swept_of(sweep: Sweep) -> set[str]:
    return set(json.loads(sweep.tags.get(SWEPT, "[]")))
