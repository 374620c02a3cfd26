"""States of a cell that ended, and which of them an error leads to."""

# Dask reports a process that DIED; lack of memory counts as DIED too. BROKEN ends the sweep.
FINISHED, STOPPED, FAILED, DIED, BROKEN = "finished", "stopped", "failed", "died", "broken"


def classify(error: BaseException) -> tuple[str, str]:
    """The state of a cell that an error ended, and the reason in one line.

    BROKEN: the machine or the store lacks something, which every other cell would meet too; the sweep can be
    resumed once that is fixed. DIED: lack of memory or an interrupted answer, which a retry may avoid.
    FAILED: anything else, which would happen again.
    """
    from pipeline.runtime.errors import ChangedImages, UserError
    from pipeline.tracking import StoreError, first_line

    reason = f"{type(error).__name__}: {first_line(error)}"
    if isinstance(error, UserError):
        return (BROKEN if isinstance(error, ChangedImages) else FAILED), str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return DIED, f"out of memory ({reason})"
    if isinstance(error, StoreError):
        if "Connection broken" in str(error):  # in the midst of an answer: MLflow does not ask again then
            return DIED, f"the tracking store's answer broke off ({first_line(error)})"
        ours = error.error_code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
        return (FAILED if ours else BROKEN), f"the tracking store failed: {first_line(error)}"
    if isinstance(error, OSError):
        return BROKEN, reason
    return FAILED, reason


def log_traceback(run_id: str, error: BaseException) -> None:
    """Log an error's traceback, without credentials, as an artifact of a run."""
    import traceback

    from pipeline.runtime.credentials import without_password
    from pipeline.tracking import artifacts

    text = "".join(traceback.format_exception(error))
    artifacts.log_files({"traceback.txt": without_password(text).encode(errors="replace")}, run_id=run_id)
