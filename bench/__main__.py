"""`python -m bench [NAME …]`: run benchmarks, print them as tables and write them as JSON."""

import argparse
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import (
    batch,
    channel,
    deliver,
    dispatch,
    growth,
    inbound,
    memory,
    overload,
    postgres,
    report,
    send,
    servers,
    split,
    store,
    workers,
    wrk,
)
from bench.plan import Plan
from tools.postgres import NoPostgres

_BENCHMARKS: dict[str, Callable[[Plan], report.Benchmark]] = {
    "send": send.run,
    "store": store.run,
    "inbound": inbound.run,
    "deliver": deliver.run,
    "channel": channel.run,
    "batch": batch.run,
    "workers": workers.run,
    "split": split.run,
    "postgres": postgres.run,
    "dispatch": dispatch.run,
    "overload": overload.run,
    "growth": growth.run,
    "memory": memory.run,
}
# What takes many minutes is run only when asked for by name.
_ALL = (
    "send",
    "store",
    "inbound",
    "deliver",
    "channel",
    "batch",
    "workers",
    "split",
    "postgres",
    "dispatch",
)
_WITHOUT_WRK = {"store", "inbound", "deliver", "channel", "batch"}
_LATEST = Path(__file__).parents[1] / "build" / "bench" / "latest.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure hydrasms against bare baselines.",
        epilog="benchmarks:\n" + "\n".join(_described(run) for run in _BENCHMARKS.values()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "name",
        nargs="*",
        choices=[*_BENCHMARKS, "all"],
        default="all",
        help=f"what to run; `all`, the default, is {', '.join(_ALL)}",
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one run of one case (4)")
    parser.add_argument("--runs", type=int, default=3, help="alternating runs of each case (3)")
    parser.add_argument(
        "--sends", type=int, default=1_000_000, help="messages that `memory` sends (1,000,000)"
    )
    parser.add_argument(
        "--rows", type=int, default=10_000_000, help="messages in what `growth` takes for full (10,000,000)"
    )
    parser.add_argument("--json", type=Path, help="write the results into this file as well")
    options = parser.parse_args(arguments)
    if min(options.seconds, options.runs, options.sends, options.rows) < 1:
        parser.error("--seconds, --runs, --sends and --rows are at least 1")
    asked = [options.name] if isinstance(options.name, str) else options.name
    names = list(dict.fromkeys(name for each in asked for name in (_ALL if each == "all" else (each,))))
    signal.signal(signal.SIGTERM, servers.leave)
    try:
        if set(names) - _WITHOUT_WRK:
            wrk.require_wrk()
        _run(names, options)
    except (wrk.LoadFailed, servers.ServerFailed, NoPostgres) as failure:
        print(failure, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _described(run: Callable[[Plan], report.Benchmark]) -> str:
    """Return the first sentence of a benchmark's module, which begins with its name."""
    words = " ".join((sys.modules[run.__module__].__doc__ or "").split())
    return textwrap.fill(
        words.partition(". ")[0].rstrip(".").replace("`", ""),
        100,
        initial_indent="  ",
        subsequent_indent="    ",
    )


def _run(names: Sequence[str], options: argparse.Namespace) -> None:
    """Run benchmarks one after the other; what is done is written down before the next begins."""
    done: list[report.Benchmark] = []
    settings = {
        "seconds": options.seconds,
        "runs": options.runs,
        "sends": options.sends,
        "rows": options.rows,
    }
    with servers.workspace() as folder:
        for name in names:
            own = folder / name
            own.mkdir()
            plan = Plan(own, options.seconds, options.runs, options.sends, options.rows)
            done.append(_BENCHMARKS[name](plan))
            print(report.table(done[-1]), flush=True)
            document = report.as_json(done, settings=settings, folder=folder)
            for path in (_LATEST, options.json):
                if path is not None:
                    report.write_json(document, path)


if __name__ == "__main__":
    sys.exit(main())
