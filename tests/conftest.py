"""What every test relies on, however the suite was started."""

from __future__ import annotations

import contextlib
import signal

# A suite started in the background, or under nohup, inherits ignored signals, and so would every program it starts.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGTERM, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        with contextlib.suppress(ValueError):  # not the main thread: whoever is there decides
            signal.signal(_number, _handler)
