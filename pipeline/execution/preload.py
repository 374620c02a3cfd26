"""What the process that workers are forked from imports; importing this module does it.

That process leaves Ctrl-C and the end to the driver, with which it ends.
"""

import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)  # of SIGINT, `multiprocessing` sees to it

from pipeline.runtime import logs  # noqa: E402

logs.configure_process()
with logs.importing_tensorflow():
    import distributed  # noqa: F401

    from pipeline.execution import trial  # noqa: F401
