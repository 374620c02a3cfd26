"""Take the README's screenshots of a real sweep: `python docs/screenshots.py FOLDER`.

FOLDER holds `mlflow.db` and `mlruns/` of a finished sweep whose winner is registered; nothing in it is
changed. MLflow's own server shows it on a free port of loopback. A headless Chromium (one that is installed,
driven by Playwright) opens the sweep's `report.html` and the server's pages, and what it sees becomes
`docs/tour-*.png`.

It runs in the project's environment and takes about a minute. Lines that name a folder of the machine are
hidden, and pages that name a user are left out. The README's images are of

    python -m pipeline.steps.sweep --data.source=/home/me/dogs-vs-cats-8k.zip --data.limit=4000
    python -m pipeline.steps.register
    python docs/screenshots.py .
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import mlflow
from mlflow.entities import Run
from PIL import Image
from playwright.sync_api import Page, sync_playwright

DOCS = Path(__file__).parent
SIZE = {"width": 1280, "height": 800}  # of the window, px
HEIGHTS = {"tour-matters": 725, "tour-cell": 620, "tour-report": 765}  # of images that end sooner, px
PARAMS = ("train.learning_rate", "model.activation", "model.kernel_initializer", "model.bias_initializer")
PATIENCE = 60_000  # ms that a page may take
CELLS = "tags.step%20%3D%20'cell'"  # MLflow's filter for a sweep's cells, as an address has it
SETTLED = 2_000  # ms after which what moves into its place has come to rest
LOADING = "[aria-busy=true], [class*=spinner], [class*=skeleton]"
# MLflow's assistant, which is none of ours, and the line with an artifact's place on this machine
HIDDEN = "[data-assistant-ui], .mlflow-artifact-right [title*='/mlruns/'] {display: none !important}"
COLOURS = 128  # of a PNG: pages have few, and a third of the size looks the same


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """MLflow's server of a folder's store, on loopback; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    options = ["--host=127.0.0.1", f"--port={port}", "--workers=1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *options, "--backend-store-uri=sqlite:///mlflow.db"],
        cwd=folder,
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(address)
        yield address
    finally:
        process.terminate()
        process.wait()


def wait_for(address: str) -> None:
    """Return as soon as the server answers; raise TimeoutError if it does not within a minute."""
    end = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < end:
        with contextlib.suppress(OSError), urlopen(f"{address}/health", timeout=1):
            return
        time.sleep(0.2)
    raise TimeoutError(f"no answer from {address}")


def newest_sweep(client: mlflow.MlflowClient) -> Run:
    """The newest sweep that has a best cell."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(experiments, "tags.step = 'sweep'")
    return next(run for run in found if "best_run_id" in run.data.tags)


def settings(sweep: Run) -> dict[str, str]:
    """What MLflow's pages remember in the browser: what a user would have clicked together, key to value.

    The sweep opened, columns for what it varied, and one chart, parallel coordinates of all cells.
    """
    experiment = sweep.info.experiment_id
    chart = {
        "uuid": "coordinates",
        "type": "PARALLEL",
        "runsCountToCompare": 100,
        "metricSectionId": "cells",
        "deleted": False,
        "isGenerated": False,
        "displayName": "Parallel coordinates",
        "selectedParams": list(PARAMS),
        "selectedMetrics": ["report/accuracy"],
        "showAllRuns": True,
    }
    section = {"uuid": "cells", "name": "Cells", "display": True, "columns": 1, "cardHeight": 430}
    state = {
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "selectedColumns": ["metrics.`report/accuracy`", *(f"params.`{key}`" for key in PARAMS)],
        "columnWidths": {},
        "runsExpanded": {sweep.info.run_id: True},
        "runsHiddenMode": "SHOWALL",
        "runListHidden": True,
        "isAccordionReordered": True,
        "compareRunCharts": [chart],
        "compareRunSections": [section | {"isReordered": False, "deleted": False, "isGenerated": False}],
    }
    return {
        f'MLflowLocalStorage-1.1-ExperimentPage-["{experiment}"]-ReactComponentState': json.dumps(state),
        "mlflow.workflowType_v1": '"machine_learning"',
        "mlflow.assistant.panelOpen_v1": "false",
        "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
        "mlflow.telemetry.info.alert.dismissed_v1": "true",
    }


def shots(client: mlflow.MlflowClient, address: str, sweep: Run, report: Path) -> dict[str, tuple[str, str]]:
    """For each image its page's address, and a selector of what it must show."""
    name, version = champion(client)
    experiment, best = sweep.info.experiment_id, sweep.data.tags["best_run_id"]
    runs = f"{address}/#/experiments/{experiment}/runs"
    return {
        "tour-report": (report.as_uri(), "[data-drawn]"),
        "tour-matters": (f"{report.as_uri()}#matters", "[data-drawn]"),
        "tour-curves": (f"{report.as_uri()}#curves", "[data-drawn]"),
        "tour-runs": (f"{runs}?compareRunsMode=TABLE", "text=/^LR_0/"),
        "tour-coordinates": (f"{runs}?compareRunsMode=CHART&searchFilter={CELLS}", "canvas"),
        "tour-cell": (f"{runs}/{best}/artifacts/report/confusion_matrix.png", ".mlflow-artifact-right img"),
        "tour-registry": (f"{address}/#/models/{name}/versions/{version}", "text=champion"),
    }


def champion(client: mlflow.MlflowClient) -> tuple[str, str]:
    """The registered model that has a version with an alias, and that version."""
    (model, *_) = (model for model in client.search_registered_models() if model.aliases)
    return model.name, next(iter(model.aliases.values()))


def take(page: Page, address: str, shown: str, target: Path) -> None:
    """Open a page anew, wait until it shows what it should and nothing loads, and write its image."""
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_selector(shown, timeout=PATIENCE)
    page.wait_for_selector(LOADING, state="hidden", timeout=PATIENCE)
    page.add_style_tag(content=HIDDEN)
    page.wait_for_timeout(SETTLED)
    clip = {"x": 0, "y": 0} | SIZE | {"height": HEIGHTS.get(target.stem, SIZE["height"])}
    image = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
    print(f"{target.name}: {target.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Take them all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where mlflow.db and mlruns/ are")
    folder = parser.parse_args().folder
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not (folder / "mlflow.db").exists() or chromium is None:
        sys.exit(f"mlflow.db in {folder}, and an installed Chromium, are needed")
    with server(folder) as address, sync_playwright() as play, tempfile.TemporaryDirectory() as scratch:
        client = mlflow.MlflowClient(address)
        sweep = newest_sweep(client)
        report = Path(client.download_artifacts(sweep.info.run_id, "report.html", scratch))
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(viewport=SIZE)
        context.add_init_script(
            f"if (location.port) Object.assign(localStorage, {json.dumps(settings(sweep))})"
        )
        page = context.new_page()
        for name, (where, shown) in shots(client, address, sweep, report).items():
            take(page, where, shown, DOCS / f"{name}.png")


if __name__ == "__main__":
    main()
