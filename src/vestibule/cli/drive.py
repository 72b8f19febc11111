"""What the commands that move a run share: the driver, the closing words, the exit code."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from vestibule.cli.output import emit_json, say

if TYPE_CHECKING:
    from vestibule.pipeline.drive import Driver
    from vestibule.pipeline.record import RunRecord


def open_driver() -> Driver:
    """The driver over this process's services; says on stderr which run it works on."""
    import gc
    import threading

    # Much is imported and nothing of it is garbage: collecting meanwhile costs a tenth of the start-up.
    gc.set_threshold(100_000, 50, 50)
    threading.Thread(target=__import__, args=("dbos",), name="load-engine", daemon=True).start()
    from vestibule.pipeline.drive import Driver
    from vestibule.pipeline.services import Services

    return Driver(Services(), progress=say)


def finish(driver: Driver, act: Callable[[], RunRecord], run: str, *, as_json: bool) -> int:
    """Perform `act`, print where the run stands, and give its exit code."""
    from vestibule.core.errors import VestibuleError
    from vestibule.pipeline.drive import exit_code
    from vestibule.pipeline.reader import Reader

    _end_like_ctrl_c()
    try:
        record = act()
        code = exit_code(record)
    except KeyboardInterrupt:
        raise click.Abort(
            f"Stopped. Go on with `vestibule resume {run}`, or end the run with `vestibule cancel {run}`."
        ) from None
    except VestibuleError as error:
        if driver.services.runs.find(run) is None or as_json is False:
            raise
        # The object still says what is known of the run; the exit code says what went wrong.
        from vestibule.cli.output import error_json, show_error

        found, failed = Reader(driver.services).as_json(run), error_json(error)
        refusals = [item for item in failed.get("refusals", []) if item not in found["refusals"]]
        emit_json({**found, "refusals": [*refusals, *found["refusals"]], "error": failed["error"]})
        return show_error(error, as_json=False)
    if as_json:
        emit_json(Reader(driver.services).as_json(record.id))
    else:
        from vestibule.cli.show import print_summary

        print_summary(driver.services, record)
    driver.services.close()
    return code


def _end_like_ctrl_c() -> None:
    """SIGTERM and SIGHUP end a run as Ctrl-C does, with the same words; what is ignored (`nohup`) stays so."""
    import signal

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, stop)
