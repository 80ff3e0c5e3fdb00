"""The short way in: a wrapper's command line, when it is nothing but that, without the rest of hubscope."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from hubscope.errors import InvalidSetting
from hubscope.wrap.options import parse, read


def wrap_and_exit(arguments: Sequence[str]) -> None:
    """Become the wrapper of `[OPTIONS] -- CMD ARGS...` and never return; return for any other arguments.

    A setting that is not allowed is one line and exit code 1.
    """
    parsed = parse(arguments)
    if parsed is None:
        return
    from hubscope.wrap.run import run

    try:
        code = run(read(*parsed, os.environ))
    except InvalidSetting as error:
        print(f"hubscope: {error.detail}", file=sys.stderr)
        code = 1
    sys.stderr.flush()
    os._exit(code)  # threads may still be reading standard input
