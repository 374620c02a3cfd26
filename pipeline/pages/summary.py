"""The result of a sweep in a sentence, and what a reader must know first."""

from pipeline.evaluation import intervals
from pipeline.pages.sweep_data import Findings
from pipeline.runtime.console import counted


def verdict(found: Findings) -> str:
    """The sweep's outcome in a sentence."""
    if not found.cells:
        failed = f"; {len(found.failed)} failed" if found.failed else ""
        return f"No cell is finished yet: 0 of {found.total}{failed}."
    winner, n = found.cells[0], len(found.cells)
    if all(cell.diverged for cell in found.cells):
        those = "The only finished cell" if n == 1 else f"All {n} finished cells"
        return (
            f"{those} diverged: the best validation {_plain(found.metric)} is "
            f"{winner.scores[found.metric]:.3f}. Try smaller learning rates."
        )
    # none for a metric that is not computed from the confusion matrix
    interval = intervals.of(found.winner.matrix).get(found.metric) if found.winner else None
    text = (
        f"{winner.name} is {'the only finished cell' if n == 1 else 'best'}: validation "
        f"{_plain(found.metric)} {winner.scores[found.metric]:.3f}"
    )
    if interval:
        text += " (95 % interval {:.3f} to {:.3f})".format(*interval)
    if found.test:
        text += f", test {found.test[0][found.metric]:.3f}"
    elif found.has_test:
        text += ", not measured on the test split"
    return f"{text}{_others(found, interval)}."


def asides(found: Findings) -> list[str]:
    """Notes on an unfinished sweep, and on cells that failed or diverged."""
    texts = []
    left = found.total - len(found.cells) - len(found.failed)
    if left:
        texts.append(
            f"Unfinished sweep: {len(found.cells)} of {found.total} cells are finished. Rerun the same "
            "command to resume."
        )
    done, wanted = found.repeats
    if done < wanted and not left:
        texts.append(
            f"Unfinished sweep: {done} of {wanted} repeats of the finalists are finished. Rerun the same "
            "command to resume."
        )
    if found.failed:
        texts.append(f"{counted(len(found.failed), 'cell')} failed; the reasons are below the leaderboard.")
    diverged = sum(cell.diverged for cell in found.cells)
    if diverged and diverged < len(found.cells):
        texts.append(f"{diverged} of {len(found.cells)} cells diverged.")
    return texts


def _others(found: Findings, interval: tuple[float, float] | None) -> str:
    """How many cells may be as good as the best, as the end of a sentence."""
    if len(found.cells) == 1:
        return ""
    if found.verdict is not None and found.verdict["winner"]["run_id"] == found.cells[0].run_id:
        others, method = len(found.verdict["not_significantly_worse"]), found.verdict["method"]
        if not others:
            return f"; all others are significantly worse ({method})"
        verb = "other is" if others == 1 else "others are"
        return f"; {others} {verb} not significantly worse ({method})"
    if interval is None:
        return ""
    others = sum(cell.scores[found.metric] >= interval[0] for cell in found.cells[1:])
    if not others:
        return "; no other is within that interval"
    return f"; {others} other{'s are' if others != 1 else ' is'} within that interval"


def _plain(metric: str) -> str:
    """A score's name within a sentence."""
    return {"f1": "F1", "macro_f1": "macro F1"}.get(metric, metric.replace("macro_", "macro "))
